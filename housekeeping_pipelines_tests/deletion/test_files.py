"""Files on their way out: the outbox, the trash, undo and expiry, over a real folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.deletion.drain import count_due, drain, stuck
from housekeeping_pipelines.deletion.file_outbox import (
    BATCH_FILES,
    LEASE,
    LONGEST_BACKOFF,
    STUCK_ATTEMPTS,
    backoff,
    queue,
    take,
)
from housekeeping_pipelines.deletion.file_trash import PurgedFiles, count_files, purge_files
from housekeeping_pipelines.deletion.file_undo import restore_files
from housekeeping_pipelines.deletion.files import FileRemoval, Outcome
from housekeeping_pipelines.deletion.holds import add_name_hold
from housekeeping_pipelines.deletion.store import InUse, Store
from housekeeping_pipelines.deletion.tables import file_outbox
from housekeeping_pipelines.deletion.undo import UndoResult
from housekeeping_pipelines.errors import Unavailable
from housekeeping_pipelines.resources.object_storage import StorageRefused, StoredObject
from housekeeping_pipelines.resources.object_storage.local_folder import TRASH_FOLDER, LocalFolder
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import column, rows, scalar, sql

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path


@dataclass
class Table:
    """Names are in use that a table of one column has."""

    def in_use(self, connection: sa.Connection, names: Sequence[str], *, except_tasks: Collection[str] = ()) -> InUse:
        statement = sa.text("SELECT name FROM used WHERE name = ANY (:names)")
        return InUse(set(connection.scalars(statement, {"names": list(names)})))

    def meant(self, values: Collection[str], stored: Callable[[Collection[str]], set[str]]) -> dict[str, set[str]]:
        """A value is a name with a slash before it, or several with a comma between them."""
        return {value: stored({name.lstrip("/") for name in value.split(",")}) for value in values}


class Failing(LocalFolder):
    """A folder that stops answering after so many moves or removals."""

    def __init__(self, root: Path, error: Exception, after: int = 0) -> None:
        super().__init__(root)
        self._error, self._left = error, after

    def _count(self) -> None:
        if self._left == 0:
            raise self._error
        self._left -= 1

    def move(self, source: str, target: str) -> None:
        self._count()
        super().move(source, target)


@dataclass
class World:
    """A folder, its database, and the time."""

    engine: sa.Engine
    root: Path
    connection: sa.Connection
    now: datetime = NOW
    trash: str | None = TRASH_FOLDER
    storage: Any = None
    conflicts: list[str] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store("uploads", self.storage or LocalFolder(self.root), self.trash, Table(), TRASH_FOLDER)

    def clock(self) -> datetime:
        return self.now

    def put(self, name: str, content: str = "content") -> StoredObject:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        found = LocalFolder(self.root).stat(name)
        assert found is not None
        return found

    def queue(self, *objects: StoredObject, run_id: str = "run-1") -> list[Any]:
        with self.connection.begin():
            return queue(self.connection, self.store, objects, run_id=run_id, task="task", now=self.now)

    def queue_of_row(self, name: str, run_id: str = "run-1") -> None:
        """As the deletion of a row writes it that names a file."""
        values = {"run_id": run_id, "task": "task", "store": "uploads", "name": name, "unresolved": True}
        with self.connection.begin():
            self.connection.execute(
                sa.insert(file_outbox).values(**values, queued_at=self.now, next_attempt_at=self.now)
            )

    def remove(self, *objects: StoredObject, run_id: str = "run-1") -> Outcome:
        entries = self.queue(*objects, run_id=run_id)
        return FileRemoval(self.connection, self.store, self.clock, entries).execute()

    def drain(self, **options: Any) -> Any:
        return drain(self.connection, lambda _: self.store, self.clock, **options)

    def undo(self, run_id: str = "run-1") -> UndoResult:
        result = UndoResult(run_id)
        restore_files(self.connection, run_id, lambda _: self.store, result, now=self.now)
        return result

    def files(self) -> list[str]:
        return sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())

    def entries(self) -> list[tuple[Any, ...]]:
        return rows(self.engine, "SELECT name, attempts, last_error FROM housekeeping.file_outbox ORDER BY name")

    def trashed(self) -> list[str]:
        return column(self.engine, "SELECT name FROM housekeeping.trashed_files ORDER BY name")


@pytest.fixture
def world(engine: sa.Engine, tmp_path: Path) -> Iterator[World]:
    sql(engine, "CREATE TABLE used (name text)")
    root = tmp_path / "uploads"
    root.mkdir()
    with engine.connect() as connection:
        yield World(engine, root, connection)


def in_trash(name: str, run_id: str = "run-1") -> str:
    return f"{TRASH_FOLDER}/{run_id}/{name}"


def test_what_goes_is_in_the_trash_and_comes_back(world: World) -> None:
    found = [world.put("a/one.txt", "1"), world.put("two words.txt", "22")]
    before = [(world.root / each.name).stat().st_mtime_ns for each in found]
    outcome = world.remove(*found)
    assert outcome.gone == {"a/one.txt": 1, "two words.txt": 2}
    assert world.files() == [in_trash("a/one.txt"), in_trash("two words.txt")]
    assert (world.entries(), world.trashed()) == ([], ["a/one.txt", "two words.txt"])
    result = world.undo()
    assert (result.restored, result.conflicts) == ({"uploads": 2}, [])
    assert world.files() == ["a/one.txt", "two words.txt"]
    assert [(world.root / each.name).stat().st_mtime_ns for each in found] == before
    assert world.trashed() == []


def test_without_a_trash_it_is_gone(world: World) -> None:
    world.trash = None
    outcome = world.remove(world.put("one.txt"))
    assert (list(outcome.gone), world.files(), world.trashed(), world.entries()) == (["one.txt"], [], [], [])


@pytest.mark.parametrize("trash", [TRASH_FOLDER, None])
def test_what_is_in_use_again_stays(world: World, trash: str | None) -> None:
    world.trash = trash
    objects = [world.put("one.txt"), world.put("two.txt")]
    entries = world.queue(*objects)
    sql(world.engine, "INSERT INTO used VALUES ('one.txt')")
    outcome = FileRemoval(world.connection, world.store, world.clock, entries).execute()
    assert (outcome.in_use, list(outcome.gone)) == ({"one.txt"}, ["two.txt"])
    assert (world.root / "one.txt").exists()
    assert world.entries() == []


def test_what_was_written_anew_since_it_was_chosen_stays(world: World) -> None:
    found = world.put("one.txt")
    assert found.modified is not None
    older = StoredObject(found.name, found.size, found.modified - timedelta(seconds=1))
    assert world.remove(older).in_use == {"one.txt"}
    assert (world.files(), world.entries()) == (["one.txt"], [])


def test_a_file_that_is_not_there_any_more_is_no_failure(world: World) -> None:
    found = world.put("one.txt")
    (world.root / "one.txt").unlink()
    assert world.remove(found).absent == {"one.txt"}
    assert (world.entries(), world.trashed()) == ([], [])


def test_a_hold_keeps_a_file_until_it_is_over(world: World) -> None:
    world.put("one.txt")
    world.queue_of_row("one.txt")
    with world.connection.begin():
        add_name_hold(
            world.connection, type="file", store="uploads", names=["one.txt"], subject="file:uploads/one.txt",
            until=NOW + timedelta(hours=30), reason="case", now=NOW,
        )  # fmt: skip
    assert world.drain().held == 1
    world.now += timedelta(hours=25)
    assert world.drain().held == 1
    world.now += timedelta(hours=25)
    assert world.drain().gone == {"uploads": 1}


def test_a_reference_that_comes_between_the_look_and_the_move_brings_it_back(world: World) -> None:
    found = world.put("one.txt")
    engine = world.engine

    class Adding(LocalFolder):
        """Somebody names the file when it has just been moved."""

        def move(self, source: str, target: str) -> None:
            super().move(source, target)
            if source == "one.txt":
                sql(engine, "INSERT INTO used VALUES ('one.txt')")

    world.storage = Adding(world.root)
    outcome = world.remove(found)
    assert (outcome.gone, outcome.in_use) == ({}, {"one.txt"})
    assert (world.files(), world.trashed(), world.entries()) == (["one.txt"], [], [])


@pytest.mark.parametrize("done", [0, 1, 2])
def test_storage_that_stops_answering_leaves_the_rest_waiting(world: World, done: int) -> None:
    objects = [world.put(f"{n}.txt") for n in range(3)]
    world.storage = Failing(world.root, Unavailable("storage does not answer"), after=done)
    outcome = world.remove(*objects)
    assert (len(outcome.gone), str(outcome.unavailable)) == (done, "storage does not answer")
    assert [(attempts, error) for _, attempts, error in world.entries()] == [(1, "storage does not answer")] * (
        3 - done
    )
    world.storage = None
    assert world.drain().gone == {}
    world.now += backoff(1)
    assert world.drain().gone == {"uploads": 3 - done}
    assert (world.entries(), len(world.trashed())) == ([], 3)


def test_storage_that_refuses_is_asked_again_later_and_then_named(world: World) -> None:
    world.put("one.txt")
    world.queue_of_row("one.txt")
    world.storage = Failing(world.root, StorageRefused("no permission"))
    assert world.drain().failed == {"uploads/one.txt": "no permission"}
    for attempt in range(2, STUCK_ATTEMPTS + 1):
        assert stuck(world.connection) == []
        world.connection.rollback()
        assert world.drain().failed == {}
        world.now += backoff(attempt - 1)
        assert world.drain().failed == {"uploads/one.txt": "no permission"}
    assert stuck(world.connection) == [("uploads/one.txt", "no permission")]
    assert (world.root / "one.txt").exists()


def test_delays_grow_to_hours_and_no_further() -> None:
    delays = [backoff(attempts) for attempts in range(1, 40)]
    assert delays == sorted(delays)
    assert (delays[0], delays[1], delays[-1]) == (timedelta(minutes=1), timedelta(minutes=2), LONGEST_BACKOFF)


def test_an_entry_is_taken_by_one_worker_and_by_another_when_its_lease_is_over(world: World) -> None:
    world.put("one.txt")
    sql(
        world.engine,
        f"INSERT INTO housekeeping.file_outbox (run_id, task, store, name, queued_at, next_attempt_at)"
        f" VALUES ('run-1', 'task', 'uploads', 'one.txt', '{NOW}', '{NOW}')",
    )
    assert count_due(world.connection, NOW) == 1
    world.connection.rollback()
    assert [entry.name for entry in take(world.connection, "uploads", now=NOW)] == ["one.txt"]
    with world.engine.connect() as other:
        assert take(other, "uploads", now=NOW) == []
        # The first worker died.
        later = take(other, "uploads", now=NOW + LEASE)
    assert [(entry.name, entry.attempts) for entry in later] == [("one.txt", 2)]


def test_two_drains_at_once_take_each_entry_once(world: World) -> None:
    names = [f"{n:04}.txt" for n in range(2 * BATCH_FILES + 10)]
    for name in names:
        world.put(name)
    insert = sa.insert(file_outbox)
    values = [
        {"run_id": "run-1", "task": "task", "store": "uploads", "name": name, "queued_at": NOW, "next_attempt_at": NOW}
        for name in names
    ]
    with world.connection.begin():
        world.connection.execute(insert, values)
    with world.engine.connect() as other:
        mine = take(world.connection, "uploads", now=NOW)
        drained = drain(other, lambda _: world.store, world.clock)
    outcome = FileRemoval(world.connection, world.store, world.clock, mine).execute()
    assert len(outcome.gone) + drained.gone["uploads"] == len(names)
    assert len(world.trashed()) == len(names)
    assert world.entries() == []


def test_a_worker_that_died_after_the_move_has_lost_nothing(world: World) -> None:
    found = world.put("one.txt")
    world.queue(found)
    LocalFolder(world.root).move("one.txt", in_trash("one.txt"))
    world.now += LEASE
    assert world.drain().gone == {"uploads": 1}
    assert (world.trashed(), world.entries()) == (["one.txt"], [])
    assert world.undo().restored == {"uploads": 1}
    assert world.files() == ["one.txt"]


def test_a_worker_that_died_after_the_move_of_a_file_that_is_used_again_brings_it_back(world: World) -> None:
    world.queue(world.put("one.txt"))
    LocalFolder(world.root).move("one.txt", in_trash("one.txt"))
    sql(world.engine, "INSERT INTO used VALUES ('one.txt')")
    world.now += LEASE
    assert world.drain().in_use == 1
    assert (world.files(), world.trashed(), world.entries()) == (["one.txt"], [], [])


def test_an_undo_cancels_what_waits_and_brings_back_what_was_half_way(world: World) -> None:
    objects = [world.put("half.txt"), world.put("waits.txt")]
    world.queue(*objects)
    LocalFolder(world.root).move("half.txt", in_trash("half.txt"))
    assert world.undo().conflicts == []
    assert (world.files(), world.entries(), world.trashed()) == (["half.txt", "waits.txt"], [], [])
    world.now += LEASE
    assert world.drain().gone == {}
    assert world.files() == ["half.txt", "waits.txt"]


def test_an_undo_overwrites_nothing_and_names_what_stays(world: World) -> None:
    world.remove(world.put("one.txt", "old"), world.put("lost.txt"), world.put("two.txt"))
    world.put("one.txt", "new")
    (world.root / in_trash("lost.txt")).unlink()
    result = world.undo()
    assert result.restored == {"uploads": 1}
    assert {conflict.item: conflict.reason for conflict in result.conflicts} == {
        "uploads/one.txt": "another file has this name now",
        "uploads/lost.txt": "it is no longer in the trash",
    }
    assert (world.root / "one.txt").read_text() == "new"
    assert world.trashed() == ["lost.txt", "one.txt"]
    (world.root / "one.txt").unlink()
    assert world.undo().restored == {"uploads": 1}
    assert (world.root / "one.txt").read_text() == "old"


def test_an_undo_that_was_cut_off_after_a_move_goes_on(world: World) -> None:
    world.remove(world.put("one.txt"), world.put("two.txt"))
    LocalFolder(world.root).move(in_trash("one.txt"), "one.txt")
    result = world.undo()
    assert (result.restored, result.conflicts) == ({"uploads": 2}, [])
    assert (world.files(), world.trashed()) == (["one.txt", "two.txt"], [])


def test_storage_that_is_down_keeps_the_trash_for_a_later_undo(world: World) -> None:
    world.remove(world.put("one.txt"))
    world.storage = Failing(world.root, Unavailable("storage does not answer"))
    assert [conflict.reason for conflict in world.undo().conflicts] == ["storage does not answer"]
    world.storage = None
    assert world.undo().restored == {"uploads": 1}


def test_what_has_expired_goes_for_good_and_the_rest_stays(world: World) -> None:
    world.remove(world.put("old.txt", "four"), run_id="run-1")
    world.now += timedelta(days=8)
    world.remove(world.put("young.txt"), run_id="run-2")
    before = world.now - timedelta(days=7)
    assert count_files(world.connection, before=before, run_id=None) == {"uploads": 1}
    world.connection.rollback()
    purged = purge_files(world.connection, lambda _: world.store, ["run-1", "run-2"], before=before)
    assert purged == PurgedFiles({"uploads": 1}, 4)
    assert (world.files(), world.trashed()) == ([in_trash("young.txt", "run-2")], ["young.txt"])


def test_one_run_can_be_purged_by_name(world: World) -> None:
    world.remove(world.put("one.txt"), run_id="run-1")
    world.remove(world.put("two.txt"), run_id="run-2")
    purge_files(world.connection, lambda _: world.store, ["run-2"], before=None)
    assert world.trashed() == ["one.txt"]
    assert scalar(world.engine, "SELECT count(*) FROM housekeeping.file_outbox") == 0


def test_a_file_that_was_never_in_the_trash_any_more_leaves_no_entry(world: World) -> None:
    world.remove(world.put("one.txt"))
    (world.root / in_trash("one.txt")).unlink()
    purged = purge_files(world.connection, lambda _: world.store, ["run-1"], before=None)
    # It went in some other way: the purge did not remove it.
    assert purged == PurgedFiles()
    assert world.trashed() == []
