"""Every rule that refuses a run before it deletes anything, for rows, files, objects and vectors alike.

- paused: deletion is paused, by the setting or by `housekeeping pause` (`check_not_paused`; `is_paused` ends a run that
  is in progress before its next batch).
- clock: ours differs from the server's, so that no age is known (`check_may_start`, which asks for a pause, too).
- disabled: a setting says that nothing is removed from a store (`check_enabled`).
- privileges: the database user may not delete the rows, or could not restore them (`check_privileges`).
- publications: a table is published and nothing identifies its rows (`check_published`).
- rehearsal: an undo would not bring a row back (`deletion.rehearsal`).
- empty reference: a table whose rows keep candidates is empty (`check_references`); or the values of a source name
  nothing in the store, or it had values and has none (`check_sources`).
- volumes: the same two rules for each file system that is mounted below a store (`check_volume`).
- sample: the tables are the demo's, and the store is not (`check_not_sample`).
- links: a store has links to its own files, so that a row may name a file by another name (`check_no_inner_links`).
- fraction: the candidates are too large a share of the table (`check_fraction`) or store (`check_store_fraction`).

Rules that keep single candidates and refuse no run are elsewhere: the age floor is a condition of each policy and of
each search, holds are in `deletion.holds`, and references are read again just before a candidate is deleted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

from housekeeping_pipelines.deletion.pause import paused_reason
from housekeeping_pipelines.errors import Refused
from housekeeping_pipelines.postgres.catalog import PgType
from housekeeping_pipelines.postgres.requirements import clock_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.deletion.plan import Plan
    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.execution.report import StoppedReason
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.postgres.catalog import Table

_ALLOW_EMPTY = "set allow_empty_reference: true if it is meant to be empty"


class Source(Protocol):
    """A column whose values name what is in use."""

    @property
    def label(self) -> str:
        """The column in messages."""

    def values(self) -> sa.FromClause:
        """Every value."""


def check_not_paused(connection: sa.Connection, *, by_setting: bool) -> None:
    """
    Raises:
        Refused: deletion is paused.
    """
    if by_setting:
        raise Refused("paused by HOUSEKEEPING_PAUSED", hint="set HOUSEKEEPING_PAUSED=false")
    if (reason := paused_reason(connection)) is not None:
        raise Refused(f"paused: {reason}", hint="run `housekeeping resume`")


def check_may_start(run: Run) -> None:
    """
    Raises:
        Refused: deletion is paused, or the clock differs from the server's.
    """
    check_not_paused(run.connection, by_setting=run.paused_by_setting)
    if run.compares_clocks and (problem := clock_problem(run.connection, run.clock())) is not None:
        raise Refused(problem.message, hint=problem.hint)


def check_enabled(store: Store) -> None:
    """
    Raises:
        Refused: nothing is to be removed from the store.
    """
    if store.disabled is not None:
        raise Refused(
            f"{store.disabled}: nothing is removed from {store.name}", hint="set it to true, or make a dry run"
        )


def is_paused(connection: sa.Connection) -> bool:
    """Whether `housekeeping pause` is in effect."""
    return paused_reason(connection) is not None


def reason_to_stop(run: Run, max_seconds: float | None = None) -> StoppedReason | None:
    """Why a run takes up nothing new: a signal, its time, or a pause; None: it may go on. Ends the transaction."""
    reason = run.has_to_stop(max_seconds) or ("paused" if is_paused(run.connection) else None)
    run.connection.rollback()
    return reason


def check_privileges(connection: sa.Connection, plan: Plan, *, trashed: bool) -> None:
    """Require the privileges to delete and to restore: undo needs INSERT.

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


# A published table without a replica identity: PostgreSQL refuses to delete from it.
_UNIDENTIFIED = sa.text(
    """
    SELECT p.pubname FROM pg_publication p, pg_class c
    WHERE c.oid = CAST(:oid AS oid) AND p.pubdelete
      AND (p.puballtables
           OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)
           OR EXISTS (SELECT FROM pg_publication_namespace n WHERE n.pnpubid = p.oid AND n.pnnspid = c.relnamespace))
      AND (c.relreplident = 'n' OR (c.relreplident = 'd' AND NOT EXISTS (
               SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)))
    LIMIT 1
    """
)


