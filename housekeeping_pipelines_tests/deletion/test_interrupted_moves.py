"""A move that was interrupted is judged by both names, however it is continued and whatever the settings say then."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.deletion.file_outbox import LEASE, take
from housekeeping_pipelines.deletion.files import FileRemoval
from housekeeping_pipelines.deletion.leftovers import UNKNOWN_TASK, settle_leftovers
from housekeeping_pipelines.deletion.purge import purge
from housekeeping_pipelines.deletion.tables import trashed_files
from housekeeping_pipelines.resources.object_storage.local_folder import TRASH_FOLDER, LocalFolder
from housekeeping_pipelines_tests.deletion.support import column, rows, sql
from housekeeping_pipelines_tests.deletion.test_files import World, in_trash, world

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["world"]

OTHER_FOLDER = f"{TRASH_FOLDER}/elsewhere"


def not_begun(world: World) -> None:
    """Killed before the move."""


def linked(world: World) -> None:
    """Killed between link and unlink."""
    place = world.root / in_trash("a/one.txt")
    place.parent.mkdir(parents=True)
    place.hardlink_to(world.root / "a/one.txt")


def moved(world: World) -> None:
    """Killed between the move and its record."""
    LocalFolder(world.root).move("a/one.txt", in_trash("a/one.txt"))


def written_anew(world: World) -> None:
    """The application writes the name after the move that was not recorded."""
    moved(world)
    world.put("a/one.txt", "new")


def named_again(world: World) -> None:
    """A row names the file after the move that was not recorded."""
    moved(world)
    sql(world.engine, "INSERT INTO used VALUES ('a/one.txt')")


def drain(world: World) -> None:
    world.now += LEASE
    world.drain()


def undo(world: World) -> None:
    world.undo()


def drain_and_undo(world: World) -> None:
    drain(world)
    undo(world)


def trash_off(then: Callable[[World], None]) -> Callable[[World], None]:
    def off(world: World) -> None:
        world.trash = None
        then(world)

    off.__name__ = f"trash_off_and_{then.__name__}"
    return off


def other_folder(then: Callable[[World], None]) -> Callable[[World], None]:
    def elsewhere(world: World) -> None:
        world.trash = OTHER_FOLDER
        then(world)

    elsewhere.__name__ = f"other_folder_and_{then.__name__}"
    return elsewhere


def expired(world: World) -> None:
    """The purge finds the run expired."""
    purge(world.connection, lambda _: world.store, before=world.now + timedelta(days=100))


def search_again(world: World) -> None:
    """A later run finds what is in place, and takes the entry over."""
    world.now += LEASE
    if (found := LocalFolder(world.root).stat("a/one.txt")) is not None:
        world.remove(found, run_id="run-2")


BEGINNINGS = [not_begun, linked, moved, written_anew, named_again]
CONTINUATIONS = [
    drain, undo, drain_and_undo, trash_off(drain), trash_off(undo), other_folder(drain), other_folder(drain_and_undo),
    expired, search_again,
]  # fmt: skip


def everywhere(world: World) -> dict[str, list[str]]:
    """The contents by where they are; a file that has two names is said so."""
    found: dict[str, list[str]] = {}
    for name in world.files():
        path = world.root / name
        where = "trash" if name.startswith(TRASH_FOLDER) else name
        found.setdefault(where, []).append(path.read_text() + (" twice" if path.stat().st_nlink > 1 else ""))
    return found


def settled(world: World) -> None:
    """Each file of the trash is on record, in the trash or in the outbox, and each record has its file."""
    on_record = set(column(world.engine, "SELECT trash_name FROM housekeeping.trashed_files"))
    begun = set(column(world.engine, "SELECT trash_name FROM housekeeping.file_outbox WHERE trash_name IS NOT NULL"))
    there = {name for name in world.files() if name.startswith(TRASH_FOLDER)}
    assert on_record <= there <= on_record | begun


@pytest.mark.parametrize("kind", ["orphan", "of a row"])
@pytest.mark.parametrize("continuation", CONTINUATIONS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("beginning", BEGINNINGS, ids=lambda each: each.__name__)
def test_a_file_is_always_somewhere(
    world: World, beginning: Callable[[World], None], continuation: Callable[[World], None], kind: str
) -> None:
    found = world.put("a/one.txt", "old")
    if kind == "orphan":
        world.queue(found)
    else:
        world.queue_of_row("a/one.txt")
        entries = take(world.connection, "uploads", now=world.now)
        # Up to the move, and no further.
        removal = FileRemoval(world.connection, world.store, world.clock, entries)
        removal._resolve()
        removal._announce(["a/one.txt"])
    beginning(world)
    continuation(world)
    settled(world)
    where = everywhere(world)
    contents = sorted(text for texts in where.values() for text in texts)
    is_final = continuation.__name__ == "trash_off_and_drain"
    if beginning is written_anew:
        assert where["a/one.txt"] == ["new"], "what was written again is nothing that a run chose"
        assert contents == ["new", "old"]
    elif is_final and beginning in (not_begun, linked):
        assert contents == []
    elif beginning is linked and continuation in (expired,):
        # No one has come by that continues the move; it is in place all the same.
        assert where == {"a/one.txt": ["old twice"], "trash": ["old twice"]}
    else:
        assert contents == ["old"]
    if beginning is named_again and continuation not in (expired, search_again):
        assert where == {"a/one.txt": ["old"]}
    if continuation.__name__.endswith("undo") and beginning is not written_anew:
        assert where == {"a/one.txt": ["old"]}
    # Whatever it was: one drain and one undo later nothing is left half done.
    world.trash = TRASH_FOLDER
    drain(world)
    for run_id in ("run-1", "run-2"):
        world.undo(run_id)
    settled(world)
    assert world.entries() == []
    assert not any(text.endswith("twice") for texts in everywhere(world).values() for text in texts)
    if not (is_final and beginning in (not_begun, linked)):
        assert sorted(text for texts in everywhere(world).values() for text in texts) == (
            ["new", "old"] if beginning is written_anew else ["old"]
        )


def test_an_undo_says_what_it_took_back(world: World) -> None:
    objects = [world.put(f"{n}.txt") for n in range(3)]
    world.queue(*objects)
    for name in ("0.txt", "1.txt"):
        LocalFolder(world.root).move(name, in_trash(name))
    world.put("1.txt", "new")
    result = world.undo()
    assert result.restored == {"uploads": 1}
    assert [(each.item, each.reason) for each in result.conflicts] == [
        ("uploads/1.txt", "another file has this name now"),
        ("uploads/1.txt", "another file has this name now"),
    ]
    assert world.trashed() == ["1.txt"]


def test_who_outlived_its_lease_counts_and_records_nothing(world: World) -> None:
    entries = world.queue(*(world.put(f"{n}.txt") for n in range(3)))
    slow = FileRemoval(world.connection, world.store, world.clock, entries)
    world.now += LEASE
    with world.engine.connect() as other:
        mine = take(other, "uploads", now=world.now)
        # The first has moved everything, and comes to its record when the lease is another's.
        outcome = slow.execute()
        assert (outcome.gone, outcome.absent, world.trashed()) == ({}, set(), [])
        assert sorted(FileRemoval(other, world.store, world.clock, mine).execute().gone) == ["0.txt", "1.txt", "2.txt"]
    assert world.trashed() == ["0.txt", "1.txt", "2.txt"]
    assert FileRemoval(world.connection, world.store, world.clock, entries).execute().gone == {}
    assert len(world.trashed()) == 3


def test_what_no_record_knows_is_put_on_record_or_moved_back(world: World) -> None:
    """As after the database was restored from a backup of yesterday."""
    objects = [world.put(name) for name in ("gone.txt", "used.txt", "twice.txt", "known.txt")]
    world.remove(*objects)
    with world.connection.begin():
        world.connection.execute(sa.delete(trashed_files).where(trashed_files.c.name != "known.txt"))
    sql(world.engine, "INSERT INTO used VALUES ('used.txt')")
    os.link(world.root / in_trash("twice.txt"), world.root / "twice.txt")
    world.put(f"{TRASH_FOLDER}/a file that no run put here")
    found = settle_leftovers(world.connection, world.store, world.now)
    assert (found.recorded, found.moved_back, found.failed) == ({"run-1": 1}, {"run-1": 2}, {})
    assert [name for name in world.files() if "/" not in name] == ["twice.txt", "used.txt"]
    assert rows(world.engine, "SELECT name, task FROM housekeeping.trashed_files ORDER BY 1") == [
        ("gone.txt", UNKNOWN_TASK),
        ("known.txt", "task"),
    ]
    assert settle_leftovers(world.connection, world.store, world.now).recorded == {}
    assert world.undo().restored == {"uploads": 2}


def test_an_undo_brings_back_what_no_record_knows_of_its_run(world: World) -> None:
    world.remove(world.put("a/known.txt"), world.put("a/lost.txt"))
    sql(world.engine, "DELETE FROM housekeeping.trashed_files WHERE name = 'a/lost.txt'")
    assert world.undo().restored == {"uploads": 2}


def test_empty_folders_of_the_trash_go(world: World) -> None:
    (world.root / in_trash("a/b/c")).mkdir(parents=True)
    world.remove(world.put("kept.txt"), run_id="run-2")
    settle_leftovers(world.connection, world.store, world.now)
    folder = world.root / TRASH_FOLDER
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*")] == ["run-2", "run-2/kept.txt"]
