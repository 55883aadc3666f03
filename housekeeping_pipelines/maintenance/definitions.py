"""Undo, the trash's expiry and the outbox of files in Dagster.

The op imports what does the work, so that importing the definitions stays quick.
"""

from functools import partial

import dagster as dg
from pydantic import Field

from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.execution.database import Database
from housekeeping_pipelines.maintenance.checks import check_outbox
from housekeeping_pipelines.maintenance.report import UndoReport
from housekeeping_pipelines.settings import Settings
from housekeeping_pipelines.stores.stores import Stores
from housekeeping_pipelines.tasks.capability import Capability
from housekeeping_pipelines.tasks.config import TaskConfig
from housekeeping_pipelines.tasks.jobs import Task, due_sensor, schedule
from housekeeping_pipelines.tasks.reporting import read_reports, run_task


class Undo(dg.Config):
    run_id: str = Field(min_length=1, description="The run to undo, or the beginning of its id.")


class PurgeTrash(TaskConfig):
    run_id: str | None = Field(None, description="Remove all of this run now, expired or not.")


@dg.op
def undo(
    context: dg.OpExecutionContext,
    config: Undo,
    database: dg.ResourceParam[Database],
    stores: dg.ResourceParam[Stores],
) -> None:
    """Restore from the trash what a run deleted."""
    from housekeeping_pipelines.maintenance import trash

    body = partial(
        trash.undo,
        run_id=config.run_id,
        stores=stores,
        reports_of=lambda undone: read_reports(context.instance, undone).values(),
    )
    run_task(context, database, body, kind=UndoReport, busy=trash.busy)


@dg.op
def purge_trash(
    context: dg.OpExecutionContext,
    config: PurgeTrash,
    database: dg.ResourceParam[Database],
    stores: dg.ResourceParam[Stores],
) -> None:
    """Delete permanently what a run deleted more than TRASH_RETENTION_DAYS ago."""
    from housekeeping_pipelines.maintenance import trash

    body = partial(
        trash.purge_trash,
        store_of=stores.__getitem__,
        retention_days=database.settings.trash_retention_days,
        run_id=config.run_id,
    )
    run_task(context, database, body, dry_run=config.dry_run)


@dg.op
def drain_file_outbox(
    context: dg.OpExecutionContext,
    config: TaskConfig,
    database: dg.ResourceParam[Database],
    stores: dg.ResourceParam[Stores],
) -> None:
    """Remove the files whose rows were deleted, once storage accepts it."""
    from housekeeping_pipelines.maintenance import outbox

    body = partial(outbox.drain_outbox, store_of=stores.__getitem__)
    run_task(context, database, body, dry_run=config.dry_run)


def _count_due(settings: Settings) -> int:
    from housekeeping_pipelines.maintenance import outbox

    return outbox.probe_due(settings)


def _describe_due(files: int) -> str:
    return f"{files:,} files are due" if files else "no file is due"


UNDO = Task(undo, Undo, report=UndoReport, undoable=False)
PURGE_TRASH = Task(purge_trash, PurgeTrash, undoable=False)
DRAIN_FILE_OUTBOX = Task(drain_file_outbox, TaskConfig)


def capability(settings: Settings, config: HousekeepingConfig) -> Capability:
    """Undo by hand, the trash's expiry daily, and the outbox when something in it is due."""
    return Capability(
        tasks=(UNDO, PURGE_TRASH, DRAIN_FILE_OUTBOX),
        schedules=(schedule(PURGE_TRASH.job, settings.purge_trash_cron, settings),),
        sensors=(
            due_sensor(
                "drain_file_outbox_sensor",
                DRAIN_FILE_OUTBOX.job,
                _count_due,
                describe=_describe_due,
                tag="housekeeping/due_files",
                seconds=settings.drain_file_outbox_interval_seconds,
            ),
        ),
        checks=(check_outbox,),
    )
