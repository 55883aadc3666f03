"""What is too old, as policies over the platform's tables.

A row of unknown age (null) is never old enough, and nothing that may still be in use is a candidate.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from housekeeping_pipelines.deletion.policy import KeepRule, RowPolicy
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.postgres.catalog import PgType
from housekeeping_pipelines.retention.ownership import find_ownership

if TYPE_CHECKING:
    from datetime import datetime

    from housekeeping_pipelines.application.config import RetentionRule
    from housekeeping_pipelines.application.platform import MappedTable, Platform
    from housekeeping_pipelines.postgres.catalog import Table

AgeColumn = Literal["last_activity", "created_at"]

# A message may be written before the transaction that creates its conversation commits.
ORPHAN_FLOOR = timedelta(hours=1)


def conversations(platform: Platform, now: datetime, *, older_than_days: int, age_column: AgeColumn) -> RowPolicy:
    """Conversations that were last used, or created, so many days ago; pinned ones are exempt."""
    table, messages = platform.table("conversations"), platform.table("chat_messages")
    cutoff = now - timedelta(days=older_than_days)
    created, updated, pinned = table["created_at"], table.get("updated_at"), table.get("pinned")
    keep_rule: KeepRule | None = None
    if age_column == "created_at":
        age_from, old, what = created, created < cutoff, "created"
    else:
        age_from = created if updated is None else sa.func.greatest(updated, created)
        written, at = _alias(messages), _name(messages, "created_at")
        # A message of unknown time may be recent.
        key = _name(messages, "conversation_id")
        keep_rule = KeepRule(messages.live, key, at, lambda sent: (sent < cutoff).is_not(True))
        refers = platform.refers(messages, "conversation_id", table, "id")
        recent = sa.select(sa.literal(1)).where(refers(written.c[key], table["id"]), keep_rule.keeps(written.c[at]))
        old, what = sa.and_(age_from < cutoff, ~recent.correlate(table.live.selectable).exists()), "last used"
    return RowPolicy(
        table=table.live,
        age_from=age_from,
        old=old,
        keep_rule=keep_rule,
        own_age_condition=age_from < cutoff,
        eligible=None if pinned is None else pinned.is_not(True),
        reason=f"{what} more than {older_than_days} days ago",
        **_surroundings(platform),
    )


def orphaned_messages(platform: Platform, now: datetime) -> RowPolicy:
    """Messages whose conversation does not exist, or is null where that means that it was lost."""
    table, parents = platform.table("chat_messages"), platform.table("conversations")
    parent = _alias(parents)
    refers = platform.refers(table, "conversation_id", parents, "id")
    there = sa.select(sa.literal(1)).where(refers(table["conversation_id"], parent.c[_name(parents, "id")]))
    lost = ~there.correlate(table.live.selectable).exists()
    null_is_orphan = _null_is_orphan(platform)
    return RowPolicy(
        table=table.live,
        age_from=table["created_at"],
        old=table["created_at"] < now - ORPHAN_FLOOR,
        eligible=lost if null_is_orphan else sa.and_(table["conversation_id"].is_not(None), lost),
        reason="its conversation does not exist",
        references=(parents.live,),
        **_surroundings(platform),
    )


def _null_is_orphan(platform: Platform) -> bool:
    """Whether a message whose conversation is null was lost by it.

    So it is in the tables by the default names. Elsewhere a null may mean a conversation without a row: in doubt, it is
    kept.
    """
    mapping = platform.config.tables.get("chat_messages")
    if mapping is None:
        return True
    if mapping.null_conversation is not None:
        return mapping.null_conversation == "orphan"
    return mapping.name is None and "conversation_id" not in mapping.columns


def inactive_users(platform: Platform, now: datetime, *, older_than_days: int) -> RowPolicy:
    """Accounts that were never used: not verified, never logged in, neither staff nor superuser, owning nothing.

    Where the table has no verification column, `is_active = false` stands for never verified.
    """
    table = platform.table("users")
    last_login = table.get("last_login")
    never_used: list[sa.ColumnElement[bool]] = [_never_verified(table)]
    if last_login is not None:
        never_used.append(last_login.is_(None))
    privileges = (table.get("is_staff"), table.get("is_superuser"))
    never_used += [flag.is_not(True) for flag in privileges if flag is not None]
    surroundings = _surroundings(platform)
    ownership = find_ownership(platform, table, surroundings["undeclared"])
    owned = ownership.owned
    never_used += ownership.nothing()
    looked_at = ownership.describe()
    where = f" in {looked_at}" if looked_at else ""
    return RowPolicy(
        table=table.live,
        age_from=table["date_joined"],
        old=table["date_joined"] < now - timedelta(days=older_than_days),
        eligible=sa.and_(*never_used),
        reason=f"joined more than {older_than_days} days ago, never used, owns nothing{where}",
        follows=lambda key: key not in owned,
        **surroundings,
    )


def _never_verified(users: MappedTable) -> sa.ColumnElement[bool]:
    verified = users.get("email_verified_at")
    if verified is None:
        return users["is_active"].is_(False)
    # Some platforms have a flag in the place of the moment.
    is_flag = users.live.type_of(_name(users, "email_verified_at")) == "boolean"
    return verified.is_(False) if is_flag else verified.is_(None)


def declared_rule(platform: Platform, now: datetime, *, rule: RetentionRule) -> RowPolicy:
    """A user's own rule of `housekeeping.yaml`."""
    table = platform.any_table(rule.table)
    columns = {column.name: column for column in table.columns}
    for name in (rule.age_column, *rule.where):
        if name not in columns:
            raise ConfigurationError(
                f"{table.label} has no column {name}{table.nearest(name)}",
                hint=f"correct the rule {rule.task} in housekeeping.yaml",
            )
    check_is_time(table, rule.age_column)
    selectable = table.selectable
    conditions = [
        selectable.c[name].is_(None)
        if value is None
        else selectable.c[name] == sa.cast(_literal(value), PgType(columns[name].bare_type))
        for name, value in rule.where.items()
    ]
    return RowPolicy(
        table=table,
        age_from=selectable.c[rule.age_column],
        old=selectable.c[rule.age_column] < now - timedelta(days=rule.older_than_days),
        eligible=sa.and_(*conditions) if conditions else None,
        reason=f"{rule.age_column} is more than {rule.older_than_days} days ago",
        **_surroundings(platform),
    )


def check_is_time(table: Table, column: str) -> None:
    """
    Raises:
        ConfigurationError: the column is neither a date nor a timestamp.
    """
    if not table.holds_moments(column):
        raise ConfigurationError(
            f"{table.label}.{column} is {table.type_of(column)}: an age needs a date or a timestamp",
            hint="name another column in housekeeping.yaml",
        )


def _surroundings(platform: Platform) -> dict[str, Any]:
    users = platform.find("users")
    return {
        "undeclared": platform.undeclared_keys(),
        "users": users and users.live,
        "also_deleted": platform.also_deleted(),
        "without_undo": platform.without_undo(),
    }


def _alias(table: MappedTable) -> sa.TableValuedAlias | Any:
    return table.live.selectable.alias()


def _name(table: MappedTable, column: str) -> str:
    return str(table[column].key)


def _literal(value: str | float | bool) -> str:
    # As text, which the cast to the column's type reads: an enum or a uuid compares with nothing else.
    return str(value).lower() if isinstance(value, bool) else str(value)
