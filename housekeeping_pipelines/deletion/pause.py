"""The kill switch: stops every deleting run before its next batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from housekeeping_pipelines.deletion.tables import pauses

if TYPE_CHECKING:
    from datetime import datetime


def pause(connection: sa.Connection, *, reason: str, now: datetime) -> None:
    """Stop deleting runs until `resume`; pausing again keeps the first time and takes the new reason."""
    statement = insert(pauses).values(paused_at=now, reason=reason)
    connection.execute(statement.on_conflict_do_update(index_elements=["only_one"], set_={"reason": reason}))


def resume(connection: sa.Connection) -> bool:
    """Let deleting runs start again; False if they were not paused."""
    return connection.execute(sa.delete(pauses)).rowcount > 0


def paused_reason(connection: sa.Connection) -> str | None:
    """Why deleting runs are paused; None if they are not."""
    return connection.scalar(sa.select(pauses.c.reason))
