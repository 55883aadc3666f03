"""Undo and expiry as tasks with reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.locks import shared_lock
from housekeeping_pipelines.deletion.report import FailedItem, Report
from housekeeping_pipelines.deletion.trash import MIRRORS_LOCK, count_expired, purge
from housekeeping_pipelines.deletion.undo import Conflict, find_run, undo_run
from housekeeping_pipelines.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

    from housekeeping_pipelines.deletion.run import Run


_STILL_DUE = (
    "what came back still matches the policy that took it: the next run takes it again, unless you hold it"
    " (`housekeeping hold add`) or give it a longer life"
)


@dataclass(frozen=True, kw_only=True)
class UndoReport(Report):
    """A report with what came back by table; `run_id` is the undo's own, `undone_run_id` the one undone."""

    undone_run_id: str = ""
    restored: dict[str, int] = field(default_factory=dict)
    conflicts: tuple[Conflict, ...] = ()


def undo(run: Run, connection: sa.Connection, run_id: str) -> Report:
    """Bring a run's deletions back; `partial` when something had to stay in the trash.

    Raises:
        ConfigurationError: the trash has nothing of such a run.
        Refused: DRY_RUN is true.
    """
    if run.dry_run:
        raise Refused("nothing is brought back while DRY_RUN is true", hint="set DRY_RUN=false")
    found = find_run(connection, run_id)
    connection.rollback()
    with shared_lock(connection, MIRRORS_LOCK):
        result = undo_run(connection, found)
    return run.report(
        "partial" if result.conflict_count else "succeeded",
        kind=UndoReport,
        undone_run_id=found,
        restored=result.restored,
        conflicts=tuple(result.conflicts),
        failed=tuple(FailedItem(c.item, c.reason) for c in result.conflicts),
        failed_count=result.conflict_count,
        warnings=(_STILL_DUE,) if result.restored else (),
    )


def purge_trash(
    run: Run, connection: sa.Connection, *, retention_days: int, run_id: str | None, paused_by_setting: bool
) -> Report:
    """Remove for good what was deleted longer ago than `retention_days`, or the whole of one run."""
    before = run.started_at - timedelta(days=retention_days)
    guards.check_not_paused(connection, by_setting=paused_by_setting)
    found = find_run(connection, run_id) if run_id else None
    due = count_expired(connection, before=before, run_id=found)
    connection.rollback()
    if run.dry_run:
        return run.report("succeeded", candidates=sum(due.values()), would_delete=due)
    paused = False

    def may_go_on() -> Iterator[bool]:
        nonlocal paused
        while True:
            paused = guards.is_paused(connection)
            yield not paused

    removed = purge(connection, before=before, run_id=found, may_go_on=may_go_on())
    return run.report(
        "succeeded",
        candidates=sum(due.values()),
        deleted=removed,
        stopped_reason="paused" if paused else None,
    )
