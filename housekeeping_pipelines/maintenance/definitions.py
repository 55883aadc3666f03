"""Undo, the trash's expiry and the outbox of files in Dagster.

What does the work is imported by the op: importing the definitions is to stay quick.
"""

from functools import partial

import dagster as dg
from pydantic import Field

from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.database import Database
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.stores.stores import Stores
from housekeeping_pipelines.tasks.config import TaskConfig
from housekeeping_pipelines.tasks.dagster_runs import run_in_flight
from housekeeping_pipelines.tasks.jobs import Task, sensor
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
    """Bring back out of the trash what a run deleted."""
    from housekeeping_pipelines.maintenance import trash

    body = partial(
        trash.undo,
        run_id=config.run_id,
        store_of=stores.__getitem__,
        for_good=lambda undone: [
            report.get("for_good", {}) for report in read_reports(context.instance, undone).values()
        ],
    )
    run_task(context, database, body)


@dg.op
def purge_trash(
    context: dg.OpExecutionContext,
    config: PurgeTrash,
    database: dg.ResourceParam[Database],
    stores: dg.ResourceParam[Stores],
) -> None:
    """Remove for good what was deleted longer than TRASH_RETENTION_DAYS ago."""
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
    """Remove the files whose rows are gone, as soon as storage lets them go."""
    from housekeeping_pipelines.maintenance import outbox

    body = partial(outbox.drain_outbox, store_of=stores.__getitem__)
    run_task(context, database, body, dry_run=config.dry_run)


def drain_file_outbox_sensor(job: dg.JobDefinition, interval_seconds: int) -> dg.SensorDefinition:
    """Starts the job when an entry of the outbox is due."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        from housekeeping_pipelines.maintenance import outbox

        try:
            due = outbox.look(load_settings())
        except HousekeepingError as error:
            return dg.SkipReason(error.one_line)
        if not due:
            return dg.SkipReason("no file is due to go")
        going = run_in_flight(context.instance, job.name)
        if going is not None:
            return dg.SkipReason(f"{due:,} files are due; run {going} is still at it")
        return dg.SensorResult(run_requests=[dg.RunRequest(tags={"housekeeping/due_files": str(due)})])

    return sensor("drain_file_outbox_sensor", job, evaluate, seconds=interval_seconds)


UNDO = Task(undo, Undo)
PURGE_TRASH = Task(purge_trash, PurgeTrash)
DRAIN_FILE_OUTBOX = Task(drain_file_outbox, TaskConfig)
