"""What the code location can do: a line for each capability, those that other packages add, and chains of several.

A capability says itself which tasks, schedules, sensors and checks it has; nothing else lists their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.maintenance import definitions as maintenance
from housekeeping_pipelines.orphans import definitions as orphans
from housekeeping_pipelines.retention import definitions as retention
from housekeeping_pipelines.sessions import definitions as sessions
from housekeeping_pipelines.statistics import definitions as statistics
from housekeeping_pipelines.tasks.capability import GROUP, Capability, MakeCapability
from housekeeping_pipelines.tasks.jobs import Chain, Task
from housekeeping_pipelines.watched_documents import definitions as watched_documents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.settings import Settings

BUILT_IN: tuple[MakeCapability, ...] = (
    retention.capability,
    statistics.capability,
    sessions.capability,
    orphans.capability,
    watched_documents.capability,
    maintenance.capability,
)


@dataclass(frozen=True)
class Registry:
    """Every capability, its tasks by the names of their ops, and the chains by their own."""

    capabilities: tuple[Capability, ...]
    tasks: dict[str, Task]
    chains: dict[str, Chain]


def assemble(settings: Settings, config: HousekeepingConfig) -> Registry:
    """Ask every capability for its tasks. This touches no network and no database.

    Raises:
        ConfigurationError: two tasks have one name, or a package's capability cannot be made.
    """
    capabilities = tuple(make(settings, config) for make in (*BUILT_IN, *_of_packages()))
    every = [task for capability in capabilities for task in capability.tasks]
    tasks = {task.name: task for task in every}
    # A user's own rules go before the statistics, so that these are of the platform as the run leaves it.
    rules = [tasks[rule.task] for rule in config.retention]
    daily = Chain(
        "daily_housekeeping",
        _without(
            config.daily_housekeeping.leave_out,
            (
                retention.CONVERSATIONS,
                retention.ORPHANED_MESSAGES,
                retention.INACTIVE_USERS,
                *rules,
                statistics.GENERATE_STATISTICS,
            ),
        ),
        "Old conversations, orphaned messages, unused accounts, your own rules; counts.",
    )
    weekly = Chain(
        "weekly_cleanup",
        (retention.CONVERSATIONS, retention.VERIFY_NO_ORPHANS),
        "Old conversations, then a deep check that nothing refers to a deleted one.",
    )
    chains = {chain.name: chain for chain in (daily, weekly)}
    _check_names([*chains, *(task.name for task in every)], settings, config)
    return Registry(capabilities, tasks, chains)


def _without(names: Sequence[str], tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """
    Raises:
        ConfigurationError: a name is not one of a task, or no task is left.
    """
    known = [task.name for task in tasks]
    if strange := [name for name in names if name not in known]:
        raise ConfigurationError(
            f"daily_housekeeping.leave_out: {strange[0]} is not a task of daily_housekeeping_job",
            hint=f"its tasks are {', '.join(known)}",
        )
    if not (left := tuple(task for task in tasks if task.name not in names)):
        raise ConfigurationError(
            "daily_housekeeping.leave_out leaves no task", hint="stop daily_housekeeping_schedule instead"
        )
    return left


def _of_packages() -> list[MakeCapability]:
    found: list[MakeCapability] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            found.append(point.load())
        except Exception as error:
            raise ConfigurationError(
                f"the capability {point.name} ({point.value}) cannot be loaded: {type(error).__name__}: {error}",
                hint="fix or uninstall the package that it is from",
            ) from error
    return found


def _check_names(names: list[str], settings: Settings, config: HousekeepingConfig) -> None:
    """
    Raises:
        ConfigurationError: two tasks or chains have one name.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is None:
        return
    if any(rule.task == twice for rule in config.retention):
        file = settings.housekeeping_config
        raise ConfigurationError(
            f"{file.name}: retention: two tasks would be named {twice}; give the rule a `name` of its own",
            hint=f"check {file}",
        )
    raise ConfigurationError(f"two tasks are named {twice}", hint="rename one, or uninstall the package that adds it")
