"""Undo for a run's files: they are moved back, and what waits for its removal stays."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.deletion.file_outbox import BATCH_FILES, entries_of
from housekeeping_pipelines.deletion.file_trash import Trashed, record
from housekeeping_pipelines.deletion.files import FILES_LOCK, in_order, place_in_trash
from housekeeping_pipelines.deletion.leftovers import settle_leftovers
from housekeeping_pipelines.deletion.tables import file_outbox, trashed_files
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.postgres.arrays import is_one_of
from housekeeping_pipelines.postgres.locks import exclusive_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from housekeeping_pipelines.deletion.file_outbox import Entry
    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.deletion.undo import UndoResult

    StoreOf = Callable[[str], Store]

TAKEN = "another file has this name now"


def restore_files(
    connection: sa.Connection,
    run_id: str,
    store_of: StoreOf,
    result: UndoResult,
    *,
    now: datetime,
    may_go_on: Callable[[], bool] = lambda: True,
) -> None:
    """Move a run's files back, and cancel its entries of the outbox; commits as it goes.

    Existing files are never overwritten. What cannot be moved back stays in the trash, as a conflict of `result`.
    """
    with exclusive_lock(connection, FILES_LOCK):
        stores = _stores_of(connection, run_id)
        with INTERRUPTION.step():
            _cancel(connection, run_id, store_of, result)
        for name in stores:
            # One that does not answer is named with the first file that should come back.
            with suppress(HousekeepingError):
                settle_leftovers(connection, store_of(name), now, run_id=run_id)
        last: int | None = 0
        while last is not None and may_go_on():
            with INTERRUPTION.step():
                last = _restore_batch(connection, run_id, store_of, result, last)


def _restore_batch(
    connection: sa.Connection, run_id: str, store_of: StoreOf, result: UndoResult, last: int
) -> int | None:
    """Move the next files back; returns the number of the last one, None if there was none."""
    statement = sa.select(trashed_files).where(trashed_files.c.run_id == run_id, trashed_files.c.id > last)
    found = connection.execute(statement.order_by(trashed_files.c.id).limit(BATCH_FILES)).all()
    connection.commit()
    back: list[int] = []
    for store in sorted({row.store for row in found}):
        mine = [row for row in found if row.store == store]
        reasons = _move_back(store_of, store, {row.trash_name: row.name for row in mine})
        restored = [row.id for row in mine if row.trash_name not in reasons]
        back += restored
        if restored:
            result.restored[store] = result.restored.get(store, 0) + len(restored)
        for row in mine:
            if (reason := reasons.get(row.trash_name)) is not None:
                result.conflict(f"{store}/{row.name}", reason)
    connection.execute(sa.delete(trashed_files).where(is_one_of(trashed_files.c.id, back)))
    connection.commit()
    return found[-1].id if found else None


def _stores_of(connection: sa.Connection, run_id: str) -> list[str]:
    tables = (file_outbox, trashed_files)
    known = sa.union(*(sa.select(table.c.store).where(table.c.run_id == run_id) for table in tables))
    stores = sorted(connection.scalars(known))
    connection.commit()
    return stores


def restore_named(connection: sa.Connection, store: Store, names: Collection[str]) -> int:
    """Move files back that are in the trash under one of these names, whichever run deleted them; commits.

    Returns:
        how many were moved back; a name that is taken again, or a file that is lost, does not count.
    """
    wanted = sa.bindparam("names", list(names), ARRAY(sa.Text))
    statement = sa.select(trashed_files).where(
        trashed_files.c.store == store.name, trashed_files.c.name == sa.any_(wanted)
    )
    with INTERRUPTION.step(), exclusive_lock(connection, FILES_LOCK):
        found = connection.execute(statement.order_by(trashed_files.c.id.desc())).all()
        connection.commit()
        # Of several with one name, the newest comes back.
        newest = {row.name: row for row in reversed(found)}
        reasons = _move_back(lambda _: store, store.name, {row.trash_name: row.name for row in newest.values()})
        back = [row.id for row in newest.values() if row.trash_name not in reasons]
        connection.execute(sa.delete(trashed_files).where(is_one_of(trashed_files.c.id, back)))
        connection.commit()
    return len(back)


def _cancel(connection: sa.Connection, run_id: str, store_of: StoreOf, result: UndoResult) -> None:
    """Delete the run's entries of the outbox, and take back the moves that were begun for them and not recorded."""
    for store in _stores_of(connection, run_id):
        last = 0
        while entries := entries_of(connection, run_id, store, after=last):
            connection.commit()
            last = entries[-1].id
            reasons = _take_back(connection, store_of, store, [entry for entry in entries if entry.attempts], result)
            for entry in (entry for entry in entries if entry.id in reasons):
                result.conflict(f"{store}/{entry.name}", reasons[entry.id])
            done = [entry.id for entry in entries if entry.id not in reasons]
            connection.execute(sa.delete(file_outbox).where(is_one_of(file_outbox.c.id, done)))
            connection.commit()


def _take_back(
    connection: sa.Connection, store_of: StoreOf, store_name: str, entries: Sequence[Entry], result: UndoResult
) -> dict[int, str]:
    """Returns why the entries stay whose files may be in the trash still."""
    if not entries:
        return {}
    try:
        store = store_of(store_name)
        storage = store.storage
        begun = {place: entry for entry in entries if (place := place_in_trash(entry, store)) is not None}
        moved = {found.name: found for found in storage.examine(in_order(begun))}
        names = {place: begun[place].name for place in moved}
        in_place = {found.name for found in storage.examine(in_order(names.values()))}
        # One file under both names loses the second.
        moves = storage.move_many(names)
    except HousekeepingError as error:
        return {entry.id: error.one_line for entry in entries}
    if back := sum(names[place] not in in_place for place in moves.moved):
        result.restored[store_name] = result.restored.get(store_name, 0) + back
    for place in moves.taken:
        entry = begun[place]
        trashed = Trashed(entry.run_id, entry.task, entry.name, place, moved[place].size)
        record(connection, store_name, [trashed], entry.queued_at)
        result.conflict(f"{store_name}/{entry.name}", TAKEN)
    return {begun[place].id: reason for place, reason in moves.failed.items()}


def _move_back(store_of: StoreOf, store_name: str, names: Mapping[str, str]) -> dict[str, str]:
    """Move files of the trash to their names; returns why those could not be moved back that were not."""
    try:
        storage = store_of(store_name).storage
        moves = storage.move_many(names)
        # An interrupted undo may have moved them without recording that.
        back = {found.name for found in storage.examine(in_order({names[each] for each in moves.absent}))}
    except HousekeepingError as error:
        return dict.fromkeys(names, error.one_line)
    lost = {each: "it is no longer in the trash" for each in moves.absent if names[each] not in back}
    return lost | dict.fromkeys(moves.taken, TAKEN) | moves.failed
