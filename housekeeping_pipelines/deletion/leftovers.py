"""Files in the trash that no record knows, as after a database was restored from a backup that is older than they are.

Nothing finds them by itself: neither an undo nor the purge, and no search looks into the trash. So each is put on
record as its run's, or moved back if something refers to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.deletion.file_trash import Trashed, record
from housekeeping_pipelines.deletion.files import FILES_LOCK, in_order
from housekeeping_pipelines.deletion.tables import file_outbox, trashed_files
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.postgres.arrays import rows_of
from housekeeping_pipelines.postgres.locks import exclusive_lock

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from housekeeping_pipelines.deletion.store import Store

# Files that are looked up at a time.
_BATCH = 1000

# What is on record as the task of a file of which only the run is known.
UNKNOWN_TASK = "unknown"


@dataclass
class Leftovers:
    """What became of the files that no record knew, by run.

    Attributes:
        recorded: they are in the trash of the run now, from which they expire and come back like its others.
        moved_back: something refers to them, or they were a second name of a file in its place.
        failed: `store/name in the trash` -> reason.
    """

    recorded: dict[str, int] = field(default_factory=dict)
    moved_back: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def settle_leftovers(connection: sa.Connection, store: Store, now: datetime, *, run_id: str | None = None) -> Leftovers:
    """Find the files in a store's trash, of all runs or of one, that no record knows, and settle each; commits.

    Raises:
        Unavailable, StorageRefused, ConfigurationError: the store cannot be listed.
    """
    result = Leftovers()
    if store.trash_folder is None:
        return result
    for volume in ("", *store.storage.volumes_below()):
        folder = f"{volume}{store.trash_folder}/"
        listed = store.storage.list(f"{folder}{run_id}/" if run_id else folder, details=False)
        while part := [each.name for each in islice(listed, _BATCH)]:
            found = {name: origin for name in part if (origin := _origin(folder, name)) is not None}
            if _unknown(connection, store.name, found):
                # What is half moved, or half recorded, is finished first.
                with INTERRUPTION.step(), exclusive_lock(connection, FILES_LOCK):
                    unknown = _unknown(connection, store.name, found)
                    _settle(connection, store, {name: found[name] for name in unknown}, now, result)
        store.storage.remove_empty_folders(folder)
    return result


def _origin(folder: str, name: str) -> tuple[str, str] | None:
    """The run and the name of a file of the trash; None if no run put it there."""
    run_id, slash, origin = name.removeprefix(folder).partition("/")
    return (run_id, origin) if slash and origin else None


def _unknown(connection: sa.Connection, store: str, found: dict[str, tuple[str, str]]) -> list[str]:
    """Those that neither the trash nor the outbox knows."""
    given = rows_of(
        place=("text[]", list(found)),
        run_id=("text[]", [run_id for run_id, _ in found.values()]),
        name=("text[]", [name for _, name in found.values()]),
    )
    is_trashed = sa.exists().where(trashed_files.c.trash_name == given.c.place, trashed_files.c.store == store)
    on_its_way = sa.exists().where(file_outbox.c.trash_name == given.c.place, file_outbox.c.store == store)
    # An entry of an earlier version does not say where it moves its file.
    of_old = sa.exists().where(
        file_outbox.c.trash_name.is_(None), file_outbox.c.store == store, file_outbox.c.run_id == given.c.run_id,
        file_outbox.c.name == given.c.name,
    )  # fmt: skip
    statement = sa.select(given.c.place).where(~is_trashed, ~on_its_way, ~of_old)
    unknown = list(connection.scalars(statement))
    connection.commit()
    return unknown


def _settle(
    connection: sa.Connection, store: Store, found: dict[str, tuple[str, str]], now: datetime, result: Leftovers
) -> None:
    storage = store.storage
    there = {each.name: each for each in storage.examine(in_order(found))}
    names = in_order({found[place][1] for place in there})
    with connection.begin():
        in_use = store.uses.in_use(connection, names)
    wanted: Collection[str] = in_use.decide(store.stored) | {each.name for each in storage.examine(names)}
    moves = storage.move_many({place: found[place][1] for place in there if found[place][1] in wanted})
    result.failed |= {f"{store.name}/{place}": reason for place, reason in moves.failed.items()}
    for place in moves.moved:
        run_id = found[place][0]
        result.moved_back[run_id] = result.moved_back.get(run_id, 0) + 1
    stays = [place for place in there if place not in moves.moved | moves.absent | moves.failed.keys()]
    with connection.begin():
        files = [Trashed(found[p][0], UNKNOWN_TASK, found[p][1], p, there[p].size) for p in stays]
        record(connection, store.name, files, now)
    for place in stays:
        run_id = found[place][0]
        result.recorded[run_id] = result.recorded.get(run_id, 0) + 1
