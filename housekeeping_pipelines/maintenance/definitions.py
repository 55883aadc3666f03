"""Undo and the trash's expiry in Dagster."""

from functools import partial

import dagster as dg
from pydantic import Field

from housekeeping_pipelines.common.config import TaskConfig
from housekeeping_pipelines.common.jobs import Task
from housekeeping_pipelines.common.reporting import do_task
from housekeeping_pipelines.maintenance import trash
from housekeeping_pipelines.resources.database import Database


class Undo(dg.Config):
    run_id: str = Field(min_length=1, description="The run to undo, or the beginning of its id.")


class PurgeTrash(TaskConfig):
    run_id: str | None = Field(None, description="Remove all of this run now, expired or not.")


@dg.op
def undo(context: dg.OpExecutionContext, config: Undo, database: dg.ResourceParam[Database]) -> None:
    """Bring back out of the trash what a run deleted."""
    body = partial(trash.undo, run_id=config.run_id)
    do_task(context, lambda task, run_id: database.housekeeper().perform(task, run_id, body))


@dg.op
def purge_trash(context: dg.OpExecutionContext, config: PurgeTrash, database: dg.ResourceParam[Database]) -> None:
    """Remove for good what was deleted longer than TRASH_RETENTION_DAYS ago."""
    settings = database.settings
    body = partial(
        trash.purge_trash,
        retention_days=settings.trash_retention_days,
        run_id=config.run_id,
        paused_by_setting=settings.housekeeping_paused,
    )
    do_task(context, lambda task, run_id: database.housekeeper().perform(task, run_id, body, dry_run=config.dry_run))


UNDO = Task(undo, Undo)
PURGE_TRASH = Task(purge_trash, PurgeTrash)
