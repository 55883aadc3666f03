"""The trash of files: what it holds, and the purge of what has expired."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.deletion.file_outbox import BATCH_FILES
from housekeeping_pipelines.deletion.tables import trashed_files
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.postgres.arrays import is_one_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from housekeeping_pipelines.deletion.store import Store

    StoreOf = Callable[[str], Store]


class Trashed(NamedTuple):
    """A file that a run moved to the trash."""

    run_id: str
    task: str
    name: str
    trash_name: str
    bytes: int | None


def record(connection: sa.Connection, store: str, files: Sequence[Trashed], deleted_at: datetime) -> None:
    """Record files of the trash; the caller commits."""
    kinds = {"run_id": "text[]", "task": "text[]", "name": "text[]", "trash_name": "text[]", "bytes": "bigint[]"}
    given = rows_of(**{name: (kind, [getattr(each, name) for each in files]) for name, kind in kinds.items()})
    values = sa.select(sa.literal(store, sa.Text), sa.literal(deleted_at), *given.c)
    connection.execute(sa.insert(trashed_files).from_select(["store", "deleted_at", *kinds], values))


def in_trash(connection: sa.Connection, store: str, names: Sequence[str]) -> set[str]:
    """Those of the names that are files of the trash, which may be where an earlier setting put it."""
    wanted = sa.bindparam("names", list(names), ARRAY(sa.Text))
    statement = sa.select(trashed_files.c.trash_name).where(
        trashed_files.c.store == store, trashed_files.c.trash_name == sa.any_(wanted)
    )
    return set(connection.scalars(statement))


def count_files(connection: sa.Connection, *, before: datetime, run_id: str | None) -> dict[str, int]:
    """Files that a purge would remove, by store."""
    which = trashed_files.c.run_id == run_id if run_id else trashed_files.c.deleted_at < before
    statement = sa.select(trashed_files.c.store, sa.func.count()).where(which)
    return {row[0]: row[1] for row in connection.execute(statement.group_by(trashed_files.c.store))}


@dataclass
class PurgedFiles:
    """What a purge removed: files by store, and their bytes.

    Attributes:
        failed: `store/name in the trash` -> why it stayed.
        disabled: stores from which nothing is removed, with the reason.
    """

    removed: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)

    def add(self, other: PurgedFiles) -> None:
        """Add what one transaction recorded."""
        for store, count in other.removed.items():
            self.removed[store] = self.removed.get(store, 0) + count
        self.bytes += other.bytes
        self.failed |= other.failed
        self.disabled |= other.disabled


def purge_files(
    connection: sa.Connection,
    store_of: StoreOf,
    runs: Sequence[str],
    *,
    before: datetime | None,
    may_go_on: Callable[[], bool] = lambda: True,
    purged: PurgedFiles | None = None,
) -> PurgedFiles:
    """Permanently delete what some runs deleted, all or what they did before a moment; commits as it goes.

    The caller holds the undo locks of the runs.

    Args:
        purged: to which files are added once that is recorded.
    """
    purged = PurgedFiles() if purged is None else purged
    last = 0
    while may_go_on():
        with INTERRUPTION.step():
            last = _purge_batch(connection, store_of, sa.and_(due(runs, before), trashed_files.c.id > last), purged)
        if not last:
            break
    connection.rollback()
    return purged


def _purge_batch(
    connection: sa.Connection, store_of: StoreOf, which: sa.ColumnElement[bool], purged: PurgedFiles
) -> int:
    """Returns the number of the last file; 0 if there was none."""
    statement = sa.select(trashed_files).where(which).order_by(trashed_files.c.id).limit(BATCH_FILES)
    found = connection.execute(statement.with_for_update(skip_locked=True)).all()
    part = PurgedFiles()
    for store in sorted({row.store for row in found}):
        mine = {row.trash_name: row for row in found if row.store == store}
        try:
            opened = store_of(store)
        except HousekeepingError as error:
            part.failed |= {f"{store}/{name}": error.one_line for name in mine}
            continue
        if opened.disabled is not None:
            part.disabled[store] = opened.disabled
            continue
        removed, absent, reasons = _remove(opened, mine)
        part.failed |= {f"{store}/{name}": reason for name, reason in reasons.items()}
        ids = [mine[name].id for name in removed | absent]
        connection.execute(sa.delete(trashed_files).where(is_one_of(trashed_files.c.id, ids)))
        if removed:
            part.removed[store] = len(removed)
        part.bytes += sum(mine[name].bytes or 0 for name in removed)
    connection.commit()
    purged.add(part)
    return found[-1].id if found else 0


def _remove(store: Store, names: Mapping[str, object]) -> tuple[frozenset[str], frozenset[str], dict[str, str]]:
    try:
        removal = store.storage.remove(sorted(names))
    except HousekeepingError as error:
        return frozenset(), frozenset(), dict.fromkeys(names, error.one_line)
    return removal.removed, removal.absent, removal.failed


def due(runs: Sequence[str], before: datetime | None) -> sa.ColumnElement[bool]:
    """Which files of some runs a purge removes."""
    mine = trashed_files.c.run_id == sa.any_(sa.bindparam("runs", list(runs), ARRAY(sa.Text)))
    return mine if before is None else sa.and_(mine, trashed_files.c.deleted_at < before)
