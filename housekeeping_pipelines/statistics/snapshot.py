"""The five counters, taken in one snapshot of the database and kept."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.statistics.report import Statistics
from housekeeping_pipelines.statistics.tables import statistics_snapshots

if TYPE_CHECKING:
    from datetime import datetime

    from housekeeping_pipelines.application.platform import Platform


def take_snapshot(connection: sa.Connection, platform: Platform, now: datetime) -> Statistics:
    """Count, in one statement and so in one snapshot.

    Raises:
        ConfigurationError: the live database lacks a table or a column.
    """
    return Statistics(*connection.execute(counters(platform, now)).one())


def counters(platform: Platform, now: datetime) -> sa.Select[int, int, int, int, int]:
    """The statement that counts.

    Raises:
        ConfigurationError: the live database lacks a table or a column.
    """
    users, conversations, messages = (platform.table(name) for name in ("users", "conversations", "chat_messages"))
    since = now - timedelta(hours=24)
    return sa.select(
        sa.select(sa.func.count()).where(users["is_active"].is_(True)).scalar_subquery(),
        sa.select(sa.func.count()).select_from(conversations.live.selectable).scalar_subquery(),
        sa.select(sa.func.count()).select_from(messages.live.selectable).scalar_subquery(),
        sa.select(sa.func.count()).where(conversations["created_at"] >= since).scalar_subquery(),
        sa.select(sa.func.count()).where(messages["created_at"] >= since).scalar_subquery(),
    )


def keep_snapshot(connection: sa.Connection, statistics: Statistics, *, run_id: str, now: datetime) -> None:
    """Store the counters; the caller commits."""
    connection.execute(sa.insert(statistics_snapshots).values(taken_at=now, run_id=run_id, **asdict(statistics)))
