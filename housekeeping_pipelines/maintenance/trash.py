"""Undo a run and purge the trash, as tasks with reports."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.file_undo import count_files, purge_files, restore_files
from housekeeping_pipelines.deletion.mirrors import MIRRORS_LOCK
from housekeeping_pipelines.deletion.trash import count_expired, purge, undo_lock
from housekeeping_pipelines.deletion.undo import UndoResult, find_run, undo_run
from housekeeping_pipelines.errors import Refused
from housekeeping_pipelines.execution.tally import Tally
from housekeeping_pipelines.maintenance.report import UndoReport
from housekeeping_pipelines.postgres.locks import shared_lock
from housekeeping_pipelines.stores.restored import restore_files_of_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.execution.report import Report
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.stores.restored import FilesOfRows
    from housekeeping_pipelines.stores.stores import Stores


# Missing files that a warning names.
SHOWN_MISSING = 5

_STILL_DUE = (
    "restored data that still matches a policy is deleted again by its next run: put a hold on it"
    " (`housekeeping hold add`) or lengthen its retention"
)


def undo(
    run: Run,
    run_id: str,
    stores: Stores,
    for_good: Callable[[str], Iterable[Mapping[str, int]]] = lambda _: (),
) -> Report:
    """Restore a run's files and rows; `partial` if something could not be restored and stays in the trash.

    Files that the rows name come back too if another run has moved them to the trash since; those that are nowhere are
    warned of.

    Args:
        for_good: returns what the run's tasks report as deleted permanently, so that the report can name it.

    Raises:
        ConfigurationError: the trash has nothing of the run.
        Refused: DRY_RUN is true.
    """
    if run.dry_run:
        raise Refused("nothing is restored while DRY_RUN is true", hint="set DRY_RUN=false")
    connection = run.connection
    found = find_run(connection, run_id)
    connection.rollback()
    files = UndoResult(found)
    with shared_lock(connection, MIRRORS_LOCK), shared_lock(connection, undo_lock(found)):
        restore_files(connection, found, stores.__getitem__, files)
        of_rows = restore_files_of_rows(connection, found, stores.uses, stores.__getitem__)
        result = undo_run(connection, found)
    result.restored |= _sum(files.restored, of_rows.restored)
    for conflict in files.conflicts:
        result.conflict(conflict.item, conflict.reason)
    result.conflict_count += files.conflict_count - len(files.conflicts)
    tally = Tally(failed=list(result.conflicts), failed_count=result.conflict_count)
    tally.warnings += _about_files(of_rows)
    tally.warnings += [
        f"{count:,} of {name} were deleted permanently and cannot be restored"
        for counts in for_good(found)
        for name, count in counts.items()
    ]
    if result.restored:
        tally.warnings.append(_STILL_DUE)
    return tally.report(
        run, kind=UndoReport, undone_run_id=found, restored=result.restored, conflicts=tuple(result.conflicts)
    )


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _about_files(found: FilesOfRows) -> Iterator[str]:
    if found.missing_count:
        shown = ", ".join(found.missing[:SHOWN_MISSING])
        more = f" and {found.missing_count - SHOWN_MISSING:,} more" if found.missing_count > SHOWN_MISSING else ""
        yield f"{found.missing_count:,} files that restored rows name do not exist: {shown}{more}"
    for store, reason in found.unknown.items():
        yield f"whether the files that restored rows name are in {store} is unknown: {reason}"


def purge_trash(
    run: Run,
    *,
    store_of: Callable[[str], Store],
    retention_days: int,
    run_id: str | None,
) -> Report:
    """Purge what was deleted more than `retention_days` ago, or everything of one run."""
    before = run.started_at - timedelta(days=retention_days)
    connection = run.connection
    guards.check_not_paused(connection, by_setting=run.paused_by_setting)
    found = find_run(connection, run_id) if run_id else None
    due = count_expired(connection, before=before, run_id=found) | count_files(connection, before=before, run_id=found)
    connection.rollback()
    tally = Tally(candidates=sum(due.values()))
    if run.dry_run:
        tally.would_delete = due
        return tally.report(run)

    def may_go_on() -> Iterator[bool]:
        while True:
            tally.stopped_reason = "paused" if guards.is_paused(connection) else None
            yield tally.stopped_reason is None

    going_on = may_go_on()
    removed = purge(connection, before=before, run_id=found, may_go_on=going_on)
    files, size, failed = purge_files(connection, store_of, before=before, run_id=found, may_go_on=going_on)
    tally.deleted, tally.deleted_bytes = removed | files, size
    for name, reason in failed.items():
        tally.fail(name, reason)
    return tally.report(run)
