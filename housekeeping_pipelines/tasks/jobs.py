"""From a task's op to its job, its schedule, its sensor and its asset."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.report import Report
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.tasks.dagster_runs import MAX_RUNTIME_SECONDS, run_in_flight
from housekeeping_pipelines.tasks.reporting import asset_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from housekeeping_pipelines.settings import Settings

# How a schedule says by which id and name it is listed.
ID_METADATA, NAME_METADATA = "housekeeping/id", "housekeeping/name"

JOB_TAGS = {"owner": "housekeeping", dg.MAX_RUNTIME_SECONDS_TAG: str(MAX_RUNTIME_SECONDS)}


@dataclass(frozen=True)
class Task:
    """One maintenance task: its op, the class of the op's configuration, and what others need to know of it.

    Attributes:
        report: the class of its report.
        tables: tables of the platform, by our names, that it cannot do without.
        short_name: what `run-housekeeping --task` calls it; None: it is not offered there.
        counted_as: the field of the housekeeping result that has how many rows of its own table it deleted.
        undoable: whether `housekeeping undo` brings back what it deletes.
    """

    op: dg.OpDefinition
    config: type[dg.Config]
    report: type[Report] = Report
    tables: tuple[str, ...] = ()
    short_name: str | None = None
    counted_as: str | None = None
    undoable: bool = True

    @property
    def name(self) -> str:
        return self.op.name

    @property
    def asset(self) -> dg.AssetSpec:
        """What its runs are plotted on."""
        return dg.AssetSpec(asset_key(self.name), group_name="housekeeping", description=self.op.description)

    @cached_property
    def job(self) -> dg.JobDefinition:
        """The job of this task alone; its configuration is at `ops.<task>.config`."""
        return _sequence(f"{self.name}_job", [self], self.op.description)


@dataclass(frozen=True)
class Chain:
    """Several tasks that one job does in their order."""

    name: str
    tasks: tuple[Task, ...]
    description: str

    @cached_property
    def job(self) -> dg.JobDefinition:
        """The job; each task's configuration is at `ops.<task>.config`."""
        return _sequence(f"{self.name}_job", self.tasks, self.description)


def _sequence(name: str, tasks: Sequence[Task], description: str | None) -> dg.JobDefinition:
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
    disabled_reason: str | None = None,
    known_as: tuple[str, str] | None = None,
) -> dg.ScheduleDefinition:
    """A schedule in TIME_ZONE that skips while a run of its job is in progress.

    Args:
        disabled_reason: why it starts nothing although it ticks; None: it does.
        known_as: the id and the name by which `scheduler-info` lists it; the schedule's own name by default.
    """

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return _skip(context.instance, job, settings, disabled_reason) or dg.RunRequest(run_config=run_config)

    return dg.ScheduleDefinition(
        name=name or job.name.removesuffix("_job") + "_schedule",
        job=job,
        cron_schedule=cron,
        execution_fn=evaluate,
        execution_timezone=settings.time_zone.key,
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        description=job.description,
        metadata=dict(zip((ID_METADATA, NAME_METADATA), known_as, strict=True)) if known_as else None,
    )


class Ticks(NamedTuple):
    """What starts a job: a schedule or a sensor."""

    schedules: tuple[dg.ScheduleDefinition, ...] = ()
    sensors: tuple[dg.SensorDefinition, ...] = ()


def every_hours(
    job: dg.JobDefinition,
    hours: int,
    settings: Settings,
    *,
    run_config: dict[str, Any] | None = None,
    disabled_reason: str | None = None,
) -> Ticks:
    """A schedule at whole hours of the day; where no cron expression has such a period, a sensor over slots.

    A slot begins every so many hours of the epoch; the sensor starts one run in it, and none for those that it missed.
    """
    if 24 % hours == 0:
        cron = {1: "0 * * * *", 24: "0 0 * * *"}.get(hours, f"0 */{hours} * * *")
        ticks = schedule(job, cron, settings, run_config=run_config, disabled_reason=disabled_reason)
        return Ticks(schedules=(ticks,))
    seconds = hours * 3600

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        slot = int(utc_now().timestamp()) // seconds
        following = datetime.fromtimestamp((slot + 1) * seconds, settings.time_zone)
        if context.cursor is None or int(context.cursor) >= slot:
            reason: dg.SkipReason | None = dg.SkipReason(f"the next run is due at {following:%Y-%m-%d %H:%M %Z}")
        else:
            reason = _skip(context.instance, job, settings, disabled_reason)
        if reason is not None:
            waits = context.cursor is not None and int(context.cursor) < slot and disabled_reason is None
            return dg.SensorResult(skip_reason=reason, cursor=context.cursor if waits else str(slot))
        request = dg.RunRequest(run_key=f"{job.name} {slot}", run_config=run_config)
        return dg.SensorResult(run_requests=[request], cursor=str(slot))

    slots = sensor(
        name=job.name.removesuffix("_job") + "_sensor",
        job=job,
        evaluation_fn=evaluate,
        seconds=60,
        description=f"{job.description} Every {hours} hours.",
    )
    return Ticks(sensors=(slots,))


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


def due_sensor(
    name: str,
    job: dg.JobDefinition,
    count_due: Callable[[Settings], int],
    *,
    describe: Callable[[int], str],
    tag: str,
    seconds: int,
) -> dg.SensorDefinition:
    """A sensor that starts a run of its job when something is due and no run is in progress.

    Args:
        count_due: how many items are due; it only reads.
        describe: how many items are due, in words; also of 0: `3 files are due`.
        tag: of the run, which says how many were due.
    """

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        settings = load_settings()
        try:
            due = count_due(settings)
        except HousekeepingError as error:
            return dg.SkipReason(error.one_line)
        if not due:
            return dg.SkipReason(describe(0))
        active_run = run_in_flight(context.instance, job.name, settings)
        if active_run is not None:
            return dg.SkipReason(f"{describe(due)}; run {active_run} is still in progress")
        return dg.SensorResult(run_requests=[dg.RunRequest(tags={tag: str(due)})])

    return sensor(name, job, evaluate, seconds=seconds)


def _skip(
    instance: dg.DagsterInstance, job: dg.JobDefinition, settings: Settings, disabled_reason: str | None
) -> dg.SkipReason | None:
    if disabled_reason is not None:
        return dg.SkipReason(disabled_reason)
    active_run = run_in_flight(instance, job.name, settings)
    return None if active_run is None else dg.SkipReason(f"run {active_run} of {job.name} is still in progress")
