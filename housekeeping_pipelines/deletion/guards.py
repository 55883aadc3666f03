"""The rules that refuse a run before it deletes anything: here for rows, files, objects and vectors, and nowhere else.

- paused: everything is paused, by the setting or by `housekeeping pause` (`check_not_paused`; `is_paused` ends a run
  before its next batch).
- privileges: a table's rows could not be deleted, or not be restored (`check_privileges`).
- empty reference: a table that says what is in use is empty (`check_references`), or its values name nothing in the
  store (`check_sources`).
- links: files of a folder have more names than their own (`check_no_inner_links`).
- fraction: too large a share of a table or store would be deleted (`check_fraction`).

Three rules are not guards, since they keep single candidates and refuse no run: the age floor is a condition of each
policy and search, holds are in `deletion.holds`, and what refers to a candidate is asked again just before it goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa

from housekeeping_pipelines.deletion.pause import paused_reason
from housekeeping_pipelines.errors import Refused
from housekeeping_pipelines.postgres.catalog import PgType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.deletion.plan import Plan
    from housekeeping_pipelines.postgres.catalog import Table

_ALLOW_EMPTY = "set allow_empty_reference: true if it is really meant to be empty"


class Source(Protocol):
    """A column whose values say what is in use."""

    @property
    def table(self) -> Table:
        """The table whose column it is."""

    @property
    def label(self) -> str:
        """The column as a person writes it."""


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


def check_references(
    connection: sa.Connection,
    references: Iterable[Table],
    limits: Limits,
    *,
    orphaned: str = "everything that refers to it",
) -> None:
    """An empty reference table looks exactly like one that could not be read: everything would be an orphan.

    Args:
        orphaned: what would be an orphan; it is known not to be empty.

    Raises:
        Refused: a table that is referred to is empty.
    """
    if limits.allow_empty_reference:
        return
    for table in references:
        if _is_empty(connection, table.selectable):
            raise Refused(f"{table.label} is empty, so {orphaned} would be an orphan", hint=_ALLOW_EMPTY)


def check_sources(
    connection: sa.Connection, sources: Sequence[Source], keys: sa.CompoundSelect[Any], store: str, limits: Limits
) -> None:
    """A table that was emptied, or paths that lead elsewhere, look exactly like files that nobody needs.

    Args:
        keys: the names that the sources' values stand for, in the column `key`; null where one stands for none.
        store: the label of a store that is not empty.

    Raises:
        Refused: a source's table is empty, or no value of any source names a file.
    """
    tables = {source.table.oid: source.table for source in sources}
    check_references(connection, tables.values(), limits, orphaned=f"everything in {store}")
    found = keys.subquery()
    if not limits.allow_empty_reference and _is_empty(connection, found, found.c.key.is_not(None)):
        labels = ", ".join(source.label for source in sources)
        raise Refused(
            f"nothing in {labels} names anything in {store}, so all of it would be an orphan",
            hint=_ALLOW_EMPTY,
        )


def _is_empty(connection: sa.Connection, rows: sa.FromClause, *conditions: sa.ColumnElement[bool]) -> bool:
    found = sa.select(sa.literal(True)).select_from(rows).where(*conditions).limit(1)
    return connection.scalar(found) is None


def check_no_inner_links(store: str, links: Sequence[str]) -> None:
    """
    Raises:
        Refused: the store has links to its own files.
    """
    if links:
        raise Refused(
            f"{store} has links within itself, such as {links[0]}: a row may name a file by one",
            hint="replace them by what they lead to",
        )


def check_fraction(what: str, candidates: int, total: int, limits: Limits) -> None:
    """
    Args:
        what: is counted, as `rows of messages`.

    Raises:
        Refused: the run would take more of the total than `max_fraction`.
    """
    if limits.allow_large_deletion or candidates < limits.guard_minimum or candidates <= limits.max_fraction * total:
        return
    raise Refused(
        f"{candidates:,} of {total:,} {what} are candidates, more than {limits.max_fraction:.0%}",
        hint="with allow_large_deletion: true it would run; try that with --dry-run first",
    )
