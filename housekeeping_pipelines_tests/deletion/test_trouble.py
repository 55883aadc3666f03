"""Rows, locks and connections that fail on the way: what could go is gone, what could not is named, nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.deletion import candidates
from housekeeping_pipelines.migrations import ensure_schema
from housekeeping_pipelines.postgres.embedded import embedded_server
from housekeeping_pipelines.postgres.engine import make_engine
from housekeeping_pipelines.postgres.locks import task_lock
from housekeeping_pipelines_tests.deletion.support import (
    OLD,
    YOUNG,
    Watcher,
    came_back,
    column,
    contents,
    delete,
    family,
    old_rows,
    rows,
    scalar,
    sql,
    task_runner,
    texts,
    transaction,
    trash_is_empty,
    undo,
    until,
)
from housekeeping_pipelines_tests.postgres.holder import reachable_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from housekeeping_pipelines.execution.report import Report
    from housekeeping_pipelines.postgres.embedded import EmbeddedServer


def parents_and_children(engine: sa.Engine, count: int = 20, on_delete: str = "CASCADE") -> None:
    """Parents 1 to `count`, each with two children, all old."""
    sql(
        engine,
        "CREATE TABLE parents (id int PRIMARY KEY, at timestamptz)",
        f"CREATE TABLE children (id int PRIMARY KEY, parent int NOT NULL REFERENCES parents ON DELETE {on_delete})",
        "CREATE INDEX ON children (parent)",
        f"INSERT INTO parents SELECT n, '{OLD}'::timestamptz + n * interval '1 s' FROM generate_series(1, {count}) n",
        f"INSERT INTO children SELECT n, 1 + n % {count} FROM generate_series(1, {2 * count}) n",
    )


def trigger(engine: sa.Engine, table: str, body: str, when: str = "BEFORE DELETE") -> None:
    sql(
        engine,
        f"CREATE FUNCTION on_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN coalesce(NEW, OLD);"
        " END $$",
        f"CREATE TRIGGER on_{table} {when} ON {table} FOR EACH ROW EXECUTE FUNCTION on_{table}()",
    )


def in_background(work: Callable[[], Report]) -> tuple[threading.Thread, list[Report]]:
    done: list[Report] = []
    thread = threading.Thread(target=lambda: done.append(work()))
    thread.start()
    return thread, done


def waits(engine: sa.Engine, *, event: str = "Lock") -> bool:
    """Whether some session of this database waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = "
    return bool(scalar(engine, f"{query} '{event}'"))


@pytest.mark.parametrize("when", ["BEFORE DELETE", "AFTER DELETE"])
def test_one_row_that_a_trigger_objects_to_is_named_and_the_rest_goes(engine: sa.Engine, when: str) -> None:
    parents_and_children(engine)
    trigger(
        engine, "parents", "IF OLD.id = 13 THEN RAISE EXCEPTION 'not %', OLD.id USING DETAIL = 'ever'; END IF;", when
    )
    before = contents(engine)
    report = delete(engine, "parents")
    assert (report.status, report.message) == ("partial", None)
    assert [(item.item, item.reason) for item in report.failed] == [("parents/13", "not 13: ever")]
    assert (report.failed_count, report.candidates) == (1, 20)
    assert report.deleted == {"parents": 19, "children": 38}
    assert column(engine, "SELECT id FROM parents") == [13]
    assert column(engine, "SELECT DISTINCT parent FROM children") == [13]
    assert "parents/13" not in {candidate.item for candidate in report.sample}
    assert came_back(undo(engine)) == {"parents": 19, "children": 38}
    assert contents(engine) == before


@pytest.mark.parametrize("table", ["parents", "children"])
def test_a_row_that_a_trigger_silently_keeps_is_not_counted_as_gone(engine: sa.Engine, table: str) -> None:
    parents_and_children(engine)
    identity = "id" if table == "parents" else "parent"
    trigger(engine, table, f"IF OLD.{identity} = 13 THEN RETURN NULL; END IF;")
    before = contents(engine)
    report = delete(engine, "parents")
    count = 1 if table == "parents" else 2
    assert report.status == "partial"
    assert [(item.item, item.reason) for item in report.failed] == [
        ("parents/13", f"{count} rows of {table} were not deleted; a trigger may keep them")
    ]
    assert report.deleted == {"parents": 19, "children": 38}
    assert column(engine, "SELECT id FROM children WHERE parent = 13 ORDER BY 1") == [12, 32]
    assert came_back(undo(engine)) == report.deleted
    assert contents(engine) == before


