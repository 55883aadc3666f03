"""One task's run over the platform's database, from its lock to its report."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.deletion.holds import OwnerPaths
from housekeeping_pipelines.deletion.plan import make_plan
from housekeeping_pipelines.deletion.rows import RowDeletion
from housekeeping_pipelines.deletion.trash import MIRRORS_LOCK
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.progress import LogObserver, Observer
from housekeeping_pipelines.execution.report import Report, Run, ended_by
from housekeeping_pipelines.postgres import errors as database_errors
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.postgres.locks import shared_lock, task_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.deletion.policy import RowPolicy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Housekeeper:
    """What every task needs of its surroundings.

    Attributes:
        engine: the platform's database, with the session settings of `resources.database`.
        trashed: whether deleted rows are kept; False deletes for good.
        every_run_is_dry: DRY_RUN.
        paused_by_setting: HOUSEKEEPING_PAUSED.
    """

    engine: sa.Engine
    trashed: bool = True
    every_run_is_dry: bool = False
    paused_by_setting: bool = False
    observer: Observer = field(default_factory=LogObserver)
    clock: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic

    def delete(
        self,
        task: str,
        run_id: str,
        make_policy: Callable[[Catalog, datetime], RowPolicy],
        limits: Limits,
        *,
        dry_run: bool = False,
    ) -> Report:
        """Delete what a policy selects.

        Never raises for what a user or the database can cause: the report's status says it.
        """
        return self.perform(
            task,
            run_id,
            lambda run, connection: self.delete_rows(run, connection, make_policy, limits),
            dry_run=dry_run,
        )

    def delete_rows(
        self,
        run: Run,
        connection: sa.Connection,
        make_policy: Callable[[Catalog, datetime], RowPolicy],
        limits: Limits,
    ) -> Report:
        """Delete what a policy selects, inside `perform`."""
        if run.dry_run:
            connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            connection.commit()
        catalog = Catalog(connection)
        policy = make_policy(catalog, self.clock())
        plan = make_plan(catalog, policy.table, policy.undeclared, policy.follows)
        owners = OwnerPaths(catalog, policy.users, [*catalog.foreign_keys, *policy.undeclared])
        connection.commit()
        with ExitStack() as stack:
            if self.trashed and not run.dry_run:
                stack.enter_context(shared_lock(connection, MIRRORS_LOCK))
            return RowDeletion(
                run=run,
                connection=connection,
                policy=policy,
                plan=plan,
                limits=limits,
                owners=owners,
                observer=self.observer,
                trashed=self.trashed,
                paused_by_setting=self.paused_by_setting,
                clock=self.clock,
                monotonic=self.monotonic,
            ).execute()

    def perform(
        self,
        task: str,
        run_id: str,
        body: Callable[[Run, sa.Connection], Report],
        *,
        dry_run: bool = False,
    ) -> Report:
        """Do a task under its lock; who comes second is skipped. A dry run takes no lock and blocks nobody."""
        dry_run = dry_run or self.every_run_is_dry
        run = Run(task, run_id, dry_run, self.clock(), self.monotonic(), self.monotonic)
        logger.info("%s: starts%s", task, ", dry run" if dry_run else "")
        try:
            with self.engine.connect() as connection:
                if dry_run:
                    report = body(run, connection)
                else:
                    with task_lock(connection, task) as taken:
                        if taken:
                            report = body(run, connection)
                        else:
                            report = run.report("skipped", message="another run is doing this now")
        except HousekeepingError as error:
            report = run.report(**ended_by(error))
        except sa.exc.DBAPIError as error:
            report = run.report(**ended_by(database_errors.explain(error, self.engine.url)))
        log_report(report)
        return report


def log_report(report: Report) -> None:
    """One line of what a run did."""
    level = logging.INFO if report.status in ("succeeded", "skipped") else logging.ERROR
    logger.log(
        level,
        "%s: %s%s; %s in %.1f s%s",
        report.task,
        report.status,
        f" (stopped by {report.stopped_reason})" if report.stopped_reason else "",
        report.in_short,
        report.duration_seconds,
        f"; {report.message}" if report.message else "",
    )
