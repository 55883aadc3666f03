"""A watch that is ended can be taken up again, as it was."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.deletion.holds import add_hold
from housekeeping_pipelines.deletion.pause import pause
from housekeeping_pipelines.deletion.trash import list_trash
from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError, Refused
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.postgres.engine import make_engine
from housekeeping_pipelines.postgres.locks import task_lock
from housekeeping_pipelines.watched_documents import administration
from housekeeping_pipelines.watched_documents.administration import WatchAdministration
from housekeeping_pipelines.watched_documents.removal import stop_watching
from housekeeping_pipelines.watched_documents.sources import Failed, Gone
from housekeeping_pipelines_tests.deletion.support import column, sql
from housekeeping_pipelines_tests.watched_documents.support import DAY, NEW, OLD, WEEK, World

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "docs.example/page"


@pytest.fixture
def world(engine: sa.Engine, tmp_path: Path) -> World:
    world = World(engine, tmp_path).make()
    for place in (1, 2):
        world.document(PAGE, workspace=place)
    world.source.by_address[PAGE] = OLD
    assert world.sync().updated == 1
    return world


def everything(world: World) -> list[Any]:
    """All that the platform and we keep of the watch."""
    tables = ("documents", "document_sync_queues", "document_sync_runs", "housekeeping.watched_documents")
    return [column(world.engine, f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables]


def watched(world: World) -> list[bool]:
    return column(world.engine, "SELECT watched FROM documents ORDER BY id")


def test_undo_brings_back_the_place_its_runs_and_the_mark(world: World) -> None:
    before = everything(world)
    removal = world.remove(PAGE)
    assert removal.run_id is not None
    assert (world.entries(), watched(world)) == ({}, [False, False])
    assert column(world.engine, "SELECT count(*) FROM document_sync_runs") == [0]
    with world.engine.connect() as connection:
        (trashed,) = list_trash(connection, WEEK)
    assert (trashed.run_id, trashed.task, trashed.rows) == (removal.run_id, "remove_watched_document", 2)
    undone = world.undo(removal.run_id)
    assert (undone.status, undone.failed_count) == ("succeeded", 0)
    assert everything(world) == before
    # What is known came back too: the source is asked whether anything changed, and nothing did.
    world.source.asked.clear()
    world.now += WEEK
    report = world.sync()
    assert (report.unchanged, report.updated, world.source.asked) == (1, 0, [(PAGE, True)])


def test_what_is_known_outlasts_the_syncs_until_the_undo(world: World) -> None:
    before = everything(world)
    removal = world.remove(PAGE)
    assert (world.sync().scanned, world.entries()) == (0, {})
    world.undo(str(removal.run_id))
    assert everything(world) == before
    world.source.by_address[PAGE] = NEW
    world.now += WEEK
    assert world.sync().updated == 1


def test_what_is_known_goes_when_the_trash_expires(world: World) -> None:
    world.remove(PAGE)
    world.sync()
    assert column(world.engine, "SELECT count(*) FROM housekeeping.watched_documents") == [1]
    assert world.purge().deleted == {"document_sync_queues": 1, "document_sync_runs": 1}
    world.sync()
    assert column(world.engine, "SELECT count(*) FROM housekeeping.watched_documents") == [0]


def test_a_place_of_which_nothing_is_known_any_more_is_synced_as_a_new_one(world: World) -> None:
    removal = world.remove(PAGE)
    sql(world.engine, "DELETE FROM housekeeping.watched_documents")
    world.undo(str(removal.run_id))
    world.now += WEEK
    world.embedder.texts.clear()
    report = world.sync()
    assert (report.status, report.updated, report.diffs, world.embedder.texts) == ("succeeded", 1, (), [])
    assert set(world.found("opens at nine").values()) == {OLD}


def test_only_what_was_marked_is_marked_again(world: World) -> None:
    sql(world.engine, "UPDATE documents SET watched = false WHERE workspace_id = 2")
    removal = world.remove(PAGE)
    world.undo(str(removal.run_id))
    assert watched(world) == [True, False]


def test_undo_names_what_is_watched_again_already_and_leaves_it(world: World) -> None:
    removal = world.remove(PAGE)
    with world.engine.begin() as connection:
        queue = WatchAdministration.on(connection, HousekeepingConfig())
        queue.add(f"link://{PAGE}", workspace=None, stale_after=None, default=WEEK, now=world.now)
    before = world.entry(PAGE)
    undone = world.undo(str(removal.run_id))
    assert undone.status == "partial"
    assert any(each.item.startswith("document_sync_queues/") for each in undone.failed)
    assert world.entry(PAGE) == before
    assert watched(world) == [True, True]


def hold(world: World) -> None:
    with world.engine.begin() as connection:
        queues = Catalog(connection).find("document_sync_queues")
        assert queues is not None
        add_hold(
            connection, type="row", table=queues, key=("1",), subject="row:document_sync_queues/1",
            until=world.now + DAY, reason="evidence", now=world.now,
        )  # fmt: skip


def stop_everything(world: World) -> None:
    with world.engine.begin() as connection:
        pause(connection, reason="by hand", now=world.now)


def make_a_key_that_cannot_be_undone(world: World) -> None:
    sql(
        world.engine,
        "CREATE TABLE notes (id int PRIMARY KEY, queue_id int REFERENCES document_sync_queues ON DELETE SET NULL)",
        "ALTER TABLE notes DROP CONSTRAINT notes_pkey",
    )


@pytest.mark.parametrize(
    ("hinder", "said"),
    [(hold, "is held"), (stop_everything, "paused: by hand"), (make_a_key_that_cannot_be_undone, "has no primary key")],
)
def test_what_stops_a_deletion_stops_a_removal(world: World, hinder: Any, said: str) -> None:
    hinder(world)
    before = everything(world)
    with pytest.raises(Refused, match=said):
        world.remove(PAGE)
    assert everything(world) == before


def test_dry_run_removes_nothing(world: World) -> None:
    before = everything(world)
    world.runner = replace(world.runner, every_run_is_dry=True)
    with pytest.raises(Refused, match="DRY_RUN is true"):
        world.remove(PAGE)
    assert everything(world) == before


def test_a_place_that_a_sync_has_locked_is_left(world: World) -> None:
    before = everything(world)
    entry = world.entry(PAGE)
    with make_engine(world.engine.url).connect() as other:
        # As a sync locks it while it publishes.
        other.execute(sa.text(f"SELECT 1 FROM document_sync_queues WHERE id = {entry.key} FOR UPDATE"))
        with pytest.raises(HousekeepingError, match="is locked by another session"):
            stop_watching(world.runner, HousekeepingConfig(), entry)
    assert everything(world) == before


def test_a_second_removal_at_the_same_time_is_refused(world: World) -> None:
    with (
        world.engine.connect() as other,
        task_lock(other, "remove_watched_document"),
        pytest.raises(HousekeepingError, match="is being removed now"),
    ):
        world.remove(PAGE)
    assert watched(world) == [True, True]


def test_without_a_trash_there_is_no_run_to_undo(world: World) -> None:
    world.runner = replace(world.runner, trashed=False)
    assert world.remove(PAGE).run_id is None
    assert (world.entries(), watched(world)) == ({}, [False, False])
    world.sync()
    assert column(world.engine, "SELECT count(*) FROM housekeeping.watched_documents") == [0]


def test_a_review_that_ends_the_watch_can_be_undone(world: World) -> None:
    world.source.by_address[PAGE] = Gone("404")
    for _ in range(3):
        world.sync(force=True)
        world.now += DAY + timedelta(hours=2)
    entry = world.entry(PAGE)
    reviewed = administration.review(world.runner, HousekeepingConfig(), entry.id, "accept")
    assert (reviewed.message, world.entries()) == ("it is no longer watched; the document is kept", {})
    world.undo(str(reviewed.run_id))
    assert world.entry(PAGE) == entry


def test_a_review_ends_no_watch_that_recovered_meanwhile(world: World) -> None:
    world.source.by_address[PAGE] = Failed("down")
    for _ in range(5):
        world.sync(force=True)
    entry = world.entry(PAGE)
    world.source.by_address[PAGE] = OLD
    world.sync(force=True)
    with pytest.raises(HousekeepingError, match="has changed"):
        stop_watching(world.runner, HousekeepingConfig(), entry, only_as_read=True)
    assert world.entry(PAGE).state == "active"
    with pytest.raises(ConfigurationError, match="needs no decision"):
        administration.review(world.runner, HousekeepingConfig(), entry.id, "accept")
