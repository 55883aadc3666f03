"""The statistics snapshot in Dagster."""

import dagster as dg

from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.execution.database import Database
from housekeeping_pipelines.execution.report import SUCCEEDED, Report
from housekeeping_pipelines.execution.run import Run
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.settings import Settings
from housekeeping_pipelines.statistics.checks import check_statistics
from housekeeping_pipelines.statistics.report import StatisticsReport
from housekeeping_pipelines.statistics.snapshot import keep_snapshot, take_snapshot
from housekeeping_pipelines.tasks.capability import Capability
from housekeeping_pipelines.tasks.config import TaskConfig
from housekeeping_pipelines.tasks.jobs import Task, schedule
from housekeeping_pipelines.tasks.reporting import run_task


@dg.op
def generate_statistics(
    context: dg.OpExecutionContext, config: TaskConfig, database: dg.ResourceParam[Database]
) -> None:
    """Count active users, conversations and messages, and those of the last 24 hours; kept as a snapshot."""

    def body(run: Run) -> Report:
        connection = run.connection
        stats = take_snapshot(connection, Platform(Catalog(connection), database.config), run.started_at)
        if not run.dry_run:
            keep_snapshot(connection, stats, run_id=run.run_id, now=run.started_at)
            connection.commit()
        return run.report(SUCCEEDED, kind=StatisticsReport, stats=stats)

    run_task(context, database, body, dry_run=config.dry_run, kind=StatisticsReport)


GENERATE_STATISTICS = Task(
    generate_statistics,
    TaskConfig,
    report=StatisticsReport,
    tables=("users", "conversations", "chat_messages"),
    short_name="stats",
)


def capability(settings: Settings, config: HousekeepingConfig) -> Capability:
    """The snapshot, and its schedule."""
    ticks = schedule(
        GENERATE_STATISTICS.job,
        settings.generate_statistics_cron,
        settings,
        known_as=("statistics_generation", "Generate System Statistics"),
    )
    return Capability(tasks=(GENERATE_STATISTICS,), schedules=(ticks,), checks=(check_statistics,))