def check_published(connection: sa.Connection, plan: Plan) -> None:
    """
    Raises:
        Refused: PostgreSQL deletes no row of a table, since a publication has it and nothing identifies its rows.
    """
    for table in plan.tables:
        if (publication := connection.scalar(_UNIDENTIFIED, {"oid": table.oid})) is not None:
            raise Refused(
                f"no row of {table.label} can be deleted: {publication} publishes it, and it has no replica identity",
                hint=f"give {table.label} a primary key, or let its owner run:"
                f' ALTER TABLE "{table.schema}"."{table.name}" REPLICA IDENTITY FULL',
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
    """Require rows in each reference table: an empty one makes everything an orphan, and may be one that was lost.

    Args:
        orphaned: what would be an orphan; the caller knows that there is some.

    Raises:
        Refused: a reference table is empty.
    """
    if limits.allow_empty_reference:
        return
    for table in references:
        if _is_empty(connection, table.selectable):
            raise Refused(f"{table.label} is empty, so {orphaned} would be an orphan", hint=_ALLOW_EMPTY)


@dataclass(frozen=True)
class SourceCount:
    """What the values of one source name.

    Attributes:
        values: how many it has.
        named: how many of them name something in the store.
        sample: a few that name nothing.
        named_before: when it last named something, in an earlier run.
        declared: False for a source of an earlier run that is not one any more.
    """

    label: str
    values: int
    named: int
    sample: tuple[str, ...] = ()
    named_before: datetime | None = None
    declared: bool = True


def check_sources(sources: Sequence[SourceCount], store: str, limits: Limits) -> None:
    """Require that the values of each source name something in the store: others may lead to another folder.

    A source may be empty if it always was; one of them at least must name something.

    Args:
        store: the label of the store, which is not empty.

    Raises:
        Refused: not one value of a source names anything, a source was emptied, or none names anything.
    """
    if limits.allow_empty_reference:
        return
    for source in sources:
        if source.values and not source.named:
            shown = f", such as {', '.join(map(repr, source.sample))}" if source.sample else ""
            raise Refused(
                f"not one of the {source.values:,} values of {source.label} names anything in {store}{shown}",
                hint="check the column and the address of the store, or declare the other root under roots: in"
                " housekeeping.yaml; set allow_empty_reference: true if nothing is meant to be named",
            )
        if not source.declared:
            raise Refused(
                f"{source.label} named files in {store} on {source.named_before:%Y-%m-%d}, and is not one of the"
                " references any more",
                hint="declare it again, or set allow_empty_reference: true once if it is meant to name none",
            )
        if not source.values and source.named_before is not None:
            raise Refused(
                f"{source.label} has no values; on {source.named_before:%Y-%m-%d} it named files in {store}",
                hint="restore the table; or set allow_empty_reference: true once if it is meant to be empty",
            )
    if not any(source.named for source in sources):
        labels = ", ".join(source.label for source in sources)
        raise Refused(f"no row names anything in {store}, by {labels}: all of it would be an orphan", hint=_ALLOW_EMPTY)


def check_volume(volume: str, files: int, unnamed: int, limits: Limits) -> None:
    """Require that some row names a file of a volume: another disk than the one that rows mean may be mounted there.

    Raises:
        Refused: nothing on it is named.
    """
    if unnamed and unnamed == files and not limits.allow_empty_reference:
        raise Refused(
            f"no row names anything in {volume}, which is a volume of its own: all of it would be an orphan",
            hint="check what is mounted there, or set allow_empty_reference: true if nothing is meant to be named",
        )


def check_not_empty(sources: Sequence[SourceCount], store: str, limits: Limits) -> None:
    """Require values of each source.

    Raises:
        Refused: a source has none.
    """
    for source in sources:
        if not source.values and not limits.allow_empty_reference:
            raise Refused(
                f"{source.label} has no values, so everything in {store} would be an orphan", hint=_ALLOW_EMPTY
            )


def check_not_emptied(connection: sa.Connection, sources: Iterable[Source], limits: Limits) -> None:
    """Require that sources that had values still have some.

    Raises:
        Refused: a source has none.
    """
    for source in sources:
        if not limits.allow_empty_reference and _is_empty(connection, source.values()):
            raise Refused(f"{source.label} has been emptied since the search began", hint=_ALLOW_EMPTY)


def _is_empty(connection: sa.Connection, rows: sa.FromClause, *conditions: sa.ColumnElement[bool]) -> bool:
    found = sa.select(sa.literal(True)).select_from(rows).where(*conditions).limit(1)
    return connection.scalar(found) is None


def check_not_sample(tables: Sequence[str], store: str, setting: str) -> None:
    """
    Args:
        tables: those of the demo that are to tell what is in use.
        setting: the variable that names the store.

    Raises:
        Refused: there is one.
    """
    if tables:
        raise Refused(
            f"{tables[0]} is the demo's sample, whose rows name no file of {store}, which {setting} names",
            hint=f"set DATABASE_URL to the platform's database, or unset {setting}",
        )


def check_no_inner_links(store: str, links: Sequence[str]) -> None:
    """
    Raises:
        Refused: the store has links to its own files.
    """
    if links:
        raise Refused(
            f"{store} has links within itself, such as {links[0]}: a row may name a file by one",
            hint="replace each link with its target",
        )


def check_fraction(what: str, candidates: int, total: int, limits: Limits) -> None:
    """
    Args:
        what: the items that are counted, as `rows of messages`.

    Raises:
        Refused: the candidates are more than `max_fraction` of the total.
    """
    if limits.allow_large_deletion or candidates < limits.guard_minimum or candidates <= limits.max_fraction * total:
        return
    raise Refused(
        f"{candidates:,} of {total:,} {what} are candidates, more than {limits.max_fraction:.0%}",
        hint="check with --dry-run, then set allow_large_deletion: true",
    )


def check_store_fraction(what: str, candidates: int, total: int, limits: Limits, *, final: bool) -> None:
    """As `check_fraction`, for a store of files, where `guard_minimum` is the number of files in the store.

    Args:
        final: removal cannot be undone; then there is no minimum.

    Raises:
        Refused: the candidates are more than `max_fraction` of the total.
    """
    if final or total >= limits.guard_minimum:
        check_fraction(what, candidates, total, replace(limits, guard_minimum=0))
