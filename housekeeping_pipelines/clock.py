"""The time of day. Whatever needs it takes a clock as an argument; this is the one that is handed in."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)
