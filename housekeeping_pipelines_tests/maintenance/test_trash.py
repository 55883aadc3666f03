"""Undo and purge as tasks: what is reported when they cannot start, or are broken off."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from housekeeping_pipelines.deletion import trash as purging
from housekeeping_pipelines.deletion.trash import undo_lock
from housekeeping_pipelines.execution.report import Ending, Report
from housekeeping_pipelines.maintenance import trash
from housekeeping_pipelines.maintenance.report import UndoReport
from housekeeping_pipelines.postgres.locks import shared_lock, task_lock
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import OLD, column, delete, scalar, sql
from housekeeping_pipelines_tests.world import World

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa


@pytest.fixture
def world(engine: sa.Engine, tmp_path: Path) -> World:
    world = World(engine, tmp_path)
    sql(
        engine,
        "CREATE TABLE notes (id int PRIMARY KEY, at timestamptz)",
        f"INSERT INTO notes SELECT n, '{OLD}'::timestamptz + n * interval '1 s' FROM generate_series(1, 20) n",
    )
    assert delete(engine, "notes", batch_size=5, max_fraction=1.0).deleted == {"notes": 20}
    return world


def ends_the_session(world: World, table: str, event: str, row: int) -> None:
    """The session that does this to the row is ended by the server."""
    sql(
        world.engine,
        "CREATE FUNCTION ends() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF coalesce(NEW.id, OLD.id) = {row} THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;"
        " RETURN coalesce(NEW, OLD); END $$",
        f"CREATE TRIGGER ends BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION ends()",
    )


def undo(world: World) -> Any:
    return world.runner.run(
        "undo", "undo", lambda run: trash.undo(run, "run-1", world.stores), kind=UndoReport, busy=trash.busy
    )


def test_an_undo_that_loses_its_connection_reports_what_came_back(world: World) -> None:
    ends_the_session(world, "notes", "INSERT", 3)
    report = undo(world)
    there = scalar(world.engine, "SELECT count(*) FROM notes")
    assert there == 15
    assert (report.status, report.restored, report.error_type) == ("failed", {"notes": there}, "Unavailable")
    sql(world.engine, "DROP TRIGGER ends ON notes")
    assert undo(world).restored == {"notes": 5}


def test_a_purge_that_loses_its_connection_reports_what_went(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "PURGE_ROWS", 1)
    mirror = f"housekeeping.{scalar(world.engine, 'SELECT mirror FROM housekeeping.trash_tables')}"
    ends_the_session(world, mirror, "DELETE", 13)
    report = world.purge()
    left = scalar(world.engine, f"SELECT count(*) FROM {mirror}")
    assert left == 10
    assert (report.status, report.deleted, report.error_type) == ("failed", {"notes": 20 - left}, "Unavailable")


def test_an_undo_beside_another_is_a_failure_that_names_it(world: World) -> None:
    """A person who is told that it was skipped believes that it is done."""
    with (
        world.engine.connect() as other,
        task_lock(other, "undo") as taken,
        shared_lock(other, undo_lock("run-1")),
    ):
        assert taken
        report = undo(world)
    assert isinstance(report, UndoReport)
    assert report.status == "failed"
    assert report.message == "another undo of run run-1 is going on; run it again when that has ended"
    assert (report.undone_run_id, report.restored, report.conflicts) == ("", {}, ())
    assert undo(world).restored == {"notes": 20}


def test_what_has_expired_of_a_run_is_named(world: World) -> None:
    """A run of hours may begin before the purge's hour and end after it."""
    run = Report.minimal("task", "run-1", Ending("succeeded"), NOW)
    sql(
        world.engine,
        "UPDATE housekeeping.trash_batches SET deleted_at = deleted_at - interval '1 year'"
        " WHERE id = (SELECT min(id) FROM housekeeping.trash_batches)",
    )
    world.runner.run(
        "purge_trash",
        "purge",
        lambda run: trash.purge_trash(run, store_of=world.stores.__getitem__, retention_days=7, run_id=None),
    )
    report = world.runner.run(
        "undo",
        "undo",
        lambda each: trash.undo(each, "run-1", world.stores, lambda _: [replace(run, deleted={"notes": 20})]),
    )
    assert (report.status, scalar(world.engine, "SELECT count(*) FROM notes")) == ("succeeded", 15)
    assert report.warnings[0].startswith("5 of the 20 rows and files that the run deleted are no longer in the trash")


def test_an_undo_that_finds_nothing_has_the_fields_of_its_kind(world: World) -> None:
    report = world.runner.run(
        "undo", "undo", lambda run: trash.undo(run, "no-such-run", world.stores), kind=UndoReport, busy=trash.busy
    )
    assert isinstance(report, UndoReport)
    assert report.to_dict()["restored"] == {}


def test_what_an_undo_brings_back_is_no_longer_kept_apart(world: World) -> None:
    """Else outputs would stay when a later run takes the rows with their files."""
    world.session("s", "s/in.pdf", "excel_file_path=s/out.xlsx")
    world.put("bucket", "s/in.pdf")
    world.put("bucket", "s/out.xlsx")
    assert world.end_sessions(run_id="run-2", include_outputs=False).status == "succeeded"
    assert column(world.engine, "SELECT name FROM housekeeping.kept_files") == ["s/out.xlsx"]
    assert world.undo("run-2").status == "succeeded"
    assert column(world.engine, "SELECT name FROM housekeeping.kept_files") == []
    world.end_sessions(run_id="run-3")
    assert world.files("bucket") == []


def test_a_run_is_being_undone_as_long_as_its_undo_holds_the_lock(world: World) -> None:
    with world.engine.connect() as connection:
        with shared_lock(connection, undo_lock("run-1")):
            assert purging.runs_being_undone(connection) == ["run-1"]
        assert purging.runs_being_undone(connection) == []
