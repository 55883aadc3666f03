"""Delete expired sessions; their files follow through the outbox as soon as storage answers."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.drain import DrainResult, drain
from housekeeping_pipelines.deletion.rows import delete_rows
from housekeeping_pipelines.errors import HousekeepingError, Unavailable
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.execution.report import MAX_FAILED, FailedItem, interrupted
from housekeeping_pipelines.execution.run import BROKEN_OFF
from housekeeping_pipelines.sessions.policies import Expiry, expired_sessions
from housekeeping_pipelines.sessions.report import SessionReport
from housekeeping_pipelines.sessions.usage import quota_warning
from housekeeping_pipelines.stores.folders import BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.postgres.catalog import Catalog
    from housekeeping_pipelines.stores.uses import PlatformUses


def cleanup_files(
    run: Run,
    *,
    config: HousekeepingConfig,
    store_of: Callable[[str], Store],
    uses: PlatformUses,
    expiry: Expiry,
    limits: Limits,
    max_storage_bytes: int | None = None,
) -> SessionReport:
    """Delete expired sessions, the oldest first, and then their files.

    Storage that does not answer is a warning, and the files wait in the outbox. Storage that refuses makes the run
    `partial`.

    Raises:
        Refused: the sessions are the sample's, and the bucket is not.
    """
    if expiry.with_files:
        with run.connection.begin():
            uses.check_not_sample(run.connection)

    def policy(catalog: Catalog, now: datetime) -> RowPolicy:
        return expired_sessions(Platform(catalog, config), now, expiry, uses.may_mean)

    report = delete_rows(run, policy, limits, kind=SessionReport)
    if run.dry_run:
        return report
    run.connection.rollback()
    if expiry.with_files:
        report = _drained(run, report, store_of, limits)
        if max_storage_bytes is not None and expiry.session is None:
            report = _with_quota(report, store_of, max_storage_bytes)
    return replace(report, duration_seconds=run.elapsed_seconds)


def _drained(run: Run, report: SessionReport, store_of: Callable[[str], Store], limits: Limits) -> SessionReport:
    """Remove the files of the sessions, until none is left, time is up or deletion is paused."""
    drained, reason = DrainResult(), report.stopped_reason

    def may_go_on() -> bool:
        nonlocal reason
        stop = guards.reason_to_stop(run, limits.max_seconds)
        reason = stop or reason
        return stop is None

    ending = None
    try:
        drain(run.connection, store_of, run.clock, run_id=run.run_id, may_go_on=may_go_on, drained=drained)
    except BROKEN_OFF as error:
        ending = run.ending_of(error)
    report = replace(_with_files(report, drained), stopped_reason=reason)
    if reason == "interrupted":
        ending = interrupted(INTERRUPTION.name)
    if ending is None or report.status == "failed":
        return report
    return replace(report, **asdict(ending) | {"stopped_reason": ending.stopped_reason or reason})


def _with_files(report: SessionReport, drained: DrainResult) -> SessionReport:
    warnings = [
        f"storage is unavailable, its files wait in the outbox: {reason}" for reason in drained.unavailable.values()
    ]
    warnings += [f"{reason}: the files wait in the outbox" for reason in drained.disabled.values()]
    failed = (*report.failed, *(FailedItem(item, reason) for item, reason in drained.failed.items()))
    failed_count = report.failed_count + drained.failed_count
    status = "partial" if report.status == "succeeded" and drained.failed_count else report.status
    return replace(
        report,
        status=status,
        deleted=report.deleted | drained.gone,
        deleted_bytes=drained.gone_bytes,
        for_good=report.for_good | drained.permanently,
        failed=failed[:MAX_FAILED],
        failed_count=failed_count,
        warnings=(*report.warnings, *warnings),
    )


def _with_quota(report: SessionReport, store_of: Callable[[str], Store], max_bytes: int) -> SessionReport:
    try:
        usage = store_of(BUCKET).storage.usage()
    except Unavailable:
        # The removal of files reports it.
        return report
    except HousekeepingError as error:
        return replace(report, warnings=(*report.warnings, f"storage usage is unknown: {error.one_line}"))
    warning = quota_warning(usage.bytes, max_bytes)
    return replace(
        report,
        warnings=(*report.warnings, *([warning] if warning else [])),
        storage_bytes=usage.bytes,
        quota_used=round(usage.bytes / max_bytes, 4),
    )
