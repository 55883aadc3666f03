"""The trash: what it holds, and the purge of what has expired.

Each row in a mirror carries the number of the transaction that deleted it, and undo reverses these transactions, the
last first. So the trash expires by whole transactions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

from housekeeping_pipelines.deletion.mirrors import (
    BATCH_COLUMN,
    find_mirrors,
    prefer_indexes,
)
from housekeeping_pipelines.deletion.tables import trash_batches, trash_references, trashed_files
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.postgres.arrays import is_one_of
from housekeeping_pipelines.postgres.locks import is_locked
from housekeeping_pipelines.retries import retry_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from housekeeping_pipelines.execution.run import Run

# How long a server may take to come back after a crash, until a run ends without a count.
RECOVERY_SECONDS = 30.0

# Rows that one transaction of the purge removes: well under two seconds of work.
PURGE_ROWS = 50_000


def undo_lock(run_id: str) -> str:
    """Held by an undo of the run, in share mode, from its files to its rows, and by the purge, exclusively, from its
    rows to its files; the purge passes over a run whose lock it does not get."""
    return f"undo {run_id}"


def runs_being_undone(connection: sa.Connection) -> list[str]:
    """The runs in the trash whose undo is going on."""
    known = sa.union(sa.select(trash_batches.c.run_id), sa.select(trashed_files.c.run_id))
    return [name for name in sorted(connection.scalars(known)) if is_locked(connection, undo_lock(name))]


@dataclass(frozen=True, slots=True)
class TrashedRun:
    """What one task of one run left in the trash."""

    run_id: str
    task: str
    deleted_at: datetime
    expires_at: datetime
    rows: int
    files: int
    bytes: int


def list_trash(connection: sa.Connection, retention: timedelta) -> list[TrashedRun]:
    """Every run that has rows or files in the trash, the latest first."""
    statement = sa.text(
        "SELECT run_id, task, max(deleted_at) AS deleted_at, sum(rows)::bigint AS rows, sum(files)::bigint AS files,"
        " sum(bytes)::bigint AS bytes FROM ("
        "SELECT run_id, task, deleted_at, coalesce((SELECT sum((item ->> 1)::bigint)"
        " FROM jsonb_array_elements(contents) item), 0) AS rows, 0 AS files, 0 AS bytes FROM housekeeping.trash_batches"
        " UNION ALL SELECT run_id, task, deleted_at, 0, 1, coalesce(bytes, 0) FROM housekeeping.trashed_files"
        ") AS everything GROUP BY run_id, task ORDER BY max(deleted_at) DESC, task"
    )
    return [
        TrashedRun(r.run_id, r.task, r.deleted_at, r.deleted_at + retention, int(r.rows), int(r.files), int(r.bytes))
        for r in connection.execute(statement)
    ]


def count_after_a_crash(run: Run) -> dict[tuple[str, str], int] | None:
    """The rows of a run in the trash, by schema and table, once the server answers again; None if it does not."""
    statement = sa.text(
        "SELECT t.source_schema, t.source_table, sum((item ->> 1)::bigint)::bigint FROM housekeeping.trash_batches b"
        " CROSS JOIN jsonb_array_elements(b.contents) item"
        " JOIN housekeeping.trash_tables t ON t.id = (item ->> 0)::bigint"
        " WHERE b.run_id = :run_id AND b.task = :task GROUP BY 1, 2 ORDER BY 1, 2"
    )
    try:
        for attempt in retry_context(on=sa.exc.DBAPIError, attempts=None, timeout=RECOVERY_SECONDS, wait_max=2.0):
            with attempt, run.connection.engine.connect() as connection:
                rows = connection.execute(statement, {"run_id": run.run_id, "task": run.task}).all()
                return {(schema, name): count for schema, name, count in rows}
    except sa.exc.DBAPIError:
        pass
    return None


def tables_in_trash(connection: sa.Connection) -> list[str]:
    """The tables that the trash has rows of."""
    statement = sa.text(
        "SELECT DISTINCT t.source_table FROM housekeeping.trash_batches b"
        " CROSS JOIN jsonb_array_elements(b.contents) item"
        " JOIN housekeeping.trash_tables t ON t.id = (item ->> 0)::bigint ORDER BY 1"
    )
    return list(connection.scalars(statement))


def count_expired(connection: sa.Connection, *, before: datetime, run_id: str | None = None) -> dict[str, int]:
    """Rows that `purge` would remove, by source table."""
    statement = sa.text(
        "SELECT t.source_table, sum((item ->> 1)::bigint)::bigint FROM housekeeping.trash_batches b"
        " CROSS JOIN jsonb_array_elements(b.contents) item"
        " JOIN housekeeping.trash_tables t ON t.id = (item ->> 0)::bigint"
        " WHERE CASE WHEN :run_id IS NULL THEN deleted_at < :before ELSE run_id = :run_id END GROUP BY 1 ORDER BY 1"
    ).bindparams(sa.bindparam("run_id", run_id, sa.Text), sa.bindparam("before", before, TIMESTAMP(timezone=True)))
    return {row[0]: row[1] for row in connection.execute(statement)}


def purge_rows(
    connection: sa.Connection,
    runs: Sequence[str],
    *,
    before: datetime | None,
    may_go_on: Callable[[], bool] = lambda: True,
    removed: dict[str, int] | None = None,
) -> dict[str, int]:
    """Permanently delete the rows that some runs deleted, all or those before a moment; commits as it goes.

    The caller holds the undo locks of the runs.

    Args:
        removed: to which the rows of each transaction are added once it is committed.

    Returns:
        deleted rows by source table.
    """
    due = trash_batches.c.run_id == sa.any_(sa.bindparam("runs", list(runs), ARRAY(sa.Text)))
    if before is not None:
        due = sa.and_(due, trash_batches.c.deleted_at < before)
    removed = {} if removed is None else removed
    while may_go_on():
        with INTERRUPTION.step():
            if not _purge_batch(connection, due, removed):
                break
    connection.rollback()
    return removed


def _purge_batch(connection: sa.Connection, due: sa.ColumnElement[bool], removed: dict[str, int]) -> bool:
    """One transaction; False if nothing was due."""
    statement = sa.select(trash_batches.c.id, trash_batches.c.contents).where(due)
    statement = statement.order_by(trash_batches.c.id).limit(1000).with_for_update(skip_locked=True)
    batches = _up_to(PURGE_ROWS, [(row.id, row.contents) for row in connection.execute(statement)])
    if not batches:
        return False
    mirrors = {mirror.id: mirror for mirror in find_mirrors(connection)}
    ids = [batch_id for batch_id, _ in batches]
    prefer_indexes(connection)
    part: dict[str, int] = {}
    for mirror_id in sorted({mirror_id for _, contents in batches for mirror_id, _ in contents}):
        mirror = mirrors[mirror_id]
        batch = mirror.selectable.c[BATCH_COLUMN]
        # The index is searched once, for the range, and not for each number of the list.
        which = sa.and_(batch.between(ids[0], ids[-1]), is_one_of(batch + 0, ids))
        gone = connection.execute(sa.delete(mirror.selectable).where(which))
        part[mirror.source_table] = part.get(mirror.source_table, 0) + gone.rowcount
    connection.execute(sa.delete(trash_references).where(is_one_of(trash_references.c.batch_id, ids)))
    connection.execute(sa.delete(trash_batches).where(is_one_of(trash_batches.c.id, ids)))
    connection.commit()
    for table, count in part.items():
        removed[table] = removed.get(table, 0) + count
    return True


def _up_to(rows: int, batches: Sequence[tuple[int, list[list[int]]]]) -> list[tuple[int, list[list[int]]]]:
    taken: list[tuple[int, list[list[int]]]] = []
    for batch_id, contents in batches:
        rows -= sum(count for _, count in contents)
        if taken and rows < 0:
            break
        taken.append((batch_id, contents))
    return taken
