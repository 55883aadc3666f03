"""What a snapshot reports: the counters."""

from __future__ import annotations

from dataclasses import dataclass

from housekeeping_pipelines.execution.report import Report


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
