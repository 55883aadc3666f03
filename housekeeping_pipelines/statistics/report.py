"""What a snapshot reports: the counters."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from housekeeping_pipelines.execution.report import Line, Report

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Statistics:
    """`total_users` counts the active ones; "recent" is created within the last 24 hours."""

    total_users: int
    total_conversations: int
    total_messages: int
    recent_conversations_24h: int
    recent_messages_24h: int


@dataclass(frozen=True, kw_only=True)
class StatisticsReport(Report):
    """A report with the counters; null where they could not be taken."""

    stats: Statistics | None = None

    def done_lines(self) -> Iterator[Line]:
        counters = self._counters()
        for name in sorted(counters, key=lambda name: name.startswith("recent")):
            yield Line("note", name.replace("_", " "), counters[name])

    def measures(self) -> dict[str, float]:
        return {f"stats/{name}": count for name, count in self._counters().items()}

    def _counters(self) -> dict[str, int]:
        return {} if self.stats is None else asdict(self.stats)
