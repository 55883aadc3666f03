"""A task from its lock to its report."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.execution.progress import LogObserver, Observer
from housekeeping_pipelines.execution.report import Ending, Report
from housekeeping_pipelines.execution.run import BROKEN_OFF, Run, Started, ending_of
from housekeeping_pipelines.postgres.locks import task_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

logger = logging.getLogger(__name__)

SKIPPED = Ending("skipped", "another run is doing this now")


@dataclass(frozen=True)
class TaskRunner:
    """Runs tasks on the platform's database.

    Attributes:
        engine: the platform's database, as `postgres.engine` makes it.
        trashed: whether deleted rows are kept; False deletes permanently.
        every_run_is_dry: DRY_RUN.
        paused_by_setting: HOUSEKEEPING_PAUSED.
        compares_clocks: whether a clock that differs from the server's keeps a deletion from starting.
    """

    engine: sa.Engine
    trashed: bool = True
    every_run_is_dry: bool = False
    paused_by_setting: bool = False
    compares_clocks: bool = False
    observer: Observer = field(default_factory=LogObserver)
    clock: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic

    def run(
        self,
        task: str,
        run_id: str,
        body: Callable[[Run], Report],
        *,
        dry_run: bool = False,
        kind: type[Report] = Report,
        busy: Callable[[Run], Ending] = lambda _: SKIPPED,
    ) -> Report:
        """Do a task under its lock; a concurrent run of the same task is skipped. A dry run takes no lock.

        An error that a user or the database causes is not raised: the report's status says it. A signal ends the run
        after the step that it is in.

        Args:
            kind: the class of the report that `body` returns, and of one for a run that could not begin.
            busy: how a run ends while another has the lock.
        """
        dry_run = dry_run or self.every_run_is_dry
        started = Started(task, run_id, dry_run, self.clock(), self.monotonic(), self.monotonic)
        logger.info("%s: starts%s", task, ", dry run" if dry_run else "")
        try:
            with INTERRUPTION.listening(), INTERRUPTION.task(), self.engine.connect() as connection:
                run = self._on(connection, started)
                if dry_run:
                    report = body(run)
                else:
                    with task_lock(connection, task) as taken:
                        report = body(run) if taken else run.report(busy(run), kind=kind)
        except BROKEN_OFF as error:
            report = started.report(ending_of(error, self.engine.url), kind=kind)
        _log(report)
        return report

    def _on(self, connection: sa.Connection, started: Started) -> Run:
        return Run(
            **vars(started),
            connection=connection,
            observer=self.observer,
            clock=self.clock,
            trashed=self.trashed,
            paused_by_setting=self.paused_by_setting,
            compares_clocks=self.compares_clocks,
        )


def _log(report: Report) -> None:
    """One line of what a run did."""
    level = logging.INFO if report.status in ("succeeded", "skipped") else logging.ERROR
    logger.log(
        level,
        "%s: %s%s; %s in %.1f s%s",
        report.task,
        report.status,
        f" (stopped by {report.stopped_reason})" if report.stopped_reason else "",
        report.summary,
        report.duration_seconds,
        f"; {report.message}" if report.message else "",
    )