def test_rows_without_a_key_that_a_trigger_moves_are_left(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE boxes (code text UNIQUE, at timestamptz, size int)",
        "CREATE TABLE things (id int PRIMARY KEY, box text REFERENCES boxes (code))",
        f"INSERT INTO boxes VALUES ('a', '{OLD}', 0), ('b', '{OLD}', 0)",
        "INSERT INTO things VALUES (1, 'a')",
    )
    trigger(engine, "things", "UPDATE boxes SET size = size - 1 WHERE code = OLD.box;")
    before = contents(engine)
    report = delete(engine, "boxes")
    assert (report.status, report.deleted, report.failed_count) == ("partial", {"boxes": 1}, 1)
    assert report.failed[0].reason == "1 rows of boxes were not deleted; a trigger may keep them"
    came_back(undo(engine))
    assert contents(engine) == before


def test_a_trigger_that_objects_to_every_row_ends_the_run(engine: sa.Engine) -> None:
    parents_and_children(engine, 150)
    trigger(engine, "parents", "IF OLD.id > 5 THEN RAISE EXCEPTION 'never'; END IF;")
    report = delete(engine, "parents", batch_size=5, allow_large_deletion=True)
    assert report.status == "failed"
    assert report.message == "gave up after 100 rows could not be deleted; never"
    assert report.deleted == {"parents": 5, "children": 10}
    assert report.failed_count == 100
    assert len(report.failed) == 50
    assert scalar(engine, "SELECT count(*) FROM parents") == 145
    assert came_back(undo(engine)) == report.deleted


def test_a_key_that_objects_at_the_commit_is_the_rows_trouble(engine: sa.Engine) -> None:
    parents_and_children(engine)
    sql(engine, "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF OLD.id = 7 THEN RAISE EXCEPTION 'too late'; END IF; RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER late AFTER DELETE ON parents DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION late()")  # fmt: skip
    report = delete(engine, "parents")
    assert (report.status, report.deleted) == ("partial", {"parents": 19, "children": 38})
    assert [(item.item, item.reason) for item in report.failed] == [("parents/7", "too late")]
    assert scalar(engine, "SELECT count(*) FROM children") == 2
    assert scalar(engine, "SELECT count(*) FROM housekeeping.trash_batches WHERE contents = '[]'") == 0


def test_a_reference_that_may_not_be_null_keeps_its_parent(engine: sa.Engine) -> None:
    parents_and_children(engine, on_delete="SET NULL")
    sql(engine, "DELETE FROM children WHERE parent <> 3")
    report = delete(engine, "parents")
    assert (report.status, report.deleted) == ("partial", {"parents": 19})
    assert [item.item for item in report.failed] == ["parents/3"]
    assert "violates not-null constraint" in report.failed[0].reason
    assert scalar(engine, "SELECT count(*) FROM housekeeping.trash_references") == 0


def test_a_locked_row_is_counted_and_not_waited_for(engine: sa.Engine) -> None:
    parents_and_children(engine)
    with transaction(
        engine, "SELECT FROM parents WHERE id = 4 FOR KEY SHARE", "UPDATE parents SET at = at WHERE id = 5"
    ):
        report = delete(engine, "parents")
    assert (report.status, report.deleted) == ("succeeded", {"parents": 18, "children": 36})
    assert report.skipped["locked"] == 2
    assert report.duration_seconds < 5
    assert column(engine, "SELECT id FROM parents ORDER BY 1") == [4, 5]
    assert delete(engine, "parents", run_id="run-2").deleted == {"parents": 2, "children": 4}


def test_a_locked_child_keeps_its_parent_and_the_rest_goes(engine: sa.Engine) -> None:
    parents_and_children(engine, 6)
    sql(engine, "CREATE TABLE grandchildren (child int REFERENCES children)")
    with transaction(engine, "SELECT FROM children WHERE id = 4 FOR UPDATE"):
        report = delete(engine, "parents")
    assert (report.status, report.deleted) == ("succeeded", {"parents": 5, "children": 10})
    assert report.skipped["locked"] == 1
    assert column(engine, "SELECT id FROM children ORDER BY 1") == [4, 10]
    assert delete(engine, "parents", run_id="run-2").deleted == {"parents": 1, "children": 2}


