"""Undo for a run's files, and the purge of those that have expired in the trash."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.deletion.file_outbox import BATCH_FILES
from housekeeping_pipelines.deletion.files import FILES_LOCK
from housekeeping_pipelines.deletion.tables import file_outbox, trashed_files
from housekeeping_pipelines.deletion.trash import undo_lock
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.postgres.locks import exclusive_lock, try_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.deletion.undo import UndoResult

    StoreOf = Callable[[str], Store]


def restore_files(connection: sa.Connection, run_id: str, store_of: StoreOf, result: UndoResult) -> None:
    """Move a run's files back, and cancel its entries of the outbox; commits as it goes.

    Existing files are never overwritten. What cannot be moved back stays in the trash, as a conflict of `result`.
    """
    with exclusive_lock(connection, FILES_LOCK):
        _cancel(connection, run_id, store_of, result)
        last = 0
        while True:
            statement = sa.select(trashed_files).where(trashed_files.c.run_id == run_id, trashed_files.c.id > last)
            found = connection.execute(statement.order_by(trashed_files.c.id).limit(BATCH_FILES)).all()
            connection.commit()
            if not found:
                return
            last = found[-1].id
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
            connection.execute(sa.delete(trashed_files).where(trashed_files.c.id.in_(back)))
            connection.commit()


def restore_named(connection: sa.Connection, store: Store, names: Collection[str]) -> int:
    """Move files back that are in the trash under one of these names, whichever run deleted them; commits.

    Returns:
        how many were moved back; a name that is taken again, or a file that is lost, does not count.
    """
    wanted = sa.bindparam("names", list(names), ARRAY(sa.Text))
    statement = sa.select(trashed_files).where(
        trashed_files.c.store == store.name, trashed_files.c.name == sa.any_(wanted)
    )
    with exclusive_lock(connection, FILES_LOCK):
        found = connection.execute(statement.order_by(trashed_files.c.id.desc())).all()
        connection.commit()
        # Of several with one name, the newest comes back.
        newest = {row.name: row for row in reversed(found)}
        reasons = _move_back(lambda _: store, store.name, {row.trash_name: row.name for row in newest.values()})
        back = [row.id for row in newest.values() if row.trash_name not in reasons]
        connection.execute(sa.delete(trashed_files).where(trashed_files.c.id.in_(back)))
        connection.commit()
    return len(back)


def _cancel(connection: sa.Connection, run_id: str, store_of: StoreOf, result: UndoResult) -> None:
    """Delete the entries of the outbox; a worker that died may have moved the file of one to the trash already."""
    entries = connection.execute(sa.select(file_outbox).where(file_outbox.c.run_id == run_id)).all()
    connection.commit()
    done: list[int] = []
    for entry in entries:
        reason = None
        if entry.attempts:
            reason = _put_back_if_moved(store_of, run_id, entry.store, entry.name)
        if reason is None:
            done.append(entry.id)
        else:
            result.conflict(f"{entry.store}/{entry.name}", reason)
    connection.execute(sa.delete(file_outbox).where(file_outbox.c.id.in_(done)))
    connection.commit()


def _put_back_if_moved(store_of: StoreOf, run_id: str, store_name: str, name: str) -> str | None:
    try:
        store = store_of(store_name)
        if store.trash_prefix is None or store.storage.stat(name) is not None:
            return None
        trash_name = store.trash_name(run_id, name)
        if store.storage.stat(trash_name) is not None:
            store.storage.move(trash_name, name)
    except HousekeepingError as error:
        return error.one_line
    return None


def _move_back(store_of: StoreOf, store_name: str, names: Mapping[str, str]) -> dict[str, str]:
    """Move files of the trash to their names; returns why those could not be moved back that were not."""
    try:
        storage = store_of(store_name).storage
        moves = storage.move_many(names)
        # An interrupted undo may have moved them without recording that.
        back = {found.name for found in storage.examine(sorted({names[each] for each in moves.absent}, key=str.encode))}
    except HousekeepingError as error:
        return dict.fromkeys(names, error.one_line)
    lost = {each: "it is no longer in the trash" for each in moves.absent if names[each] not in back}
    return lost | dict.fromkeys(moves.taken, "another file has this name now") | moves.failed


def in_trash(connection: sa.Connection, store: str, names: Sequence[str]) -> set[str]:
    """Those of the names that are files of the trash, which may be where an earlier setting put it."""
    wanted = sa.bindparam("names", list(names), ARRAY(sa.Text))
    statement = sa.select(trashed_files.c.trash_name).where(
        trashed_files.c.store == store, trashed_files.c.trash_name == sa.any_(wanted)
    )
    return set(connection.scalars(statement))


def count_files(connection: sa.Connection, *, before: datetime, run_id: str | None) -> dict[str, int]:
    """Files that `purge_files` would remove, by store."""
    statement = sa.select(trashed_files.c.store, sa.func.count()).where(_due(before, run_id))
    return {row[0]: row[1] for row in connection.execute(statement.group_by(trashed_files.c.store))}


@dataclass
class PurgedFiles:
    """What a purge removed: files by store, their bytes; and those that stayed, name -> reason."""

    removed: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, other: PurgedFiles) -> None:
        """Add what one transaction recorded."""
        for store, count in other.removed.items():
            self.removed[store] = self.removed.get(store, 0) + count
        self.bytes += other.bytes
        self.failed |= other.failed


def purge_files(
    connection: sa.Connection,
    store_of: StoreOf,
    *,
    before: datetime,
    run_id: str | None,
    may_go_on: Iterator[bool],
    purged: PurgedFiles | None = None,
) -> PurgedFiles:
    """Permanently delete what was deleted before a moment, or all of one run; commits as it goes.

    Args:
        purged: to which files are added once that is recorded.
    """
    purged = PurgedFiles() if purged is None else purged
    last = 0
    while next(may_go_on):
        statement = sa.select(trashed_files).where(_due(before, run_id), trashed_files.c.id > last)
        statement = statement.order_by(trashed_files.c.id).limit(BATCH_FILES).with_for_update(skip_locked=True)
        found = connection.execute(statement).all()
        if not found:
            break
        last = found[-1].id
        undone = {name for name in {row.run_id for row in found} if not connection.scalar(try_lock(undo_lock(name)))}
        rows = [row for row in found if row.run_id not in undone]
        part = PurgedFiles()
        for store in sorted({row.store for row in rows}):
            mine = {row.trash_name: row for row in rows if row.store == store}
            gone, reasons = _remove(store_of, store, mine)
            part.failed |= {f"{store}/{name}": reason for name, reason in reasons.items()}
            ids = [mine[name].id for name in gone]
            connection.execute(sa.delete(trashed_files).where(trashed_files.c.id.in_(ids)))
            if gone:
                part.removed[store] = len(gone)
            part.bytes += sum(mine[name].bytes or 0 for name in gone)
        connection.commit()
        purged.add(part)
    connection.rollback()
    return purged


def _remove(store_of: StoreOf, store: str, names: Mapping[str, object]) -> tuple[set[str], dict[str, str]]:
    try:
        removal = store_of(store).storage.remove(sorted(names))
    except HousekeepingError as error:
        return set(), dict.fromkeys(names, error.one_line)
    return {*removal.removed, *removal.absent}, removal.failed


def _due(before: datetime, run_id: str | None) -> sa.ColumnElement[bool]:
    return trashed_files.c.run_id == run_id if run_id else trashed_files.c.deleted_at < before
