"""Whether the policies of retention fit the platform."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from housekeeping_pipelines.deletion.checks import check_policy
from housekeeping_pipelines.retention import policies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.execution.checking import Check, Surroundings


def check_retention(surroundings: Surroundings) -> Iterator[Check]:
    """A line for each task."""
    settings, platform, now = surroundings.settings, surroundings.platform, surroundings.now
    made: dict[str, Callable[[], RowPolicy]] = {
        "delete_old_conversations": partial(
            policies.conversations,
            platform,
            now,
            older_than_days=settings.conversation_retention_days,
            age_column="last_activity",
        ),
        "cleanup_orphaned_messages": partial(policies.orphaned_messages, platform, now),
        "cleanup_inactive_users": partial(
            policies.inactive_users, platform, now, older_than_days=settings.unverified_user_retention_days
        ),
    }
    made |= {
        rule.task: partial(policies.declared_rule, platform, now, rule=rule) for rule in surroundings.config.retention
    }
    for task, make_policy in made.items():
        yield check_policy(task, make_policy, surroundings)