def test_a_child_that_is_free_again_is_taken(engine: sa.Engine) -> None:
    parents_and_children(engine, 1)
    sql(engine, "CREATE TABLE grandchildren (child int REFERENCES children)")
    with transaction(engine, "SELECT FROM children WHERE id = 1 FOR UPDATE") as other:
        thread, done = in_background(lambda: delete(engine, "parents"))
        until(lambda: waits(engine))
        other.rollback()
        thread.join(20)
    assert done[0].deleted == {"parents": 1, "children": 2}
    assert done[0].skipped["locked"] == 0


def test_a_child_that_commits_late_is_not_lost(engine: sa.Engine) -> None:
    parents_and_children(engine, 3)
    with transaction(engine, "INSERT INTO children VALUES (100, 2)") as other:
        report = delete(engine, "parents")
        other.commit()
    assert report.deleted == {"parents": 2, "children": 4}
    assert report.skipped["locked"] == 1
    assert column(engine, "SELECT id FROM children WHERE parent = 2 ORDER BY 1") == [1, 4, 100]
    assert delete(engine, "parents", run_id="run-2").deleted == {"parents": 1, "children": 3}
    assert came_back(undo(engine, "run-2")) == {"parents": 1, "children": 3}
    assert scalar(engine, "SELECT count(*) FROM children WHERE id = 100") == 1


def test_a_grandchild_that_commits_while_its_parent_is_waited_for_is_not_lost(engine: sa.Engine) -> None:
    parents_and_children(engine, 1)
    sql(engine, "CREATE TABLE grandchildren (id int PRIMARY KEY, child int REFERENCES children ON DELETE CASCADE)")
    with transaction(engine, "INSERT INTO grandchildren VALUES (7, 1)") as other:
        thread, done = in_background(lambda: delete(engine, "parents"))
        until(lambda: waits(engine))
        other.commit()
        thread.join(20)
    assert done[0].deleted == {"parents": 1, "children": 2, "grandchildren": 1}
    assert came_back(undo(engine)) == done[0].deleted
    assert rows(engine, "SELECT * FROM grandchildren") == [(7, 1)]


def test_a_row_that_was_used_since_it_was_listed_stays(engine: sa.Engine) -> None:
    parents_and_children(engine, 10)

    def use(step: int) -> None:
        if step == 1:
            sql(engine, f"UPDATE parents SET at = '{YOUNG}' WHERE id = 7", "DELETE FROM children WHERE parent = 9",
                "DELETE FROM parents WHERE id = 9")  # fmt: skip

    report = delete(engine, "parents", runner=task_runner(engine, observer=Watcher(use)), batch_size=2)
    assert (report.status, report.candidates) == ("succeeded", 10)
    assert report.deleted == {"parents": 8, "children": 16}
    assert report.skipped["in_use"] == 1
    assert column(engine, "SELECT id FROM parents") == [7]


def test_a_table_that_is_locked_as_a_whole_ends_the_run(engine: sa.Engine) -> None:
    parents_and_children(engine, 40)
    sql(engine, "CREATE TABLE grandchildren (id int, child int REFERENCES children)")

    blocker = transaction(engine)
    with blocker as other:

        def block(step: int) -> None:
            if step == 1:
                other.exec_driver_sql("LOCK TABLE grandchildren IN ACCESS EXCLUSIVE MODE")

        runner = task_runner(engine, observer=Watcher(block))
        report = delete(engine, "parents", runner=runner, batch_size=2)
    assert (report.status, report.deleted) == ("failed", {"parents": 2, "children": 4})
    assert report.message == "gave up after 5 consecutive locked rows: canceling statement due to lock timeout"
    assert report.skipped["locked"] == 5
    assert not is_locked(engine)


def is_locked(engine: sa.Engine) -> bool:
    with engine.connect() as connection, task_lock(connection, "task") as taken:
        return not taken


