"""When a server wants to be asked again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# No server means more, and a date of next century is a mistake.
LONGEST = timedelta(days=7)

# Below it a reset counts seconds from now, as the draft of RateLimit headers has it; above it, since 1970.
_EPOCH_FROM = 10**9


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """How long to wait, 0 to 7 days: by Retry-After, or by the reset of a rate limit that is used up.

    GitHub says X-RateLimit-Remaining and X-RateLimit-Reset, GitLab RateLimit-Remaining and RateLimit-Reset.

    Returns:
        None if the headers do not say it.
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    if (value := lower.get("retry-after")) is not None and (wait := parse_retry_after(value, now)) is not None:
        return wait
    for prefix in ("x-ratelimit", "ratelimit"):
        reset = _number(lower.get(f"{prefix}-reset", ""))
        if lower.get(f"{prefix}-remaining") == "0" and reset is not None:
            return _clamped(reset if reset < _EPOCH_FROM else reset - now.timestamp())
    return None


def parse_retry_after(value: str, now: datetime) -> timedelta | None:
    """What a Retry-After header asks to wait, 0 to 7 days (RFC 9110, 10.2.3: seconds or a date); None: neither."""
    if (seconds := _number(value)) is not None:
        return _clamped(seconds)
    try:
        at = parsedate_to_datetime(value)
        return _clamped((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now.timestamp())
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def _number(value: str) -> float | None:
    whole, _, fraction = value.partition(".")
    digits = whole + fraction
    # More digits than any moment has would be slow to read, and overflow.
    return float(value) if digits.isascii() and digits.isdigit() and whole and len(value) < 20 else None


def _clamped(seconds: float) -> timedelta:
    return timedelta(seconds=min(max(0.0, seconds), LONGEST.total_seconds()))
