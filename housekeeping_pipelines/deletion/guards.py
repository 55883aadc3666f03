"""Checks that can refuse a run before it deletes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.deletion.pause import paused_reason
from housekeeping_pipelines.errors import Refused
from housekeeping_pipelines.postgres.catalog import PgType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.deletion.plan import Plan
    from housekeeping_pipelines.postgres.catalog import Table


def check_not_paused(connection: sa.Connection, *, by_setting: bool) -> None:
    """
    Raises:
        Refused: everything is paused.
    """
    if by_setting:
        raise Refused("paused by HOUSEKEEPING_PAUSED", hint="set HOUSEKEEPING_PAUSED=false")
    if (reason := paused_reason(connection)) is not None:
        raise Refused(f"paused: {reason}", hint="run `housekeeping resume`")


def is_paused(connection: sa.Connection) -> bool:
    """Whether `housekeeping pause` was called since."""
    return paused_reason(connection) is not None


def check_privileges(connection: sa.Connection, plan: Plan, *, trashed: bool) -> None:
    """What may be deleted must also be allowed to come back: undo needs INSERT.

    Raises:
        Refused: the user lacks a privilege on a table of the plan; the hint grants it.
    """
    needed = ["SELECT", "UPDATE", "DELETE", *(["INSERT"] if trashed else [])]
    losing = [table for table in plan.members.values() if table not in plan.tables]
    for table in (*plan.tables, *losing):
        privileges = needed if table in plan.tables else ["SELECT", "UPDATE"]
        missing = [name for name in privileges if not _may(connection, table, name)]
        if missing:
            user = connection.scalar(sa.text("SELECT current_user"))
            raise Refused(
                f"user {user!r} lacks {', '.join(missing)} on {table.label}",
                hint=f'let its owner run: GRANT {", ".join(missing)} ON "{table.schema}"."{table.name}" TO "{user}"',
            )


def _may(connection: sa.Connection, table: Table, privilege: str) -> bool:
    asked = sa.func.has_table_privilege(sa.cast(table.oid, PgType("oid")), privilege)
    return bool(connection.scalar(sa.select(asked)))


def check_references(connection: sa.Connection, references: Iterable[Table], limits: Limits) -> None:
    """An empty reference table looks exactly like one that could not be read: everything would be an orphan.

    Raises:
        Refused: a table that is referred to is empty.
    """
    for table in references:
        if limits.allow_empty_reference:
            continue
        if connection.scalar(sa.select(sa.literal(True)).select_from(table.selectable).limit(1)) is None:
            raise Refused(
                f"{table.label} is empty, so everything that refers to it would be an orphan",
                hint="set allow_empty_reference: true if it is really meant to be empty",
            )


def check_fraction(table: Table, candidates: int, total: int, limits: Limits) -> None:
    """
    Raises:
        Refused: the run would take more of the table than `max_fraction`.
    """
    if limits.allow_large_deletion or candidates < limits.guard_minimum or candidates <= limits.max_fraction * total:
        return
    raise Refused(
        f"{candidates:,} of {total:,} rows of {table.label} are candidates, more than {limits.max_fraction:.0%}",
        hint="with allow_large_deletion: true it would run; try that with --dry-run first",
    )