def test_a_deadlock_is_tried_again(engine: sa.Engine) -> None:
    parents_and_children(engine, 1)
    sql(engine, "CREATE TABLE grandchildren (child int REFERENCES children)")
    # They lock the child and then its parent; we the parent and then the child. We step back, since our patience ends
    # before the detector's: they are never the ones that fail.
    with transaction(engine, "SELECT FROM children WHERE id = 1 FOR UPDATE") as other:
        thread, done = in_background(lambda: delete(engine, "parents"))
        until(lambda: waits(engine))
        other.exec_driver_sql("SELECT FROM parents WHERE id = 1 FOR UPDATE")
        other.rollback()
        thread.join(20)
    assert (done[0].status, done[0].deleted) == ("succeeded", {"parents": 1, "children": 2})


def end_others(engine: sa.Engine, application: str = "housekeeping") -> None:
    """End every session of ours in this database but this one."""
    sql(
        engine,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = '{application}'",
    )


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_lost_connection_loses_no_row_and_no_count(engine: sa.Engine, batch: int) -> None:
    parents_and_children(engine)
    before = contents(engine)
    runner = task_runner(engine, observer=Watcher(lambda step: end_others(engine) if step == batch else None))
    report = delete(engine, "parents", runner=runner, batch_size=5)
    gone = 5 * batch
    if batch < 4:
        assert (report.status, report.error_type) == ("failed", "Unavailable")
        assert report.message is not None
        assert report.message.startswith("the database went away: ")
        assert "\n" not in report.message
    assert report.deleted == {"parents": gone, "children": 2 * gone}
    assert scalar(engine, "SELECT count(*) FROM parents") == 20 - gone
    assert scalar(
        engine, "SELECT sum((c ->> 1)::int) FROM housekeeping.trash_batches, jsonb_array_elements(contents) c"
    ) == (3 * gone)
    assert not is_locked(engine)

    rest = delete(engine, "parents", run_id="run-2")
    assert rest.status == "succeeded"
    assert rest.deleted == ({} if batch == 4 else {"parents": 20 - gone, "children": 2 * (20 - gone)})
    undo(engine, "run-2")
    assert came_back(undo(engine)) == report.deleted
    assert contents(engine) == before
    assert trash_is_empty(engine)


def test_a_connection_that_is_lost_inside_a_batch_takes_the_batch_back(engine: sa.Engine) -> None:
    parents_and_children(engine)
    # The fifteenth row's own trigger ends the session that deletes it: children are moved by then.
    trigger(engine, "parents", "IF OLD.id = 15 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;")
    report = delete(engine, "parents", batch_size=5)
    assert (report.status, report.deleted) == ("failed", {"parents": 10, "children": 20})
    assert (report.message or "").startswith("the database went away: ")
    assert column(engine, "SELECT count(*) FROM parents UNION ALL SELECT count(*) FROM children") == [10, 20]
    sql(engine, "DROP TRIGGER on_parents ON parents")
    assert delete(engine, "parents", run_id="run-2").deleted == {"parents": 10, "children": 20}


def test_who_comes_second_is_skipped(engine: sa.Engine) -> None:
    parents_and_children(engine)
    second: list[Report] = []
    dry: list[Report] = []

    def start_another(step: int) -> None:
        if step == 1:
            assert is_locked(engine)
            second.append(delete(engine, "parents", run_id="run-2"))
            dry.append(delete(engine, "parents", run_id="run-3", dry_run=True))

    runner = task_runner(engine, observer=Watcher(start_another))
    first = delete(engine, "parents", runner=runner, batch_size=5)
    assert (first.status, first.deleted) == ("succeeded", {"parents": 20, "children": 40})
    assert (second[0].status, second[0].deleted) == ("skipped", {})
    assert second[0].message == "another run is doing this now"
    assert (dry[0].status, dry[0].would_delete) == ("succeeded", {"parents": 15, "children": 30})
    assert not is_locked(engine)


def test_two_tasks_on_the_same_rows_take_each_once(engine: sa.Engine) -> None:
    parents_and_children(engine, 30)
    before = contents(engine)
    thread, done = in_background(lambda: delete(engine, "parents", task="one", run_id="run-1", batch_size=1))
    other = delete(engine, "parents", task="two", run_id="run-2", batch_size=1)
    thread.join(60)
    assert {done[0].status, other.status} == {"succeeded"}
    third = delete(engine, "parents", run_id="run-3")
    assert done[0].deleted.get("parents", 0) + other.deleted.get("parents", 0) + third.deleted.get("parents", 0) == 30
    assert scalar(engine, "SELECT count(*) FROM parents") == 0
    for run_id in ("run-3", "run-2", "run-1"):
        came_back(undo(engine, run_id))
    assert contents(engine) == before
    assert trash_is_empty(engine)


