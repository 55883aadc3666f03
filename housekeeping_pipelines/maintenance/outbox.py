"""Drain the outbox, as a task with a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.drain import DrainResult, count_due, drain, stuck
from housekeeping_pipelines.execution.database import probe
from housekeeping_pipelines.execution.report import FailedItem
from housekeeping_pipelines.execution.run import BROKEN_OFF
from housekeeping_pipelines.execution.tally import Tally
from housekeeping_pipelines.migrations import HEAD, current_revision
from housekeeping_pipelines.stores.stores import Stores

if TYPE_CHECKING:
    from collections.abc import Callable

    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.execution.report import Report
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.settings import Settings

# A sensor needs no exact count.
PROBE_LIMIT = 10_000


def drain_outbox(
    run: Run,
    store_of: Callable[[str], Store],
) -> Report:
    """Remove the files in the outbox; a store that does not answer is a warning, one that refuses is a failure."""
    connection = run.connection
    guards.check_not_paused(connection, by_setting=run.paused_by_setting)
    due = count_due(connection, run.clock())
    connection.commit()
    tally = Tally(scanned=due, candidates=due)
    if run.dry_run:
        tally.would_delete = {"files": due} if due else {}
        return tally.report(run)

    def may_go_on() -> bool:
        tally.stopped_reason = guards.reason_to_stop(run)
        return tally.stopped_reason is None

    drained, left, ending = DrainResult(), [], None
    try:
        drain(connection, store_of, run.clock, may_go_on=may_go_on, drained=drained)
        left = stuck(connection)
        connection.commit()
    except BROKEN_OFF as error:
        ending = run.ending_of(error)
    tally.deleted, tally.deleted_bytes = drained.gone, drained.gone_bytes
    tally.for_good = drained.permanently
    tally.skipped |= {"in_use": drained.in_use, "held": drained.held}
    tally.failed = [FailedItem(item, reason) for item, reason in drained.failed.items()]
    tally.failed_count = drained.failed_count
    unavailable = drained.unavailable.items()
    tally.warnings += [f"{store}: {reason}; its files wait in the outbox" for store, reason in unavailable]
    tally.warnings += [f"{store}: {reason}; its files wait in the outbox" for store, reason in drained.disabled.items()]
    tally.warnings += [f"{item} still cannot be removed: {reason}" for item, reason in left]
    return tally.report(run, ending)


def probe_due(settings: Settings) -> int:
    """How many entries are due, at most PROBE_LIMIT; read-only, with a statement timeout.

    Raises:
        HousekeepingError: the database does not answer in time.
    """
    with probe(settings) as connection:
        if current_revision(connection) != HEAD:
            return 0
        return count_due(connection, utc_now(), limit=PROBE_LIMIT, without=Stores(settings).disabled)
