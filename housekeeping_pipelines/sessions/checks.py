"""Whether the policy of upload sessions fits the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from housekeeping_pipelines.deletion.checks import check_policy
from housekeeping_pipelines.sessions.policies import Expiry, expired_sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.execution.checking import Check, Surroundings


def check_sessions(surroundings: Surroundings) -> Iterator[Check]:
    """A line for the task."""
    platform, now = surroundings.platform, surroundings.now
    yield check_policy("cleanup_files", lambda: expired_sessions(platform, now, Expiry()), surroundings)
