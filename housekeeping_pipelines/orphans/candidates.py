"""The candidates of one search, in a temporary table of its session: oldest first, within a budget, by size."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.guards import SourceCount
from housekeeping_pipelines.orphans import cursors
from housekeeping_pipelines.orphans.listing import temporary_table
from housekeeping_pipelines.resources.object_storage import StoredObject
from housekeeping_pipelines.stores.in_use import in_use

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from housekeeping_pipelines.orphans.search import Scan

ORPHANS = temporary_table("housekeeping_orphans")
# Files that nothing refers to and that are too young.
YOUNG = temporary_table("housekeeping_young")


@dataclass(frozen=True)
class Findings:
    """The result of a search; counts are of files.

    Attributes:
        scanned: every file in the listing.
        orphaned: the candidates: unreferenced, old enough, and not kept for another reason.
        young: unreferenced, but too young or of unknown age.
        unrecognised: unreferenced, but of another kind, or with a name that is not valid UTF-8.
        held, in_use: unreferenced, but kept by a hold, or for another reason.
        missing_count: different values of rows that mean no file of the store.
        missing: up to 50 of these.
        sources: how many values each source has, and how many of them mean a file.
    """

    scanned: int = 0
    orphaned: int = 0
    young: int = 0
    unrecognised: int = 0
    held: int = 0
    in_use: int = 0
    missing_count: int = 0
    missing: tuple[str, ...] = ()
    sources: tuple[SourceCount, ...] = ()
    warnings: tuple[str, ...] = ()


class KeptCounts(NamedTuple):
    """How many candidates are kept: by holds, as they are in use in another way, and as they are left alone."""

    held: int = 0
    in_use: int = 0
    excluded: int = 0


@dataclass(frozen=True)
class BudgetCut:
    """How many of the candidates, oldest first, fit the budgets, and which budget ends them.

    Attributes:
        too_large: files that alone exceed `max_bytes`, which are passed over.
    """

    files: int
    bytes: int
    stopped_reason: Literal["max_files", "max_gigabytes"] | None
    too_large: int = 0


@dataclass(frozen=True)
class Orphans:
    """The candidates of one search; their table lasts until the next search of the session.

    The methods end the transaction that the connection is in, except `still_orphans`.
    """

    connection: sa.Connection
    scan: Scan
    findings: Findings

    def candidates(self, batch_size: int, *, max_bytes: int | None = None) -> Iterator[list[StoredObject]]:
        """All that `max_bytes` allows by themselves, oldest first; the caller may commit between the batches."""
        return self._read(_files(max_bytes).order_by(ORPHANS.c.modified, ORPHANS.c.name), batch_size)

    def chosen(
        self, batch_size: int, *, max_files: int | None = None, max_bytes: int | None = None
    ) -> Iterator[list[StoredObject]]:
        """The oldest that fit the budgets, ordered by name bytewise; the caller may commit between the batches."""
        queue = _queue(max_bytes)
        files = sa.select(queue.c.name, queue.c.size, queue.c.modified)
        for column, budget in ((queue.c.files, max_files), (queue.c.bytes, max_bytes)):
            if budget is not None:
                files = files.where(column <= budget)
        return self._read(files.order_by(queue.c.name), batch_size)

    def cut(self, *, max_files: int | None = None, max_bytes: int | None = None) -> BudgetCut:
        """How much `chosen` will yield: it ends before the first file that would exceed a budget.

        A file that exceeds `max_bytes` by itself is passed over: it would end every run there.
        """
        queue = _queue(max_bytes)
        beyond_files = queue.c.files > max_files if max_files is not None else sa.false()
        beyond_bytes = queue.c.bytes > max_bytes if max_bytes is not None else sa.false()
        fits = sa.not_(sa.or_(beyond_files, beyond_bytes))
        statement = sa.select(
            sa.func.count().filter(fits),
            sa.func.coalesce(sa.func.max(queue.c.bytes).filter(fits), 0),
            sa.func.count().filter(beyond_files),
            sa.func.count().filter(beyond_bytes),
        ).select_from(queue)
        too_large = 0
        with cursors.transaction(self.connection):
            files, size, over_files, over_bytes = self.connection.execute(statement).one()
            if max_bytes is not None:
                over = sa.select(sa.func.count()).where(ORPHANS.c.size > max_bytes)
                too_large = self.connection.scalar(over) or 0
        if not over_files and not over_bytes:
            return BudgetCut(files, int(size), None, too_large)
        return BudgetCut(files, int(size), "max_files" if over_files >= over_bytes else "max_gigabytes", too_large)

    def largest(self, count: int = 20) -> list[StoredObject]:
        """The candidates that take the most space, the largest first."""
        statement = _files().order_by(ORPHANS.c.size.desc().nulls_last(), ORPHANS.c.name).limit(count)
        with cursors.transaction(self.connection):
            return [stored(row) for row in self.connection.execute(statement)]

    def still_orphans(self, names: Sequence[str]) -> set[str]:
        """Those of the names that no reference source refers to now.

        It reads every source whole unless a column is indexed as it is compared, so thousands of names at a time are
        best. The transaction that the connection is in must be READ COMMITTED, as sessions of `make_engine` are:
        another would show the references as they were at its start.

        Raises:
            Refused: a source was emptied meanwhile.
        """
        sources = self.scan.sources
        had_values = [source for source, count in zip(sources, self.findings.sources, strict=False) if count.values]
        guards.check_not_emptied(self.connection, had_values, self.scan.limits)
        return set(names) - in_use(self.connection, sources, names).names

    def _read(self, statement: sa.Select[Any], batch_size: int) -> Iterator[list[StoredObject]]:
        return ([stored(row) for row in rows] for rows in cursors.held_cursor(self.connection, statement, batch_size))


def names_in_batches(connection: sa.Connection, batch_size: int) -> Iterator[list[str]]:
    """The names of all candidates, in no order; the caller may commit, and strike candidates, between the batches."""
    for rows in cursors.held_cursor(connection, sa.select(ORPHANS.c.name), batch_size):
        yield [name for (name,) in rows]


def count(connection: sa.Connection, table: sa.Table, prefix: str = "") -> int:
    """The rows of a table whose names begin with the prefix."""
    rows = sa.select(sa.func.count()).select_from(table)
    return connection.scalar(rows.where(sa.func.starts_with(table.c.name, prefix)) if prefix else rows) or 0


def strike(connection: sa.Connection, names: Collection[str]) -> int:
    """Strike names from the candidates; returns how many files these were."""
    wanted = sa.bindparam("names", sorted(names), ARRAY(sa.Text))
    with cursors.transaction(connection):
        return connection.execute(sa.delete(ORPHANS).where(ORPHANS.c.name == sa.any_(wanted))).rowcount


def stored(row: Any) -> StoredObject:
    """A row of name, size and modified as an object of the store."""
    name, size, modified = row
    return StoredObject(name, size, modified and modified.astimezone(UTC))


def _files(max_bytes: int | None = None) -> sa.Select[Any]:
    files = sa.select(ORPHANS.c.name, ORPHANS.c.size, ORPHANS.c.modified)
    return files if max_bytes is None else files.where(sa.func.coalesce(ORPHANS.c.size, 0) <= max_bytes)


def _queue(max_bytes: int | None) -> sa.Subquery:
    """The candidates with running totals of files and bytes, oldest first, without those that exceed `max_bytes`."""
    so_far: dict[str, Any] = {"order_by": (ORPHANS.c.modified, ORPHANS.c.name), "rows": (None, 0)}
    return (
        _files(max_bytes)
        .add_columns(
            sa.func.row_number().over(order_by=so_far["order_by"]).label("files"),
            sa.func.sum(sa.func.coalesce(ORPHANS.c.size, 0)).over(**so_far).label("bytes"),
        )
        .subquery()
    )
