"""What a person does with the queue, in a live database."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.watched_documents.administration import WatchAdministration, remove
from housekeeping_pipelines_tests.deletion.support import column, sql
from housekeeping_pipelines_tests.watched_documents.support import OLD, WEEK, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

    from housekeeping_pipelines.watched_documents.administration import Watched

PAGE = "https://docs.example/page"
HOUR = timedelta(hours=1)


@pytest.fixture
def world(engine: sa.Engine, tmp_path: Path) -> World:
    return World(engine, tmp_path).make()


@contextmanager
def watching(world: World) -> Iterator[WatchAdministration]:
    with world.engine.begin() as connection:
        yield WatchAdministration.on(connection, HousekeepingConfig())


def add(world: World, *, workspace: str | None = None, every: timedelta | None = None, page: str = PAGE) -> Watched:
    with watching(world) as queue:
        return queue.add(f"link://{page}", workspace=workspace, stale_after=every, default=WEEK, now=world.now)


def test_a_new_page_is_made_in_its_workspace_and_due_at_once(world: World) -> None:
    watched = add(world, workspace="two")
    assert (watched.created, watched.already, watched.documents, watched.stale_after) == (True, False, 1, WEEK)
    assert column(world.engine, "SELECT workspace_id FROM documents") == [2]
    entry = world.entry(PAGE)
    assert (entry.next_sync_at, entry.state) == (world.now, "active")
    world.source.by_address[PAGE] = OLD
    assert world.sync().updated == 1


def test_every_copy_of_a_document_is_watched_with_it(world: World) -> None:
    for place in (1, 2, 3):
        world.document(PAGE, workspace=place, watched=False, filename="page.json")
    watched = add(world)
    assert (watched.created, watched.documents) == (False, 3)
    assert column(world.engine, "SELECT watched FROM documents") == [True] * 3
    assert column(world.engine, "SELECT count(*) FROM document_sync_queues") == [1]
    remove(world.runner, HousekeepingConfig(), watched.id)
    assert column(world.engine, "SELECT watched FROM documents") == [False] * 3
    assert column(world.engine, "SELECT count(*) FROM document_sync_queues") == [0]


def test_a_document_keeps_its_place_and_gets_the_interval_that_is_given(world: World) -> None:
    world.document(PAGE)
    world.source.by_address[PAGE] = OLD
    world.sync()
    last = world.now
    world.now += HOUR
    assert add(world, every=6 * HOUR).already
    entry = world.entry(PAGE)
    assert (entry.stale_after, entry.next_sync_at) == (6 * HOUR, last + 6 * HOUR)
    assert add(world).stale_after == 6 * HOUR
    world.now = entry.next_sync_at
    assert world.sync().unchanged == 1
    assert world.entry(PAGE).next_sync_at == world.now + 6 * HOUR


def test_an_interval_does_not_shorten_the_wait_after_a_failure(world: World) -> None:
    world.document(PAGE)
    world.sync()
    before = world.entry(PAGE)
    assert before.failures == 1
    add(world, every=HOUR)
    assert world.entry(PAGE).next_sync_at == before.next_sync_at


@pytest.mark.parametrize(
    ("written", "due"),
    [(1, HOUR), (0, WEEK), (-5, WEEK), (2 * 3_600_000, 2 * HOUR), (10**18, 8760 * HOUR)],
)
def test_an_interval_that_the_application_wrote_is_an_hour_at_least(world: World, written: int, due: timedelta) -> None:
    add(world, workspace="one")
    sql(world.engine, f"UPDATE document_sync_queues SET stale_after_ms = {written}")
    world.source.by_address[PAGE] = OLD
    assert world.sync().updated == 1
    assert world.entry(PAGE).next_sync_at == world.now + due


def test_a_time_that_is_no_time_stops_nobody(world: World) -> None:
    for number, moment in enumerate(("infinity", "-infinity", "2026-06-01"), 1):
        world.document(f"{number}.example")
        world.source.by_address[f"{number}.example"] = OLD
        sql(
            world.engine,
            "INSERT INTO document_sync_queues (document_id, next_sync_at, last_synced_at)"
            f" VALUES ({number}, '{moment}', '{moment}')",
        )
    assert len(world.entries()) == 3
    report = world.sync()
    assert (report.status, report.updated, report.in_error) == ("succeeded", 2, ())
    assert (
        column(world.engine, "SELECT next_sync_at FROM document_sync_queues WHERE isfinite(next_sync_at)")
        == [world.now + WEEK] * 2
    )


def test_a_page_in_another_workspace_is_a_document_of_its_own(world: World) -> None:
    add(world, workspace="one")
    watched = add(world, workspace="two")
    assert watched.created
    assert column(world.engine, "SELECT count(DISTINCT filename) FROM documents") == [2]


@pytest.mark.parametrize(
    ("workspace", "said"), [(None, "no document comes from link://"), ("none", "there is no workspace 'none'")]
)
def test_what_cannot_be_watched_is_said(world: World, workspace: str | None, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        add(world, workspace=workspace)
    assert column(world.engine, "SELECT count(*) FROM documents") == [0]


def test_a_platform_that_takes_no_new_document_says_why(world: World) -> None:
    sql(world.engine, "ALTER TABLE documents ADD owner int NOT NULL")
    with pytest.raises(ConfigurationError, match="refuses a new document") as error:
        add(world, workspace="one")
    assert "owner" in error.value.one_line


def test_a_reference_with_signs_of_sql_and_json_is_found_again(world: World) -> None:
    page = "https://docs.example/o'neil?q=\"%_\\&x=ü"
    first = add(world, workspace="one", page=page)
    again = add(world, page=page)
    assert (first.created, again.created, again.already) == (True, False, True)
    with watching(world) as queue:
        (entry,) = queue.entries()
    assert entry.reference == f"link://{page}"


@pytest.mark.parametrize("id_", ["99", "x", "1; DROP TABLE documents", "", "1e400", "-1"])
def test_an_id_that_there_is_not(world: World, id_: str) -> None:
    add(world, workspace="one")
    with pytest.raises(ConfigurationError, match="there is no watched document"):
        remove(world.runner, HousekeepingConfig(), id_)