@pytest.fixture
def limited(engine: sa.Engine) -> sa.Engine:
    """The same database as a role that owns nothing and may do nothing in `public`."""
    name = f"limited_{engine.url.database}"
    sql(
        engine,
        f"CREATE ROLE {name} LOGIN",
        f"GRANT ALL ON SCHEMA housekeeping TO {name}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA housekeeping TO {name}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA housekeeping TO {name}",
        "CREATE TABLE parents (id int PRIMARY KEY, at timestamptz)",
        "CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE, tenant int)",
        f"INSERT INTO parents VALUES (1, '{OLD}'), (2, '{OLD}')",
        "INSERT INTO children VALUES (1, 1, 1), (2, 2, 2)",
    )
    return make_engine(engine.url.set(username=name))


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        ("SELECT ON children", "SELECT, UPDATE, DELETE, INSERT on parents"),
        ("SELECT ON parents", "UPDATE, DELETE, INSERT on parents"),
        ("SELECT, UPDATE, DELETE, INSERT ON parents", "SELECT, UPDATE, DELETE, INSERT on children"),
    ],
)
def test_what_the_role_may_not_do_refuses_the_run(
    engine: sa.Engine, limited: sa.Engine, granted: str, missing: str
) -> None:
    before = contents(engine)
    sql(engine, f"GRANT {granted} TO {limited.url.username}")
    report = delete(limited, "parents")
    assert (report.status, report.error_type, report.deleted) == ("refused", "Refused", {})
    assert (report.message or "").startswith(
        f"user '{limited.url.username}' lacks {missing}; let its owner run: GRANT "
    )
    assert contents(engine) == before


def test_rows_that_a_policy_hides_are_an_error_and_not_orphans(engine: sa.Engine, limited: sa.Engine) -> None:
    sql(
        engine,
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {limited.url.username}",
        "ALTER TABLE children ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own_tenant ON children USING (tenant = 1)",
    )
    before = contents(engine)
    report = delete(limited, "parents")
    assert (report.status, report.deleted) == ("failed", {})
    assert "row-level security" in (report.message or "")
    assert contents(engine) == before
    sql(engine, "ALTER TABLE children DISABLE ROW LEVEL SECURITY")
    assert delete(limited, "parents").deleted == {"parents": 2, "children": 2}


def test_a_database_that_does_not_answer_is_one_line(engine: sa.Engine, server: EmbeddedServer) -> None:
    gone = make_engine(engine.url.set(database="there_is_none"))
    report = delete(gone, "parents")
    assert (report.status, report.error_type) == ("failed", "ConfigurationError")
    assert report.message is not None
    assert 'database "there_is_none" does not exist; check DATABASE_URL' in report.message
    assert "\n" not in report.message


def test_without_trash_the_rows_are_gone_at_once(engine: sa.Engine) -> None:
    parents_and_children(engine)
    sql(engine, "CREATE TABLE notes (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE SET NULL)",
        "INSERT INTO notes VALUES (1, 1)")  # fmt: skip
    report = delete(engine, "parents", runner=task_runner(engine, trashed=False))
    assert (report.status, report.deleted) == ("succeeded", {"parents": 20, "children": 40})
    assert texts(engine, "notes") == ["(1,)"]
    assert rows(engine, "SELECT * FROM housekeeping.trash_tables") == []
    assert trash_is_empty(engine)


def test_a_table_that_is_gone_before_the_run_is_one_line(engine: sa.Engine) -> None:
    parents_and_children(engine)
    sql(engine, "CREATE FUNCTION explode(timestamptz) RETURNS bool LANGUAGE sql AS 'SELECT 1 / 0 = 1'")
    explosive = old_rows("parents", eligible=lambda _: sa.func.explode(sa.literal_column("at")))
    report = delete(engine, explosive)
    assert (report.status, report.error_type) == ("failed", "HousekeepingError")
    assert report.message == "the database refuses: division by zero"


