"""The rows that one transaction deletes: the roots and what depends on them, locked level by level from the top.

Each level is read by a statement of its own, after the level above is locked, so that a child which commits meanwhile
is seen. The rows of a leaf, to which nothing refers, are not read: the statement that deletes them locks them, and
finds them by the rows that they refer to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

import sqlalchemy as sa

from housekeeping_pipelines.deletion.batch_errors import RowError
from housekeeping_pipelines.postgres.keys import Key, KeyedColumns, Values, matches, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from housekeeping_pipelines.deletion.plan import Plan
    from housekeeping_pipelines.postgres.catalog import ForeignKey, Table


class LockedRow(NamedTuple):
    """One row by its key.

    Attributes:
        referred: the values by which other rows refer to it, in the order of `Plan.referred_columns`.
        age_seconds: of a root; None where its age is not a finite number.
    """

    key: Key
    referred: Values
    age_seconds: float | None = None


class LockedRoots(NamedTuple):
    """The roots that were asked for and are locked now, in their order; how many others have locked."""

    keys: list[Key]
    locked_by_others: int


def lock_roots(connection: sa.Connection, root: Table, keys: list[Key], *, dry_run: bool) -> LockedRoots:
    """Lock the rows of these keys that exist, and skip those that others have locked; a dry run only reads them."""
    statement = sa.select(*text_of(root, root.key)).where(matches(root, root.key, keys))
    if not dry_run:
        statement = statement.with_for_update(skip_locked=True)
        # Mostly it is all of them, and a count is cheaper to read than their keys.
        count = sa.select(sa.func.count()).select_from(statement.subquery())
        if connection.scalar(count) == len(keys):
            return LockedRoots(keys, 0)
    found = {tuple(row) for row in connection.execute(statement).all()}
    missing = [key for key in keys if key not in found]
    locked_by_others = 0
    if missing and not dry_run:
        # Those that still exist are locked; the others were deleted meanwhile.
        existing = sa.select(sa.func.count()).select_from(root.selectable).where(matches(root, root.key, missing))
        locked_by_others = connection.scalar(existing) or 0
    return LockedRoots([key for key in keys if key in found], locked_by_others)


@dataclass
class LockedRows:
    """The rows of one transaction by table; a dry run reads them without locks."""

    connection: sa.Connection
    plan: Plan
    dry_run: bool
    _by_table: dict[int, dict[Key, LockedRow]] = field(default_factory=dict)

    def add_roots(self, roots: Iterable[LockedRow], still_candidates: Callable[[list[Key]], list[LockedRow]]) -> None:
        """Add locked roots, and the rows of their table that refer to them; these must be candidates themselves.

        Raises:
            RowError: such a row is not a candidate.
        """
        root = self.plan.root
        self._by_table[root.oid] = {row.key: row for row in roots}

        def check(keys: list[Key]) -> None:
            if len(still_candidates(keys)) < len(keys):
                raise RowError("in_use", f"a row of {root.label} that must stay refers to it")

        self._add_self_references(root, check)

    def lock_dependents(self) -> None:
        """Lock the rows that depend on the roots, table by table from the top."""
        for table in self.plan.tables[1:]:
            # A dry run leaves shared rows in place, so it must know which of them it has counted.
            if not self.plan.is_leaf(table) or (self.dry_run and table.oid in self.plan.shared):
                which = self._children(table)
                self._by_table[table.oid] = {} if which is None else self._lock(table, which)
                self._add_self_references(table)

    def read(self, table_oid: int) -> Mapping[Key, LockedRow] | None:
        """The rows of a table by key; None of a leaf, whose rows were not read."""
        return self._by_table.get(table_oid)

    def condition(self, table: Table) -> sa.ColumnElement[bool] | None:
        """Which rows of a table the transaction deletes; None if it deletes none."""
        rows = self._by_table.get(table.oid)
        if rows is None:
            return self._children(table)
        return matches(table, table.key, rows) if rows else None

    def referring(self, key: ForeignKey) -> sa.ColumnElement[bool] | None:
        """Which rows of the key's child table refer to rows of its parent table here; None if none can."""
        return self._referring(key, self._by_table.get(key.parent, {}).values())

    def _children(self, table: Table) -> sa.ColumnElement[bool] | None:
        """Which rows of a table refer to rows of the tables above it; None if none can."""
        found = (self.referring(key) for key in self.plan.keys_to_parents(table))
        conditions = [condition for condition in found if condition is not None]
        return sa.or_(*conditions) if conditions else None

    def _referring(self, key: ForeignKey, rows: Iterable[LockedRow]) -> sa.ColumnElement[bool] | None:
        parent, child = self.plan.members[key.parent], self.plan.members[key.child]
        columns = self.plan.referred_columns(parent)
        targets = [row.referred for row in rows]
        if key.targets != columns:
            positions = [columns.index(name) for name in key.targets]
            targets = [tuple([values[position] for position in positions]) for values in targets]
        given = [target for target in targets if _has_no_null(target)]
        if not given:
            return None
        # The values are of the parent's types, which may be wider than the child's.
        types = [parent.type_of(name) for name in key.targets]
        return matches(child, key.columns, given, types, key.comparisons)

    def _lock(self, table: Table, which: sa.ColumnElement[bool]) -> dict[Key, LockedRow]:
        columns = KeyedColumns(table, self.plan.referred_columns(table))
        statement = sa.select(*columns.selected).where(which)
        if not self.dry_run:
            statement = statement.with_for_update()
        rows = (LockedRow(*columns.split(row)) for row in self.connection.execute(statement).all())
        return {row.key: row for row in rows}

    def _add_self_references(self, table: Table, check: Callable[[list[Key]], None] | None = None) -> None:
        """Add the rows of a table that refer to its rows here, and those that refer to them (the transitive closure).

        Args:
            check: raises where the rows of these keys may not be added.
        """
        keys = self.plan.self_references(table)
        rows = self._by_table[table.oid]
        frontier = rows
        while keys and frontier:
            found = (self._referring(key, frontier.values()) for key in keys)
            conditions = [condition for condition in found if condition is not None]
            locked = self._lock(table, sa.or_(*conditions)) if conditions else {}
            frontier = {key: row for key, row in locked.items() if key not in rows}
            if frontier and check is not None:
                check(list(frontier))
            rows |= frontier


def _has_no_null(values: Values) -> TypeGuard[Key]:
    """Whether other rows can refer to these values: nothing refers to null."""
    return None not in values
