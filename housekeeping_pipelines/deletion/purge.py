"""The purge: what has expired in the trash is deleted for good, the rows of some runs and then their files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.deletion.file_trash import PurgedFiles, purge_files
from housekeeping_pipelines.deletion.mirrors import drop_if_empty, find_mirrors, keep_publishable, summarize_mirrors
from housekeeping_pipelines.deletion.tables import trash_batches, trashed_files
from housekeeping_pipelines.deletion.trash import purge_rows, undo_lock
from housekeeping_pipelines.postgres.locks import locks_to_be_had

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from housekeeping_pipelines.deletion.store import Store

# Runs whose undo waits meanwhile. Each is a lock of the server, which by default has room for 64 a connection.
_RUNS = 50


@dataclass
class Purged:
    """What a purge deleted.

    Attributes:
        rows: by table.
        being_undone: runs that keep what is left of them, because their undo is going on.
    """

    rows: dict[str, int] = field(default_factory=dict)
    files: PurgedFiles = field(default_factory=PurgedFiles)
    being_undone: list[str] = field(default_factory=list)


def purge(
    connection: sa.Connection,
    store_of: Callable[[str], Store],
    *,
    before: datetime,
    run_id: str | None = None,
    may_go_on: Callable[[], bool] = lambda: True,
    purged: Purged | None = None,
) -> Purged:
    """Permanently delete what was deleted before a moment, or the whole of one run; commits as it goes.

    Args:
        purged: to which the rows and files of each transaction are added once it is committed.
    """
    purged = Purged() if purged is None else purged
    keep_publishable(connection)
    summarize_mirrors(connection)
    connection.commit()
    moment = None if run_id else before
    due = [run_id] if run_id else due_runs(connection, before)
    for first in range(0, len(due), _RUNS):
        runs = due[first : first + _RUNS]
        # From the rows to the files, so that no undo brings back the one without the other.
        with locks_to_be_had(connection, [undo_lock(run) for run in runs]) as held:
            mine = [run for run in runs if undo_lock(run) in held]
            purged.being_undone += sorted({*runs} - {*mine})
            purge_rows(connection, mine, before=moment, may_go_on=may_go_on, removed=purged.rows)
            purge_files(connection, store_of, mine, before=moment, may_go_on=may_go_on, purged=purged.files)
        if not may_go_on():
            break
    connection.rollback()
    for mirror in find_mirrors(connection):
        drop_if_empty(connection, mirror)
    return purged


def due_runs(connection: sa.Connection, before: datetime) -> list[str]:
    """The runs that have something in the trash from before a moment."""
    tables = (trash_batches, trashed_files)
    due = [sa.select(table.c.run_id).where(table.c.deleted_at < before) for table in tables]
    runs = list(connection.scalars(sa.union(*due)))
    connection.rollback()
    return sorted(runs)
