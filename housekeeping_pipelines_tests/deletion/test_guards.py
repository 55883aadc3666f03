"""What keeps a run from starting, what it passes by, and where it stops."""

from __future__ import annotations

import itertools
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from housekeeping_pipelines.deletion.holds import add_hold, list_holds, remove_hold
from housekeeping_pipelines.deletion.pause import pause, paused_reason, resume
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.postgres.catalog import Catalog, ForeignKey, Table
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import (
    OLD,
    YOUNG,
    Watcher,
    came_back,
    column,
    contents,
    delete,
    old_rows,
    scalar,
    sql,
    task_runner,
    transaction,
    undo,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    import sqlalchemy as sa

    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.execution.report import Report


def items(engine: sa.Engine, old: int, young: int = 0) -> None:
    """Old items from 1 on, the oldest first; then young ones; each with two parts."""
    sql(
        engine,
        "CREATE TABLE items (id int PRIMARY KEY, at timestamptz)",
        "CREATE TABLE parts (id int PRIMARY KEY, item int REFERENCES items)",
        "CREATE INDEX ON parts (item)",
        f"INSERT INTO items SELECT n, '{OLD}'::timestamptz + n * interval '1 s' FROM generate_series(1, {old}) n",
        f"INSERT INTO items SELECT {old} + n, '{YOUNG}' FROM generate_series(1, {young}) n",
        "INSERT INTO parts SELECT 2 * id - k, id FROM items, generate_series(0, 1) k",
    )


def ids(engine: sa.Engine, table: str = "items") -> list[int]:
    return column(engine, f"SELECT id FROM {table} ORDER BY 1")


def refused(report: Report) -> str:
    assert (report.status, report.error_type) == ("refused", "Refused")
    assert report.deleted == report.would_delete == {}
    assert report.message is not None
    return report.message


def absent(name: str, reference: str) -> Callable[[Catalog, datetime], RowPolicy]:
    """Old rows of a table, as if for being absent from another."""

    def references(catalog: Catalog) -> tuple[Table, ...]:
        table = catalog.find(reference)
        assert table is not None
        return (table,)

    return old_rows(name, references=references)


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_empty_reference_refuses_only_a_store_that_is_not_empty(engine: sa.Engine, dry_run: bool) -> None:
    items(engine, 3)
    sql(engine, "CREATE TABLE owners (id int)")
    message = refused(delete(engine, absent("items", "owners"), dry_run=dry_run))
    assert message.startswith("owners is empty, so everything that refers to it would be an orphan; ")
    assert ids(engine) == [1, 2, 3]
    allowed = delete(engine, absent("items", "owners"), dry_run=True, allow_empty_reference=True)
    assert allowed.would_delete == {"items": 3, "parts": 6}
    sql(engine, "INSERT INTO owners VALUES (1)")
    assert delete(engine, absent("items", "owners"), dry_run=True).would_delete == {"items": 3, "parts": 6}
    sql(engine, "TRUNCATE owners, items, parts")
    empty = delete(engine, absent("items", "owners"), dry_run=dry_run)
    assert (empty.status, empty.scanned, empty.candidates) == ("succeeded", 0, 0)


def test_more_than_the_fraction_is_refused_from_the_minimum_on(engine: sa.Engine) -> None:
    items(engine, 6, young=4)
    for dry_run in (True, False):
        message = refused(delete(engine, "items", guard_minimum=6, max_fraction=0.5, dry_run=dry_run))
        assert message == (
            "6 of 10 rows of items are candidates, more than 50%; "
            "check with --dry-run, then set allow_large_deletion: true"
        )
    assert ids(engine) == list(range(1, 11))
    for limits in (
        {"guard_minimum": 7, "max_fraction": 0.5},
        {"guard_minimum": 1, "max_fraction": 0.6},
        {"guard_minimum": 1, "max_fraction": 0.1, "allow_large_deletion": True},
    ):
        given: dict[str, Any] = limits
        assert delete(engine, "items", dry_run=True, **given).would_delete == {"items": 6, "parts": 12}
    sql(engine, f"INSERT INTO items SELECT n, '{OLD}' FROM generate_series(101, 194) n")
    assert refused(delete(engine, "items")).startswith("100 of 104 rows")
    sql(engine, "DELETE FROM items WHERE id = 194")
    assert delete(engine, "items", dry_run=True).candidates == 99


def test_a_pause_refuses_the_start_and_ends_a_run_before_its_next_batch(engine: sa.Engine) -> None:
    items(engine, 10)
    with engine.begin() as connection:
        pause(connection, reason="first", now=NOW)
        pause(connection, reason="an incident", now=NOW)
        assert paused_reason(connection) == "an incident"
    assert refused(delete(engine, "items")) == "paused: an incident; run `housekeeping resume`"
    assert refused(delete(engine, "items", dry_run=True)) == "paused: an incident; run `housekeeping resume`"
    with engine.begin() as connection:
        assert resume(connection)
        assert not resume(connection)

    def stop(step: int) -> None:
        if step == 2:
            with engine.begin() as connection:
                pause(connection, reason="on the way", now=NOW)

    report = delete(engine, "items", runner=task_runner(engine, observer=Watcher(stop)), batch_size=3)
    assert (report.status, report.stopped_reason) == ("succeeded", "paused")
    assert report.deleted == {"items": 6, "parts": 12}
    assert report.skipped["budget"] == 0
    assert ids(engine) == [7, 8, 9, 10]


def test_a_pause_by_the_setting_outranks_resume(engine: sa.Engine) -> None:
    items(engine, 1)
    with engine.begin() as connection:
        resume(connection)
    runner = task_runner(engine, paused_by_setting=True)
    message = "paused by HOUSEKEEPING_PAUSED; set HOUSEKEEPING_PAUSED=false"
    assert refused(delete(engine, "items", runner=runner)) == message
    assert ids(engine) == [1]


def hold(engine: sa.Engine, name: str, *key: str, type_: Any = "row", until_: datetime | None = None) -> int:
    with engine.begin() as connection:
        table = Catalog(connection).find(name)
        assert table is not None
        moment = until_ or NOW + timedelta(days=1)
        return add_hold(
            connection, type=type_, table=table, key=key, subject=f"{name}/{key}", until=moment, reason="r", now=NOW
        ).id


def test_a_held_row_stays_until_the_hold_is_over(engine: sa.Engine) -> None:
    items(engine, 5)
    hold(engine, "items", "2", until_=NOW + timedelta(microseconds=1))
    hold(engine, "items", "3", until_=NOW)
    last = hold(engine, "items", "4")
    with engine.connect() as connection:
        assert [(h.id, h.until) for h in list_holds(connection)] == [
            (2, NOW),
            (1, NOW + timedelta(microseconds=1)),
            (3, NOW + timedelta(days=1)),
        ]
    dry = delete(engine, "items", dry_run=True)
    report = delete(engine, "items")
    assert report.deleted == dry.would_delete == {"items": 3, "parts": 6}
    assert report.skipped == dry.skipped
    assert (report.skipped["held"], report.candidates) == (2, 3)
    assert ids(engine) == [2, 4]
    with engine.begin() as connection:
        assert remove_hold(connection, last)
        assert not remove_hold(connection, last)
    assert delete(engine, "items", run_id="run-2").deleted == {"items": 1, "parts": 2}
    assert ids(engine) == [2]


def test_a_held_grandchild_keeps_its_root_and_only_that(engine: sa.Engine) -> None:
    items(engine, 8)
    sql(engine, "CREATE TABLE screws (a text, b int, part int REFERENCES parts, PRIMARY KEY (a, b))",
        "INSERT INTO screws SELECT 'x,' || id, id, id FROM parts")  # fmt: skip
    hold(engine, "screws", "x,9", "9")
    hold(engine, "parts", "2")
    dry = delete(engine, "items", dry_run=True)
    report = delete(engine, "items")
    assert (report.status, report.deleted) == ("succeeded", {"items": 6, "parts": 12, "screws": 12})
    assert (dry.would_delete, dry.skipped) == (report.deleted, report.skipped)
    assert report.skipped["held"] == 2
    assert ids(engine) == [1, 5]
    assert ids(engine, "parts") == [1, 2, 9, 10]


def test_a_hold_on_a_user_covers_what_is_theirs_wherever_it_is(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE users (id uuid PRIMARY KEY)",
        "CREATE TABLE conversations (id int PRIMARY KEY, owner uuid REFERENCES users, at timestamptz)",
        "CREATE TABLE messages (id int PRIMARY KEY, conversation int REFERENCES conversations,"
        " author uuid REFERENCES users)",
        "CREATE TABLE files (id int PRIMARY KEY, message int, uploader uuid)",
        "INSERT INTO users SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid FROM generate_series(1, 3) n",
        "INSERT INTO conversations SELECT n, ('00000000-0000-0000-0000-00000000000' || least(n, 2))::uuid,"
        f" '{OLD}' FROM generate_series(1, 5) n",
        "INSERT INTO messages SELECT n, n FROM generate_series(1, 5) n",
        "UPDATE messages SET author = '00000000-0000-0000-0000-000000000001' WHERE id = 3",
        "INSERT INTO files VALUES (1, 4, '00000000-0000-0000-0000-000000000001'), (2, 2, NULL)",
    )

    def undeclared(catalog: Catalog) -> tuple[ForeignKey, ...]:
        files, messages, users = catalog.find("files"), catalog.find("messages"), catalog.find("users")
        assert files is not None
        assert messages is not None
        assert users is not None
        return (
            ForeignKey("f1", files.oid, ("message",), messages.oid, ("id",), "no action", declared=False),
            ForeignKey("f2", files.oid, ("uploader",), users.oid, ("id",), "no action", declared=False),
        )

    hold(engine, "users", "00000000-0000-0000-0000-000000000001", type_="user")
    policy = old_rows("conversations", undeclared=undeclared, users=lambda catalog: catalog.find("users"))
    dry = delete(engine, policy, dry_run=True)
    report = delete(engine, policy)
    assert (report.status, report.deleted) == ("succeeded", {"conversations": 2, "messages": 2, "files": 1})
    assert (dry.would_delete, dry.skipped) == (report.deleted, report.skipped)
    assert report.skipped["held"] == 3
    # 1 is theirs, 3 has a message of theirs, 4 a file of theirs.
    assert ids(engine, "conversations") == [1, 3, 4]


def test_a_hold_that_is_added_on_the_way_waits_and_is_honoured(engine: sa.Engine) -> None:
    items(engine, 6)
    adding = threading.Thread(target=lambda: hold(engine, "items", "5"))
    waited: list[bool] = []

    def add(step: int) -> None:
        if step == 1:
            adding.start()
            adding.join(20)
            waited.append(not adding.is_alive())

    # Between two batches it does not wait.
    report = delete(engine, "items", runner=task_runner(engine, observer=Watcher(add)), batch_size=2)
    assert waited == [True]
    assert report.deleted == {"items": 5, "parts": 10}
    assert report.skipped["in_use"] + report.skipped["held"] == 1
    assert ids(engine) == [5]


def test_adding_a_hold_waits_for_the_batch_that_is_on_its_way(engine: sa.Engine) -> None:
    items(engine, 1)
    sql(engine, "CREATE TABLE screws (id int PRIMARY KEY, part int REFERENCES parts)")
    waiting = ("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = '{}'"
               " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")  # fmt: skip
    with transaction(engine, "SELECT FROM parts WHERE id = 1 FOR UPDATE") as other:
        done: list[Report] = []
        running = threading.Thread(target=lambda: done.append(delete(engine, "items")))
        running.start()
        until(
            lambda: bool(
                scalar(engine, "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted")
            )
        )
        adding = threading.Thread(target=lambda: hold(engine, "items", "1"))
        adding.start()
        until(lambda: bool(scalar(engine, waiting.format("advisory"))))
        assert scalar(engine, "SELECT count(*) FROM housekeeping.holds") == 0
        other.rollback()
        running.join(20)
        adding.join(20)
    assert scalar(engine, "SELECT count(*) FROM housekeeping.holds") == 1
    # Either the batch was first and the row is gone, or its retry came second and the row is held: never both.
    if done[0].deleted:
        assert (done[0].deleted, ids(engine)) == ({"items": 1, "parts": 2}, [])
    else:
        assert (done[0].skipped["in_use"] + done[0].skipped["held"], ids(engine)) == (1, [1])


def test_a_run_waits_for_a_hold_that_is_not_committed_yet(engine: sa.Engine) -> None:
    items(engine, 3)
    with engine.connect() as connection:
        table = Catalog(connection).find("items")
        assert table is not None
        add_hold(
            connection, type="row", table=table, key=("2",), subject="", until=NOW + timedelta(1), reason="", now=NOW
        )
        done: list[Report] = []
        running = threading.Thread(target=lambda: done.append(delete(engine, "items")))
        running.start()
        until(lambda: bool(scalar(engine, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")))
        connection.commit()
        running.join(20)
    assert done[0].deleted == {"items": 2, "parts": 4}
    assert done[0].skipped["in_use"] == 1
    assert ids(engine) == [2]


def test_a_hold_that_fits_no_key_is_refused(engine: sa.Engine) -> None:
    items(engine, 2)
    sql(engine, "CREATE TABLE bare (at timestamptz)")
    for name, key in (("items", ("1", "2")), ("items", ()), ("bare", ("1",))):
        with pytest.raises(ConfigurationError) as caught:
            hold(engine, name, *key)
        assert f"is not a key of {name}" in caught.value.message
    hold(engine, "items", "1")
    sql(engine, "ALTER TABLE parts DROP CONSTRAINT parts_item_fkey", "ALTER TABLE items DROP CONSTRAINT items_pkey,"
        " ADD PRIMARY KEY (id, at)")  # fmt: skip
    message = refused(delete(engine, "items"))
    assert message.startswith("a hold on a row of items no longer fits its key; ")
    assert ids(engine) == [1, 2]


@pytest.mark.parametrize("batch_size", [4, 1000])
@pytest.mark.parametrize(("max_rows", "roots"), [(1, 0), (3, 1), (5, 1), (6, 2), (29, 9), (30, 10), (31, 10)])
def test_max_rows_is_never_exceeded(engine: sa.Engine, batch_size: int, max_rows: int, roots: int) -> None:
    items(engine, 10, young=1)
    dry = delete(engine, "items", dry_run=True, max_rows=max_rows, batch_size=batch_size)
    report = delete(engine, "items", max_rows=max_rows, batch_size=batch_size)
    assert report.status == "succeeded"
    assert report.deleted == ({"items": roots, "parts": 2 * roots} if roots else {})
    assert (dry.would_delete, dry.skipped, dry.stopped_reason) == (
        report.deleted,
        report.skipped,
        report.stopped_reason,
    )
    assert (
        [c.item for c in dry.sample] == [c.item for c in report.sample] == [f"items/{n}" for n in range(1, roots + 1)]
    )
    assert ids(engine) == list(range(roots + 1, 12))
    assert report.skipped["budget"] == 10 - roots
    assert report.candidates == 10
    if max_rows == 1:
        # No root fits: each is left with a warning, and the run does not end on any.
        assert (report.stopped_reason, len(report.warnings)) == (None, 10)
        assert report.warnings[0] == "items/1 was skipped: deleting it would take more than max_rows = 1 rows"
    elif roots < 10:
        assert report.stopped_reason == "max_rows"
    else:
        assert report.stopped_reason is None


def test_one_root_that_is_bigger_than_the_budget_is_left_and_the_rest_goes(engine: sa.Engine) -> None:
    items(engine, 6)
    sql(engine, "INSERT INTO parts SELECT 1000 + n, 3 FROM generate_series(1, 30) n")
    report = delete(engine, "items", max_rows=20)
    assert (report.status, report.stopped_reason) == ("succeeded", None)
    assert report.deleted == {"items": 5, "parts": 10}
    assert report.warnings == ("items/3 was skipped: deleting it would take more than max_rows = 20 rows",)
    assert report.skipped["budget"] == 1
    assert ids(engine) == [3]


def test_max_seconds_starts_no_new_batch(engine: sa.Engine) -> None:
    items(engine, 10)
    ticks: Iterator[int] = itertools.count()
    # Each look at the clock is a second: once at the start, then three times a batch.
    runner = task_runner(engine, monotonic=lambda: float(next(ticks)))
    report = delete(engine, "items", runner=runner, batch_size=2, max_seconds=6)
    assert (report.status, report.stopped_reason) == ("succeeded", "max_seconds")
    gone = report.deleted["items"]
    assert 0 < gone < 10
    assert report.skipped["budget"] == 10 - gone
    assert ids(engine) == list(range(gone + 1, 11))
    none = delete(engine, "items", runner=runner, max_seconds=0)
    assert (none.deleted, none.stopped_reason) == ({}, "max_seconds")


def test_batches_shrink_when_they_are_slow_and_grow_again(engine: sa.Engine) -> None:
    items(engine, 60)
    now = 0.0
    seconds = itertools.chain([3.0, 3.0], itertools.repeat(0.0))

    def monotonic() -> float:
        nonlocal now
        return now

    def slow(_: int) -> None:
        return None

    watcher = Watcher(slow)
    looks = itertools.count()

    def ticking() -> float:
        # A batch looks twice, before and after: the second look comes after the batch's seconds.
        nonlocal now
        if next(looks) % 2 == 0:
            now += next(seconds)
        return monotonic()

    delete(engine, "items", runner=task_runner(engine, observer=watcher, monotonic=ticking), batch_size=16)
    sizes = [b - a for a, b in itertools.pairwise([0, *(done for done, _, _ in watcher.steps)])]
    assert sum(sizes) == 60
    assert sizes[0] == 16
    assert min(sizes[:-1]) < 16
    assert max(sizes[2:]) > min(sizes[:-1])


def test_a_dry_run_changes_nothing_and_says_what_the_real_run_then_does(engine: sa.Engine) -> None:
    items(engine, 30, young=5)
    sql(engine, "CREATE TABLE notes (id int PRIMARY KEY, part int REFERENCES parts ON DELETE SET NULL)",
        "INSERT INTO notes SELECT id, id FROM parts", "UPDATE items SET at = NULL WHERE id = 4")  # fmt: skip
    hold(engine, "items", "6")
    hold(engine, "parts", "20")
    before = contents(engine, with_ours=True)
    watcher = Watcher()
    dry = delete(engine, "items", dry_run=True, runner=task_runner(engine, observer=watcher), batch_size=7)
    assert contents(engine, with_ours=True) == before
    assert (dry.status, dry.dry_run, dry.deleted) == ("succeeded", True, {})
    assert watcher.plans == [("items with parts", 28, True)]

    real_watcher = Watcher()
    real = delete(engine, "items", runner=task_runner(engine, observer=real_watcher), batch_size=7)
    assert real.deleted == dry.would_delete == {"items": 27, "parts": 54}
    assert (real.skipped, real.candidates, real.scanned) == (dry.skipped, dry.candidates, dry.scanned)
    assert (real.skipped["young"], real.skipped["held"], real.scanned) == (6, 2, 35)
    assert real_watcher.items == watcher.items
    assert real.sample == dry.sample
    assert real.sample[0].reason == "it is old"
    assert real.sample[0].age_seconds == pytest.approx(100 * 86400 - 1)
    assert came_back(undo(engine)) == real.deleted
    ours = {name for name in before if name.startswith("housekeeping.")}
    assert {k: v for k, v in contents(engine).items() if k not in ours} == {
        k: v for k, v in before.items() if k not in ours
    }


def test_dry_run_in_the_environment_makes_every_run_dry(engine: sa.Engine) -> None:
    items(engine, 2)
    report = delete(engine, "items", runner=task_runner(engine, every_run_is_dry=True))
    assert (report.dry_run, report.deleted, report.would_delete) == (True, {}, {"items": 2, "parts": 4})
    assert ids(engine) == [1, 2]


def test_a_dry_run_cannot_write(engine: sa.Engine) -> None:
    items(engine, 2)
    sql(engine, "CREATE TABLE log (id int)", "CREATE FUNCTION scribble(int) RETURNS bool LANGUAGE sql AS"
        " 'INSERT INTO log VALUES ($1) RETURNING true'")  # fmt: skip
    sql(engine, "CREATE VIEW watched AS SELECT * FROM items WHERE scribble(id)")

    def scribbling(catalog: Catalog) -> Any:
        import sqlalchemy as sa

        return sa.func.scribble(sa.literal_column("items.id"))

    report = delete(engine, old_rows("items", eligible=scribbling), dry_run=True)
    assert report.status == "failed"
    assert "cannot execute INSERT in a read-only transaction" in (report.message or "")
    assert column(engine, "SELECT id FROM log") == []


def test_infinite_and_unknown_ages_have_no_seconds(engine: sa.Engine) -> None:
    sql(engine, "CREATE TABLE lines (id int PRIMARY KEY, at timestamp)",
        "INSERT INTO lines VALUES (1, '-infinity'), (2, 'infinity'), (3, NULL), (4, '2026-05-01')")  # fmt: skip
    report = delete(engine, "lines")
    assert [(c.item, c.age_seconds) for c in report.sample] == [("lines/1", None), ("lines/4", 45.5 * 86400)]
    assert ids(engine, "lines") == [2, 3]