@pytest.mark.parametrize("state", ["53100", "53200", "58030"], ids=["disk full", "out of memory", "disk error"])
def test_a_server_that_is_full_ends_the_run_with_what_was_committed(engine: sa.Engine, state: str) -> None:
    """It is the trouble of no row, so that not each of them is tried."""
    family(engine)
    sql(
        engine,
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF OLD.id > 4 THEN RAISE EXCEPTION USING ERRCODE = '{state}', MESSAGE = 'could not extend file'; END IF;"
        " RETURN OLD; END $$",
        "CREATE TRIGGER is_full BEFORE DELETE ON parents FOR EACH ROW EXECUTE FUNCTION fails()",
    )
    report = delete(engine, "parents", batch_size=1)
    left = scalar(engine, "SELECT count(*) FROM parents")
    assert (report.status, report.message) == ("failed", "the database refuses: could not extend file")
    assert report.deleted == {"parents": 10 - left, "children": 2 * (10 - left)}
    assert left == 6
    sql(engine, "DROP TRIGGER is_full ON parents")
    assert delete(engine, "parents", run_id="run-2").deleted["parents"] == left


def test_candidates_that_are_there_again_are_told_with_both_numbers(engine: sa.Engine) -> None:
    """As by an import of old rows; or by an index that is corrupt, since none is asked."""
    family(engine)

    def put_back(done: int) -> None:
        if done == 10:
            sql(engine, f"INSERT INTO parents VALUES (1, '{OLD}', 'again'), (2, '{YOUNG}', 'new')")

    report = delete(engine, "parents", runner=task_runner(engine, observer=Watcher(put_back)), batch_size=1)
    assert (report.status, report.deleted["parents"]) == ("partial", 10)
    assert [each.reason for each in report.failed] == [
        "1 candidates are in the table, and 0 were left by the run: deleted rows are there"
    ]


def test_fewer_than_were_left_are_no_difference(engine: sa.Engine) -> None:
    family(engine)
    sql(engine, "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    report = delete(engine, "parents", batch_size=1, max_rows=6)
    assert (report.status, report.stopped_reason, report.deleted["parents"]) == ("succeeded", "max_rows", 2)


def test_a_count_that_could_not_be_made_is_unknown(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    family(engine)
    monkeypatch.setattr(candidates, "_WITHOUT_INDEXES", "SET LOCAL statement_timeout = '1ms'; SELECT pg_sleep(1)")
    report = delete(engine, "parents")
    assert (report.status, report.deleted["parents"]) == ("succeeded", 10)
    assert report.warnings[-1] == (
        "how many candidates are left in parents is unknown: canceling statement due to statement timeout"
    )


def test_a_server_that_crashes_leaves_the_rows_that_the_report_counts() -> None:
    """A batch does not wait for the disk: a crash undoes those that did not reach it."""
    with reachable_folder() as home:
        server = embedded_server(home)
        server.ensure_database("platform")
        engine = make_engine(server.url("platform"))
        ensure_schema(engine)
        sql(
            engine,
            "CREATE TABLE parents (id int PRIMARY KEY, at timestamptz)",
            "CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents)",
            "CREATE INDEX ON children (parent)",
            f"INSERT INTO parents SELECT n, '{OLD}' FROM generate_series(1, 2000) n",
            "INSERT INTO children SELECT n, 1 + n % 2000 FROM generate_series(1, 4000) n",
        )
        killed: list[int] = []

        def crash(done: int) -> None:
            if done >= 60 and not killed:
                # As the kernel does when it is short of memory.
                killed.append(scalar(engine, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"))
                os.kill(killed[0], signal.SIGKILL)

        runner = task_runner(engine, observer=Watcher(crash))
        report = delete(engine, "parents", runner=runner, batch_size=1, allow_large_deletion=True)
        assert (report.status, report.error_type, len(killed)) == ("failed", "Unavailable", 1)
        until(lambda: _answers(engine), seconds=60)
        left = scalar(engine, "SELECT count(*) FROM parents")
        assert report.deleted == {"parents": 2_000 - left, "children": 2 * (2_000 - left)}
        assert came_back(undo(engine)) == report.deleted
        engine.dispose()


def _answers(engine: sa.Engine) -> bool:
    try:
        return bool(scalar(engine, "SELECT true"))
    except sa.exc.OperationalError:
        return False
