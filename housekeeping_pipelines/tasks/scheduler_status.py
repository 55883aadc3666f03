"""When everything runs next, as Dagster knows it: its definitions, its switches and its daemon's heartbeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

# Not public, but the very function by which the daemon finds a schedule's next tick, daylight saving included.
from dagster._utils.schedules import schedule_execution_time_iterator

from housekeeping_pipelines.tasks.jobs import ID_METADATA, NAME_METADATA

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

# The daemon beats every 30 s; three missed beats and it is not there.
HEARTBEAT_SECONDS = 90

# In the order in which APScheduler wrote them.
_CRON_FIELDS = (("month", 3), ("day", 2), ("day_of_week", 4), ("hour", 1), ("minute", 0))
_DAYS = {"0": "sun", "1": "mon", "2": "tue", "3": "wed", "4": "thu", "5": "fri", "6": "sat", "7": "sun"}


def scheduler_status(instance: dg.DagsterInstance, definitions: dg.Definitions, now: datetime) -> dict[str, Any]:
    """`{status, total_jobs, jobs: [{id, name, next_run_time, trigger, enabled}]}`.

    `status` is `running` or `stopped` by the daemon's heartbeat. What is switched off, and a sensor, has no
    `next_run_time`, which is else in ISO 8601.
    """
    switches = {state.name: state.status.value for state in instance.all_instigator_state()}
    repository = definitions.get_repository_def()
    # Those that keep a name of the replaced system come first, in the order in which they are defined.
    defined = [each.name for each in definitions.schedules or ()]
    ordered = sorted(
        repository.schedule_defs, key=lambda s: (defined.index(s.name), "") if _known_as(s) else (len(defined), s.name)
    )
    jobs = [_schedule(s, switches, now) for s in ordered]
    jobs += [_sensor(sensor, switches) for sensor in sorted(repository.sensor_defs, key=lambda s: s.name)]
    beat = instance.get_daemon_heartbeats().get("SCHEDULER")
    alive = beat is not None and now.timestamp() - beat.timestamp < HEARTBEAT_SECONDS
    return {"status": "running" if alive else "stopped", "total_jobs": len(jobs), "jobs": jobs}


def _known_as(schedule: dg.ScheduleDefinition) -> tuple[str, str] | None:
    id_, name = (schedule.metadata.get(key) for key in (ID_METADATA, NAME_METADATA))
    if isinstance(id_, dg.TextMetadataValue) and isinstance(name, dg.TextMetadataValue):
        return str(id_.value), str(name.value)
    return None


def _is_on(name: str, default: Any, switches: Mapping[str, str]) -> bool:
    # A switch that was never touched says DECLARED_IN_CODE.
    return switches.get(name, default.value) == "RUNNING" or (
        switches.get(name) == "DECLARED_IN_CODE" and default.value == "RUNNING"
    )


def _schedule(schedule: dg.ScheduleDefinition, switches: Mapping[str, str], now: datetime) -> dict[str, Any]:
    cron = schedule.cron_schedule if isinstance(schedule.cron_schedule, str) else schedule.cron_schedule[0]
    enabled = _is_on(schedule.name, schedule.default_status, switches)
    ticks = schedule_execution_time_iterator(now.timestamp(), cron, schedule.execution_timezone)
    id_, name = _known_as(schedule) or (schedule.name, schedule.name)
    return {
        "id": id_,
        "name": name,
        "next_run_time": next(ticks).isoformat() if enabled else None,
        "trigger": trigger_text(cron),
        "enabled": enabled,
    }


def _sensor(sensor: dg.SensorDefinition, switches: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": sensor.name,
        "name": sensor.name,
        "next_run_time": None,
        "trigger": f"sensor[{sensor.minimum_interval_seconds or 30} s]",
        "enabled": _is_on(sensor.name, sensor.default_status, switches),
    }


def trigger_text(cron: str) -> str:
    """A cron expression in the words of the replaced system: `cron[hour='2', minute='0']`, `interval[0:06:00:00]`."""
    fields = cron.split()
    minute, hour, *others = fields
    if others == ["*", "*", "*"] and minute == "0" and hour.startswith("*/") and 24 % int(hour[2:]) == 0:
        return f"interval[0:{int(hour[2:]):02}:00:00]"
    named = {name: fields[position] for name, position in _CRON_FIELDS if fields[position] != "*"}
    if "day_of_week" in named:
        named["day_of_week"] = _DAYS.get(named["day_of_week"], named["day_of_week"])
    return "cron[" + ", ".join(f"{name}='{value}'" for name, value in named.items()) + "]"
