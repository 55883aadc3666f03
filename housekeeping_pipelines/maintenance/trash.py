"""Undo a run and purge the trash, as tasks with reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.application.config import STORES
from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.file_trash import count_files
from housekeeping_pipelines.deletion.file_undo import restore_files
from housekeeping_pipelines.deletion.leftovers import settle_leftovers
from housekeeping_pipelines.deletion.mirrors import MIRRORS_LOCK
from housekeeping_pipelines.deletion.purge import Purged, purge
from housekeeping_pipelines.deletion.tables import kept_files
from housekeeping_pipelines.deletion.trash import count_expired, runs_being_undone, undo_lock
from housekeeping_pipelines.deletion.undo import UndoResult, find_run, undo_run
from housekeeping_pipelines.errors import HousekeepingError, Refused, Unavailable
from housekeeping_pipelines.execution.report import Ending
from housekeeping_pipelines.execution.run import BROKEN_OFF
from housekeeping_pipelines.execution.tally import Tally
from housekeeping_pipelines.maintenance.report import UndoReport
from housekeeping_pipelines.postgres.locks import shared_lock
from housekeeping_pipelines.stores.restored import FilesOfRows, restore_files_of_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.execution.report import Report
    from housekeeping_pipelines.execution.run import Run
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
    reports_of: Callable[[str], Iterable[Report]] = lambda _: (),
) -> Report:
    """Restore a run's files and rows; `partial` if something could not be restored and stays in the trash.

    Files that the rows name come back too if another run has moved them to the trash since; those that are nowhere are
    warned of.

    Args:
        reports_of: returns the reports of the run's tasks, so that what cannot come back is named.

    Raises:
        ConfigurationError: the trash has nothing of the run.
        Refused: DRY_RUN is true.
    """
    if run.dry_run:
        raise Refused("nothing is restored while DRY_RUN is true", hint="set DRY_RUN=false")
    connection = run.connection
    found = find_run(connection, run_id)
    reports = list(reports_of(found))
    no_longer_there = _no_longer_there(connection, found, reports)
    connection.rollback()
    files, result, of_rows, ending = UndoResult(found), UndoResult(found), FilesOfRows(), None

    def may_go_on() -> bool:
        return run.has_to_stop() is None

    try:
        with shared_lock(connection, MIRRORS_LOCK), shared_lock(connection, undo_lock(found)):
            restore_files(connection, found, stores.__getitem__, files, now=run.clock(), may_go_on=may_go_on)
            if may_go_on():
                of_rows = restore_files_of_rows(connection, found, stores.uses, stores.__getitem__)
                undo_run(connection, found, result=result, may_go_on=may_go_on)
            if may_go_on() and not files.conflict_count + result.conflict_count:
                # Their rows keep them again, as long as these exist.
                connection.execute(sa.delete(kept_files).where(kept_files.c.run_id == found))
                connection.commit()
    except BROKEN_OFF as error:
        ending = run.ending_of(error)
    result.restored |= _sum(files.restored, of_rows.restored)
    for conflict in files.conflicts:
        result.conflict(conflict.item, conflict.reason)
    result.conflict_count += files.conflict_count - len(files.conflicts)
    tally = Tally(failed=list(result.conflicts), failed_count=result.conflict_count, stopped_reason=run.has_to_stop())
    tally.warnings += _about_files(of_rows)
    tally.warnings += [
        f"{count:,} of {name} were deleted permanently and cannot be restored"
        for report in reports
        for name, count in report.for_good.items()
    ]
    tally.warnings += no_longer_there
    if result.restored:
        tally.warnings.append(_STILL_DUE)
    return tally.report(
        run, ending, kind=UndoReport, undone_run_id=found, restored=result.restored, conflicts=tuple(result.conflicts)
    )


def _no_longer_there(connection: sa.Connection, run_id: str, reports: Iterable[Report]) -> list[str]:
    """What the trash has lost of a run since."""
    deleted = sum(sum(each.deleted.values()) - sum(each.for_good.values()) for each in reports if not each.dry_run)
    never = datetime.min.replace(tzinfo=UTC)
    there = count_expired(connection, before=never, run_id=run_id), count_files(connection, before=never, run_id=run_id)
    missing = deleted - sum(sum(counts.values()) for counts in there)
    if missing <= 0:
        return []
    what = f"{missing:,} of the {deleted:,} rows and files that the run deleted"
    return [f"{what} are no longer in the trash: they have expired, or an earlier undo brought them back"]


def busy(run: Run) -> Ending:
    """How an undo ends that cannot start: it is not done, so that this is a failure."""
    others = runs_being_undone(run.connection)
    run.connection.rollback()
    which = f" of run {', '.join(others)}" if others else ""
    return Ending.of(Unavailable(f"another undo{which} is going on", hint="run it again when that has ended"))


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
    """Purge what was deleted more than `retention_days` ago, or everything of one run.

    Files in the trash that no record knows are put on record first: those of the run go with it, the others expire from
    now on.
    """
    before = run.started_at - timedelta(days=retention_days)
    connection = run.connection
    guards.check_may_start(run)
    found = find_run(connection, run_id) if run_id else None
    connection.rollback()
    warnings = [] if run.dry_run else list(_settle(run, store_of, found))
    due = count_expired(connection, before=before, run_id=found) | count_files(connection, before=before, run_id=found)
    connection.rollback()
    tally = Tally(candidates=sum(due.values()), warnings=warnings)
    if run.dry_run:
        tally.would_delete = due
        return tally.report(run)

    def may_go_on() -> bool:
        tally.stopped_reason = guards.reason_to_stop(run)
        return tally.stopped_reason is None

    purged, ending = Purged(), None
    try:
        purge(connection, store_of, before=before, run_id=found, may_go_on=may_go_on, purged=purged)
    except BROKEN_OFF as error:
        ending = run.ending_of(error)
    tally.deleted, tally.deleted_bytes = _sum(purged.rows, purged.files.removed), purged.files.bytes
    if purged.being_undone:
        tally.warnings.append(f"an undo is going on, which keeps what is left of run {', '.join(purged.being_undone)}")
    tally.warnings += [f"{reason}: the trash of {name} stays" for name, reason in purged.files.disabled.items()]
    for name, reason in purged.files.failed.items():
        tally.fail(name, reason)
    return tally.report(run, ending)


def _settle(run: Run, store_of: Callable[[str], Store], run_id: str | None) -> Iterator[str]:
    """Put on record what no record knows in the trash of the stores; yields warnings."""
    for name in STORES:
        try:
            found = settle_leftovers(run.connection, store_of(name), run.clock(), run_id=run_id)
        except HousekeepingError as error:
            yield f"whether the trash of {name} has files that are not on record is unknown: {error.one_line}"
            continue
        for of_run, count in found.recorded.items():
            yield (
                f"{count:,} files in the trash of {name} were not on record: they are in it as those of run {of_run},"
                f" which `housekeeping undo {of_run}` brings back"
            )
        for of_run, count in found.moved_back.items():
            yield f"{count:,} files of run {of_run} in the trash of {name} are back: something refers to them"
        for item, reason in found.failed.items():
            yield f"{item} is not on record and stays in the trash: {reason}"
