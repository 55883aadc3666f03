"""Upload sessions in Dagster."""

import dagster as dg
from pydantic import Field

from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.execution.database import Database
from housekeeping_pipelines.execution.progress import Observer
from housekeeping_pipelines.execution.report import Report
from housekeeping_pipelines.execution.run import Run
from housekeeping_pipelines.sessions.checks import check_sessions
from housekeeping_pipelines.sessions.report import SessionReport
from housekeeping_pipelines.settings import Settings
from housekeeping_pipelines.stores.folders import BUCKET
from housekeeping_pipelines.stores.stores import Stores
from housekeeping_pipelines.tasks.capability import Capability
from housekeeping_pipelines.tasks.config import DeletionConfig
from housekeeping_pipelines.tasks.jobs import Task, every_hours
from housekeeping_pipelines.tasks.reporting import run_task


class CleanupFiles(DeletionConfig):
    hours: int | None = Field(
        None,
        ge=1,
        le=8760,
        description="Hours without activity after which a session goes; CLEANUP_INTERVAL_HOURS (1).",
    )
    session: str | None = Field(
        None, min_length=1, description="Only this session, however young; never while it is in use."
    )
    # Uploads take minutes: after an hour most sessions are over, so a large share is normal.
    max_fraction: float = Field(1.0, gt=0, le=1, description="Share of the sessions beyond which a run is refused.")
    include_outputs: bool = Field(True, description="Remove what was made of the uploads too.")


@dg.op
def cleanup_files(
    context: dg.OpExecutionContext,
    config: CleanupFiles,
    database: dg.ResourceParam[Database],
    stores: dg.ResourceParam[Stores],
    observer: dg.ResourceParam[Observer],
) -> None:
    """Delete upload sessions unused for CLEANUP_INTERVAL_HOURS, with their documents and files."""
    # Imported here, so that importing the definitions stays quick.
    from housekeeping_pipelines.sessions import cleanup
    from housekeeping_pipelines.sessions.policies import Expiry
    from housekeeping_pipelines.sessions.usage import MEGABYTE

    settings = database.settings

    def body(run: Run) -> Report:
        return cleanup.cleanup_files(
            run,
            config=database.config,
            store_of=stores.__getitem__,
            uses=stores.uses(BUCKET),
            expiry=Expiry(
                hours=config.hours or settings.cleanup_interval_hours,
                session=config.session,
                include_outputs=config.include_outputs,
                with_files=settings.storage_cleanup_enabled,
            ),
            limits=config.limits(),
            max_storage_bytes=settings.max_storage_size_mb * MEGABYTE,
        )

    run_task(context, database, body, dry_run=config.dry_run, observer=observer, kind=SessionReport)


CLEANUP_FILES = Task(
    cleanup_files, CleanupFiles, report=SessionReport, tables=("upload_sessions", "processed_documents")
)


def capability(settings: Settings, config: HousekeepingConfig) -> Capability:
    """The clean-up, every CLEANUP_INTERVAL_HOURS."""
    ticks = every_hours(
        CLEANUP_FILES.job,
        settings.cleanup_interval_hours,
        settings,
        disabled_reason=None if settings.auto_cleanup_enabled else "AUTO_CLEANUP_ENABLED is false",
    )
    return Capability((CLEANUP_FILES,), ticks.schedules, ticks.sensors, checks=(check_sessions,))
