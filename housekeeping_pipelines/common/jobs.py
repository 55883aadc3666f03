"""From a task's op to its job, its schedule and its asset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from housekeeping_pipelines.common.reporting import asset_key
from housekeeping_pipelines.common.runs import MAX_RUNTIME_SECONDS, run_in_flight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from housekeeping_pipelines.settings import Settings

JOB_TAGS = {"owner": "housekeeping", dg.MAX_RUNTIME_SECONDS_TAG: str(MAX_RUNTIME_SECONDS)}


@dataclass(frozen=True)
class Task:
    """One maintenance task: its op, and the class of the op's configuration."""

    op: dg.OpDefinition
    config: type[dg.Config]

    @property
    def name(self) -> str:
        return self.op.name

    @property
    def asset(self) -> dg.AssetSpec:
        """What its runs are plotted on."""
        return dg.AssetSpec(asset_key(self.name), group_name="housekeeping", description=self.op.description)

    def job(self) -> dg.JobDefinition:
        """The job of this task alone; its configuration is at `ops.<task>.config`."""
        return sequence(f"{self.name}_job", [self], self.op.description)


def sequence(name: str, tasks: Sequence[Task], description: str | None) -> dg.JobDefinition:
    """A job that does tasks one after the other.

    No op waits for another's success, so that one that fails is named and does not stop the next: the in-process
    executor takes the steps that are ready by their priority.
    """

    @dg.graph(name=name, description=description)
    def steps() -> None:
        for position, task in enumerate(tasks):
            op = task.op.tag({"dagster/priority": str(len(tasks) - position)}) if len(tasks) > 1 else task.op
            op()

    return steps.to_job(tags=JOB_TAGS)


def schedule(
    job: dg.JobDefinition,
    cron: str,
    settings: Settings,
    *,
    name: str | None = None,
    running: bool = True,
) -> dg.ScheduleDefinition:
    """A schedule in TIME_ZONE that skips while a run of its job is still going on."""

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        going = run_in_flight(context.instance, job.name)
        if going is not None:
            return dg.SkipReason(f"run {going} of {job.name} is still going on")
        return dg.RunRequest()

    return dg.ScheduleDefinition(
        name=name or job.name.removesuffix("_job") + "_schedule",
        job=job,
        cron_schedule=cron,
        execution_fn=evaluate,
        execution_timezone=settings.time_zone.key,
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        description=job.description,
    )
