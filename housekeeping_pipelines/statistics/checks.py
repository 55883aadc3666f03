"""Whether there is something to count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.checking import Check
from housekeeping_pipelines.statistics.snapshot import counters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.execution.checking import Surroundings


def check_statistics(surroundings: Surroundings) -> Iterator[Check]:
    """A line for the task."""
    try:
        counters(surroundings.platform, surroundings.now)
    except HousekeepingError as error:
        yield Check.disabled("generate_statistics", error)
    else:
        yield Check("task generate_statistics", "ok", "counts users, conversations and messages")
