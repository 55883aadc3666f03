"""Undo never overwrites and never changes: what cannot come back as it was stays in the trash and is named."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.deletion import undo as undoing
from housekeeping_pipelines.deletion.mirrors import (
    MIRRORS_LOCK,
    ensure_mirror,
    find_mirrors,
    mirrors_with_own_types,
    prefer_indexes,
    summarize_mirrors,
)
from housekeeping_pipelines.deletion.purge import purge
from housekeeping_pipelines.deletion.trash import count_expired, list_trash
from housekeeping_pipelines.deletion.undo import UndoResult, find_run, undo_run
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.postgres.locks import lock_for_transaction
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import (
    OLD,
    YOUNG,
    came_back,
    column,
    contents,
    delete,
    family,
    no_store,
    rows,
    scalar,
    sql,
    task_runner,
    texts,
    trash_is_empty,
    undo,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def conflicts(result: UndoResult) -> dict[str, str]:
    assert result.conflict_count >= len(result.conflicts)
    return {conflict.item: conflict.reason for conflict in result.conflicts}


@pytest.mark.parametrize("batch_size", [3, 1000])
def test_what_exists_now_is_never_overwritten(engine: sa.Engine, batch_size: int) -> None:
    family(engine)
    before = contents(engine)
    delete(engine, "parents", batch_size=batch_size)
    sql(
        engine,
        f"INSERT INTO parents VALUES (3, '{YOUNG}', 'mine'), (99, '{YOUNG}', 'code 7')",
        "INSERT INTO children VALUES (4, 99, 0)",
    )
    taken = contents(engine)
    result = undo(engine)
    assert result.restored == {"parents": 8, "children": 17}
    reasons = conflicts(result)
    # 6 and 16 were 7's; 2 and 12 are 3's again, since a parent of this number exists.
    assert set(reasons) == {"parents/3", "parents/7", "children/4", "children/6", "children/16"}
    assert reasons["parents/3"].endswith("Key (id)=(3) already exists.")
    assert reasons["parents/7"].endswith("Key (code)=(code 7) already exists.")
    assert reasons["children/4"].endswith("Key (id)=(4) already exists.")
    missing = "the row of parents that it refers to by children_parent_fkey does not exist"
    assert (reasons["children/6"], reasons["children/16"]) == (missing, missing)
    assert result.conflict_count == 5
    assert result.to_dict()["conflicts"][0].keys() == {"item", "reason"}
    for name, lines in taken.items():
        assert set(lines) <= set(contents(engine)[name])
    with engine.connect() as connection:
        assert [(run.run_id, run.rows) for run in list_trash(connection, timedelta(7))] == [("run-1", 5)]

    again = undo(engine)
    assert (again.restored, conflicts(again)) == ({}, reasons)
    sql(engine, "DELETE FROM children WHERE parent = 99 OR id IN (2, 12)", "DELETE FROM parents WHERE id IN (3, 99)",
        "INSERT INTO children VALUES (2, NULL, 2), (12, NULL, 12)")  # fmt: skip
    assert came_back(undo(engine)) == {"parents": 2, "children": 3}
    sql(engine, "UPDATE children SET parent = 3 WHERE id IN (2, 12)")
    assert contents(engine) == before
    assert trash_is_empty(engine)


def test_undoing_twice_does_nothing_the_second_time(engine: sa.Engine) -> None:
    family(engine)
    before = contents(engine)
    delete(engine, "parents")
    assert came_back(undo(engine)) == {"parents": 10, "children": 20}
    assert came_back(undo(engine)) == {}
    assert came_back(undo(engine, "never")) == {}
    assert contents(engine) == before


def test_a_run_of_several_tasks_comes_back_in_the_order_in_which_it_went(engine: sa.Engine) -> None:
    family(engine)
    sql(engine, "ALTER TABLE children ADD at timestamptz", f"UPDATE children SET at = '{OLD}'")
    before = contents(engine)
    assert delete(engine, "children", task="first", batch_size=7).deleted == {"children": 20}
    assert delete(engine, "parents", task="second", batch_size=3).deleted == {"parents": 10}
    with engine.connect() as connection:
        listed = {(run.run_id, run.task, run.rows) for run in list_trash(connection, timedelta(7))}
    assert listed == {("run-1", "first", 20), ("run-1", "second", 10)}
    assert came_back(undo(engine)) == {"parents": 10, "children": 20}
    assert contents(engine) == before


def test_an_undo_that_is_ended_half_way_goes_on(engine: sa.Engine) -> None:
    family(engine)
    before = contents(engine)
    delete(engine, "parents", batch_size=2)

    def end(done: int, _: int) -> None:
        if done == 2:
            sql(engine, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND datname = current_database() AND application_name = 'housekeeping'")  # fmt: skip

    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as caught:
        undo_run(connection, "run-1", on_progress=end)
    assert caught.value.connection_invalidated
    assert scalar(engine, "SELECT count(*) FROM parents") == 4
    assert scalar(engine, "SELECT count(*) FROM children") == 8
    assert came_back(undo(engine)) == {"parents": 6, "children": 12}
    assert contents(engine) == before
    assert trash_is_empty(engine)


def test_an_undo_that_is_ended_inside_a_transaction_leaves_it_whole(engine: sa.Engine) -> None:
    family(engine)
    before = contents(engine)
    delete(engine, "parents", batch_size=2)
    sql(
        engine,
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.parent = 4 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END $$",
        "CREATE TRIGGER die BEFORE INSERT ON children FOR EACH ROW EXECUTE FUNCTION die()",
    )
    with pytest.raises(sa.exc.DBAPIError) as caught:
        undo(engine)
    assert caught.value.connection_invalidated
    back = scalar(engine, "SELECT count(*) FROM parents")
    assert back in (2, 4, 6)
    assert scalar(engine, "SELECT count(*) FROM children") == 2 * back
    sql(engine, "DROP TRIGGER die ON children")
    assert came_back(undo(engine)) == {"parents": 10 - back, "children": 20 - 2 * back}
    assert contents(engine) == before


def test_two_undos_at_once_restore_each_row_once(engine: sa.Engine) -> None:
    family(engine, 60)
    before = contents(engine)
    delete(engine, "parents", batch_size=1)
    results: list[UndoResult] = []
    threads = [threading.Thread(target=lambda: results.append(undo(engine))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [result.conflicts for result in results] == [[], []]
    assert sum(result.restored.get("parents", 0) for result in results) == 60
    assert sum(result.restored.get("children", 0) for result in results) == 120
    assert contents(engine) == before


def test_a_tree_with_one_row_that_conflicts_comes_back_but_for_what_hangs_on_it(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE nodes (id int PRIMARY KEY, at timestamptz, parent int REFERENCES nodes)",
        # Every child before its parent in the trash.
        f"INSERT INTO nodes VALUES (9, '{OLD}', NULL)",
        *(f"INSERT INTO nodes VALUES ({n}, '{OLD}', {n + 1})" for n in range(8, 0, -1)),
        "CREATE TABLE copy AS TABLE nodes",
        "DELETE FROM nodes",
        "INSERT INTO nodes SELECT * FROM copy ORDER BY id",
    )
    before = contents(engine)
    delete(engine, "nodes")
    sql(engine, f"INSERT INTO nodes VALUES (4, '{YOUNG}', NULL)")
    result = undo(engine)
    assert set(conflicts(result)) == {"nodes/4"}
    assert result.restored == {"nodes": 8}
    sql(engine, "UPDATE nodes SET parent = NULL WHERE id = 3", "DELETE FROM nodes WHERE id = 4")
    came_back(undo(engine))
    sql(engine, "UPDATE nodes SET parent = 4 WHERE id = 3")
    assert contents(engine) == before


def wide(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
        "CREATE TABLE things (b int, a text, at timestamptz, n numeric, t text, m mood, gone int, j jsonb,"
        " PRIMARY KEY (a, b))",
        f"INSERT INTO things VALUES (1, 'x', '{OLD}', 1, 'short', 'ok', NULL, '1'),"
        f" (2, 'x', '{OLD}', 2.5, 'rather long', 'sad', NULL, NULL), (3, 'y', '{OLD}', NULL, NULL, NULL, NULL, NULL)",
    )


FINE = {
    "nothing changed": "SELECT",
    "a column that may be null was added": "ALTER TABLE things ADD more text",
    "a column with a default was added": "ALTER TABLE things ADD more int NOT NULL DEFAULT 7",
    "an identity was added": "ALTER TABLE things ADD more int GENERATED ALWAYS AS IDENTITY",
    "a generated column was added": "ALTER TABLE things ADD more int GENERATED ALWAYS AS (b * 2) STORED NOT NULL",
    "a column that held nothing was dropped": "ALTER TABLE things DROP gone",
    "a type was widened": "ALTER TABLE things ALTER b TYPE bigint, ALTER t TYPE varchar(400)",
    "an enum was made anew": (
        "ALTER TYPE mood RENAME TO mood_old; CREATE TYPE mood AS ENUM ('happy', 'ok', 'sad', 'new');"
        " ALTER TABLE things ALTER m TYPE mood USING m::text::mood"
    ),
    "a key was added": "ALTER TABLE things ADD id bigserial, DROP CONSTRAINT things_pkey, ADD PRIMARY KEY (id)",
}


@pytest.mark.parametrize("case", FINE)
def test_a_table_that_changed_and_still_fits_takes_everything(engine: sa.Engine, case: str) -> None:
    wide(engine)
    query = "SELECT a, b::bigint, at::text, n::text, t, m::text, j::text FROM things ORDER BY a, b"
    before = rows(engine, query)
    assert delete(engine, "things").deleted == {"things": 3}
    sql(engine, FINE[case])
    assert came_back(undo(engine)) == {"things": 3}
    assert rows(engine, query) == before
    assert trash_is_empty(engine)


# What was done, which rows stay in the trash (None: the table as a whole), and what the reason says.
MISFITS: dict[str, tuple[str, list[str] | None, str]] = {
    "NOT NULL without a default": (
        "ALTER TABLE things ADD more int NOT NULL",
        None,
        "the column more was added since; it is NOT NULL and has no default",
    ),
    "a column with values was dropped": (
        "ALTER TABLE things DROP t",
        None,
        "the column t no longer exists, but rows in the trash have a value in it",
    ),
    "the table was dropped": ("DROP TABLE things", None, "the table no longer exists"),
    "it would be rounded": ("ALTER TABLE things ALTER n TYPE int", ["things/x,2"], "invalid input syntax"),
    "it would be rounded to a scale": (
        "ALTER TABLE things ALTER n TYPE numeric(5,0)",
        ["things/x,2"],
        "it would be restored changed",
    ),
    "it is too long": (
        "ALTER TABLE things ALTER t TYPE varchar(6)",
        ["things/x,2"],
        "value too long for type character varying(6)",
    ),
    "it only looks otherwise": ("ALTER TABLE things ALTER j TYPE json", [], ""),
    "an enum lost a value": (
        (
            "ALTER TYPE mood RENAME TO mood_old; CREATE TYPE mood AS ENUM ('ok');"
            " ALTER TABLE things ALTER m TYPE mood USING m::text::mood"
        ),
        ["things/x,2"],
        'invalid input value for enum mood: "sad"',
    ),
    "a check was added": ("ALTER TABLE things ADD CHECK (n IS NULL OR n < 2)", ["things/x,2"], "violates check"),
    "a trigger changes rows": (
        (
            "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN IF NEW.b = 2 THEN NEW.t = upper(NEW.t); END IF; RETURN NEW; END $$;"
            " CREATE TRIGGER change BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION change()"
        ),
        [],
        "",
    ),
    "a trigger drops rows": (
        (
            "CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
            " CREATE TRIGGER drop_it BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION drop_it()"
        ),
        ["things/x,1", "things/x,2", "things/y,3"],
        "a trigger of things is not what it was",
    ),
    "a column is generated now": (
        "ALTER TABLE things DROP n; ALTER TABLE things ADD n numeric GENERATED ALWAYS AS (1) STORED",
        ["things/x,2", "things/y,3"],
        "a generated column",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_table_that_no_longer_fits_refuses_with_the_reason(engine: sa.Engine, case: str) -> None:
    statement, items, reason = MISFITS[case]
    wide(engine)
    sql(engine, "CREATE TABLE live AS TABLE things")
    before = texts(engine, "live")
    assert delete(engine, "things").deleted == {"things": 3}
    sql(engine, statement)
    result = undo(engine)
    stays = 3 if items is None else len(items)
    assert result.conflict_count == stays
    assert result.restored == ({} if stays == 3 else {"things": 3 - stays})
    name = "public.things" if "dropped" in case and "table" in case else "things"
    assert set(conflicts(result)) == ({name} if items is None else set(items))
    assert all(reason in text for text in conflicts(result).values())
    mirror = scalar(engine, "SELECT mirror FROM housekeeping.trash_tables")
    names = "b, a, at, n, t, m, gone, j"
    kept = texts(engine, f'(SELECT {names} FROM housekeeping."{mirror}")')
    assert len(kept) == stays
    assert set(kept) <= set(before)


def test_rows_without_a_key_are_named_by_their_table(engine: sa.Engine) -> None:
    sql(engine, "CREATE TABLE lines (at timestamptz, n int)", f"INSERT INTO lines VALUES ('{OLD}', 1), ('{OLD}', 2)")
    before = texts(engine, "lines")
    assert delete(engine, "lines").deleted == {"lines": 2}
    sql(engine, "ALTER TABLE lines ADD CHECK (n < 2)")
    result = undo(engine)
    assert result.restored == {"lines": 1}
    assert [conflict.item for conflict in result.conflicts] == ["a row of lines"]
    sql(engine, "ALTER TABLE lines DROP CONSTRAINT lines_n_check")
    came_back(undo(engine))
    assert texts(engine, "lines") == before


def test_a_type_that_took_another_ones_name_is_another_shape(engine: sa.Engine) -> None:
    wide(engine)
    assert delete(engine, "things").deleted == {"things": 3}
    sql(
        engine,
        "ALTER TYPE mood RENAME TO mood_old",
        "CREATE TYPE mood AS ENUM ('new', 'ok')",
        "ALTER TABLE things ALTER m TYPE mood USING m::text::mood",
        f"INSERT INTO things VALUES (7, 'z', '{OLD}', 1, 't', 'new')",
    )
    assert delete(engine, "things", run_id="run-2").deleted == {"things": 1}
    assert scalar(engine, "SELECT count(*) FROM housekeeping.trash_tables") == 2
    assert came_back(undo(engine, "run-2")) == {"things": 1}
    assert column(engine, "SELECT m::text FROM things") == ["new"]


def test_two_shapes_of_one_table_come_back_from_one_run(engine: sa.Engine) -> None:
    wide(engine)
    sql(engine, f"INSERT INTO things VALUES (9, 'z', '{YOUNG}', 1, 't', 'ok')")
    assert delete(engine, "things").deleted == {"things": 3}
    sql(engine, f"ALTER TABLE things ADD extra text, DROP gone; UPDATE things SET at = '{OLD}', extra = 'e'")
    assert delete(engine, "things", task="again").deleted == {"things": 1}
    assert scalar(engine, "SELECT count(*) FROM housekeeping.trash_tables") == 2
    assert came_back(undo(engine)) == {"things": 4}
    assert rows(engine, "SELECT a, b, extra FROM things ORDER BY a, b") == [
        ("x", 1, None),
        ("x", 2, None),
        ("y", 3, None),
        ("z", 9, "e"),
    ]


def test_conflicts_beyond_fifty_are_counted(engine: sa.Engine) -> None:
    family(engine, 80)
    delete(engine, "parents")
    sql(engine, f"INSERT INTO parents SELECT n, '{YOUNG}' FROM generate_series(1, 80) n", "ALTER TABLE children ADD"
        " CHECK (age > 80)")  # fmt: skip
    result = undo(engine)
    assert (len(result.conflicts), result.conflict_count) == (50, 160)
    assert result.restored == {"children": 80}


def test_a_run_is_found_by_the_start_of_its_id(engine: sa.Engine) -> None:
    family(engine)
    delete(engine, "parents", run_id="abc%1", max_rows=3)
    delete(engine, "parents", run_id="abc%12", max_rows=3)
    delete(engine, "parents", run_id="abd_1")
    with engine.connect() as connection:
        assert find_run(connection, "abd") == "abd_1"
        assert find_run(connection, "abc%12") == "abc%12"
        assert find_run(connection, "abc%1") == "abc%1"
        for prefix, problem in {
            "ab": "several runs in the trash start with 'ab'",
            "abd%": "the trash has nothing of a run 'abd%'",
            "a_c": "the trash has nothing of a run 'a_c'",
            "'; --": 'the trash has nothing of a run "\'; --"',
        }.items():
            with pytest.raises(ConfigurationError) as caught:
                find_run(connection, prefix)
            assert caught.value.message == problem


def test_what_is_expired_is_purged_and_the_rest_kept(engine: sa.Engine) -> None:
    family(engine)
    sql(engine, "CREATE TABLE notes (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE SET NULL)",
        "INSERT INTO notes VALUES (1, 1), (2, 10)")  # fmt: skip
    for number, days in enumerate([10, 5, 1]):
        runner = task_runner(engine, clock=lambda days=days: NOW - timedelta(days=days))
        delete(engine, "parents", runner=runner, run_id=f"run-{number}", max_rows=9, batch_size=1)
    retention = timedelta(days=7)
    with engine.connect() as connection:
        listed = list_trash(connection, retention)
        assert [(run.run_id, run.rows) for run in listed] == [("run-2", 9), ("run-1", 9), ("run-0", 9)]
        assert [run.expires_at for run in listed] == [NOW + timedelta(days=d) for d in (6, 2, -3)]
        assert count_expired(connection, before=NOW - retention) == {"parents": 3, "children": 6}
        connection.rollback()
        assert purge(connection, no_store, before=NOW - retention).rows == {"parents": 3, "children": 6}
        assert [run.run_id for run in list_trash(connection, retention)] == ["run-2", "run-1"]
        connection.rollback()
        # One run, expired or not.
        assert count_expired(connection, before=NOW, run_id="run-2") == {"parents": 3, "children": 6}
        connection.rollback()
        assert purge(connection, no_store, before=NOW - retention, run_id="run-2").rows == {"parents": 3, "children": 6}
        connection.rollback()
    assert came_back(undo(engine, "run-1")) == {"parents": 3, "children": 6}
    assert came_back(undo(engine, "run-0")) == {}
    assert column(engine, "SELECT id FROM parents ORDER BY 1") == [4, 5, 6, 10]
    assert scalar(engine, "SELECT count(*) FROM housekeeping.trash_references") == 0


def test_a_mirror_finds_a_batch_without_reading_the_others(engine: sa.Engine) -> None:
    family(engine)
    sql(engine, f"INSERT INTO parents SELECT n, '{OLD}', 'code ' || n FROM generate_series(11, 20000) n")
    delete(engine, "parents", batch_size=1000, allow_large_deletion=True)
    with engine.connect() as connection:
        mirror = next(mirror for mirror in find_mirrors(connection) if mirror.source_table == "parents")
        summarize_mirrors(connection)
        prefer_indexes(connection)
        batch, count = rows(engine, "SELECT id, contents -> 0 -> 1 FROM housekeeping.trash_batches ORDER BY id")[7]
        explain = f'SELECT FROM housekeeping."{mirror.name}" WHERE housekeeping_batch = {batch}'
        explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {explain}").scalar_one()
    plan = explained[0]["Plan"]
    assert (plan["Node Type"], plan["Actual Rows"]) == ("Bitmap Heap Scan", count)
    # What the pages beside the batch's own hold, and not the rest of the 20,000 rows.
    assert plan["Rows Removed by Index Recheck"] < 10_000


def test_a_mirror_of_an_older_version_is_read_by_its_own_index(engine: sa.Engine) -> None:
    family(engine, 20)
    with engine.begin() as connection:
        for table in ("parents", "children"):
            source = Catalog(connection).find_exactly("public", table)
            assert source is not None
            mirror = ensure_mirror(connection, source).name
            connection.exec_driver_sql(f'DROP INDEX housekeeping."{mirror}_housekeeping_batch_idx"')
            connection.exec_driver_sql(f'CREATE INDEX ON housekeeping."{mirror}" (housekeeping_batch)')
    for number in range(2):
        assert delete(engine, "parents", run_id=f"run-{number}", max_rows=30).deleted == {"parents": 10, "children": 20}
    with engine.connect() as connection:
        assert purge(connection, no_store, before=NOW, run_id="run-0").rows == {"parents": 10, "children": 20}
    assert came_back(undo(engine, "run-1")) == {"parents": 10, "children": 20}
    assert trash_is_empty(engine)


def test_empty_mirrors_go_and_are_made_again(engine: sa.Engine) -> None:
    wide(engine)
    delete(engine, "things")
    with engine.connect() as connection:
        assert mirrors_with_own_types(connection) == ["things"]
        connection.rollback()
        # Who counts on the mirrors keeps them, empty or not.
        undo(engine)
        with engine.connect() as other:
            other.execute(lock_for_transaction(MIRRORS_LOCK, shared=True))
            assert purge(connection, no_store, before=NOW).rows == {}
            assert scalar(engine, "SELECT count(*) FROM housekeeping.trash_tables") == 1
        assert purge(connection, no_store, before=NOW).rows == {}
        assert mirrors_with_own_types(connection) == []
    assert rows(engine, "SELECT * FROM housekeeping.trash_tables") == []
    assert column(engine, "SELECT relname FROM pg_class WHERE relname LIKE 'things\\_%' AND relkind = 'r'") == []
    assert delete(engine, "things", run_id="run-2").deleted == {"things": 3}
    assert came_back(undo(engine, "run-2")) == {"things": 3}


def test_an_undo_in_the_wrong_order_says_at_once_which_run_comes_first(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(
        engine,
        "CREATE TABLE talks (id int PRIMARY KEY, at timestamptz)",
        "CREATE TABLE words (id int PRIMARY KEY, talk int CONSTRAINT of_talk REFERENCES talks, at timestamptz)",
        f"INSERT INTO talks SELECT n, '{OLD}' FROM generate_series(1, 500) n",
        "INSERT INTO talks VALUES (501, now())",
        f"INSERT INTO words SELECT n, 1 + n % 501, '{OLD}' FROM generate_series(1, 2000) n",
    )
    before = contents(engine)
    delete(engine, "words", run_id="run-1", allow_large_deletion=True)
    assert delete(engine, "talks", run_id="run-2", allow_large_deletion=True).deleted == {"talks": 500}
    attempts: list[int] = []

    def in_halves(items: list[str], attempt: Callable[[list[str]], list[str]]) -> None:
        attempts.append(len(items))
        assert attempt(items) == [], "row by row, where all rows without a parent fail alike"

    monkeypatch.setattr(undoing, "in_halves", in_halves)
    result = undo(engine, "run-1")
    kept = scalar(engine, "SELECT count(*) FROM words")
    assert (result.restored, result.conflict_count) == ({"words": kept}, 2000 - kept)
    assert sum(attempts) == kept == 3
    reason = "the row of talks that it refers to by of_talk does not exist: it is in the trash of run run-2"
    assert {each.reason for each in result.conflicts} == {f"{reason}, undo that one first"}
    assert undo(engine, "run-2").conflicts == []
    assert undo(engine, "run-1").conflicts == []
    assert contents(engine) == before


def test_the_purge_takes_nothing_from_an_undo_that_is_going_on(engine: sa.Engine) -> None:
    family(engine)
    before = contents(engine)
    delete(engine, "parents", batch_size=2)
    purged: list[dict[str, int]] = []

    def purge_meanwhile(done: int, _: int) -> None:
        with engine.connect() as connection:
            purged.append(purge(connection, no_store, before=NOW + timedelta(days=1)).rows)

    with engine.connect() as connection:
        result = undo_run(connection, "run-1", on_progress=purge_meanwhile)
    assert purged == [{}] * 5
    assert came_back(result) == {"parents": 10, "children": 20}
    assert contents(engine) == before


def test_an_undo_waits_for_the_purge_and_finds_nothing(engine: sa.Engine) -> None:
    family(engine)
    delete(engine, "parents", batch_size=2)
    results: list[UndoResult] = []
    thread = threading.Thread(target=lambda: results.append(undo(engine)))
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT FROM housekeeping.trash_batches ORDER BY id DESC LIMIT 1 FOR UPDATE")
        thread.start()
        until(lambda: bool(scalar(engine, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                                          " AND datname = current_database()")))  # fmt: skip
        connection.exec_driver_sql("DELETE FROM housekeeping.trash_batches")
        connection.commit()
    thread.join(30)
    assert came_back(results[0]) == {}
    assert scalar(engine, "SELECT count(*) FROM parents") == 0
