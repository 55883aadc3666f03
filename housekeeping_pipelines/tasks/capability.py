"""What a capability hands to the code location: its tasks, when they run, and what `housekeeping check` asks of it.

A capability is a folder whose `definitions.py` has `capability(settings, config) -> Capability`. A package of your own
adds one by an entry point of the group `housekeeping_pipelines.capabilities` that names such a function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import dagster as dg

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.execution.checking import Check, Surroundings
    from housekeeping_pipelines.settings import Settings
    from housekeeping_pipelines.tasks.jobs import Task

GROUP = "housekeeping_pipelines.capabilities"


@dataclass(frozen=True)
class Capability:
    """Everything that one capability adds.

    Attributes:
        checks: functions that only read, and yield what they find. They turn an error of the task's own into a finding.
    """

    tasks: tuple[Task, ...]
    schedules: tuple[dg.ScheduleDefinition, ...] = ()
    sensors: tuple[dg.SensorDefinition, ...] = ()
    checks: tuple[Callable[[Surroundings], Iterable[Check]], ...] = ()


class MakeCapability(Protocol):
    """How a capability is made; it touches no network and no database."""

    def __call__(self, settings: Settings, config: HousekeepingConfig) -> Capability: ...
