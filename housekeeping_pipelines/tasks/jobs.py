"""From a task's op to its job, its schedule and its asset."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.tasks.dagster_runs import MAX_RUNTIME_SECONDS, run_in_flight
from housekeeping_pipelines.tasks.reporting import asset_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    run_config: dict[str, Any] | None = None,
    off: str | None = None,
) -> dg.ScheduleDefinition:
    """A schedule in TIME_ZONE that skips while a run of its job is still going on.

    Args:
        off: why it starts nothing although it ticks; None: it does.
    """

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return _skip(context.instance, job, off) or dg.RunRequest(run_config=run_config)

    return dg.ScheduleDefinition(
        name=name or job.name.removesuffix("_job") + "_schedule",
        job=job,
        cron_schedule=cron,
        execution_fn=evaluate,
        execution_timezone=settings.time_zone.key,
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        description=job.description,
    )


def every_hours(
    job: dg.JobDefinition,
    hours: int,
    settings: Settings,
    *,
    run_config: dict[str, Any] | None = None,
    off: str | None = None,
) -> dg.ScheduleDefinition | dg.SensorDefinition:
    """A schedule at whole hours of the day; where no cron expression has such a period, a sensor over slots.

    A slot begins every so many hours of the epoch; the sensor starts one run in it, and none for those that it missed.
    """
    if 24 % hours == 0:
        cron = {1: "0 * * * *", 24: "0 0 * * *"}.get(hours, f"0 */{hours} * * *")
        return schedule(job, cron, settings, run_config=run_config, off=off)
    seconds = hours * 3600

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        slot = int(utc_now().timestamp()) // seconds
        following = datetime.fromtimestamp((slot + 1) * seconds, settings.time_zone)
        if context.cursor is None or int(context.cursor) >= slot:
            reason: dg.SkipReason | None = dg.SkipReason(f"the next run is due at {following:%Y-%m-%d %H:%M %Z}")
        else:
            reason = _skip(context.instance, job, off)
        if reason is not None:
            going = context.cursor is not None and int(context.cursor) < slot and off is None
            return dg.SensorResult(skip_reason=reason, cursor=context.cursor if going else str(slot))
        request = dg.RunRequest(run_key=f"{job.name} {slot}", run_config=run_config)
        return dg.SensorResult(run_requests=[request], cursor=str(slot))

    return sensor(
        name=job.name.removesuffix("_job") + "_sensor",
        job=job,
        evaluation_fn=evaluate,
        seconds=60,
        description=f"{job.description} Every {hours} hours.",
    )


def sensor(
    name: str,
    job: dg.JobDefinition,
    evaluation_fn: Callable[[dg.SensorEvaluationContext], Any],
    *,
    seconds: int,
    description: str | None = None,
) -> dg.SensorDefinition:
    """A sensor that is on and looks every so many seconds."""
    # Dagster warns of its own use of a parameter when it takes the sensor into the repository.
    warnings.filterwarnings("ignore", message="Parameter `owners`", category=dg.BetaWarning)
    return dg.SensorDefinition(
        name=name,
        job=job,
        evaluation_fn=evaluation_fn,
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description or job.description,
    )


def _skip(instance: dg.DagsterInstance, job: dg.JobDefinition, off: str | None) -> dg.SkipReason | None:
    if off is not None:
        return dg.SkipReason(off)
    going = run_in_flight(instance, job.name)
    return None if going is None else dg.SkipReason(f"run {going} of {job.name} is still going on")
