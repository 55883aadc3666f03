"""Restoring rows that a key in NOT VALID has without a parent, and would not take now.

Where the role may do that, such rows are written while no key is checked; then the other keys are checked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable

    from housekeeping_pipelines.postgres.catalog import Catalog, ForeignKey, Table

T = TypeVar("T")


class MissingParent(Exception):
    """A row refers to a row that does not exist, by a key that does not allow it."""


@dataclass(frozen=True)
class UnvalidatedKeys:
    """The keys of the live database that are NOT VALID."""

    connection: sa.Connection
    catalog: Catalog

    def write(
        self, table: Table, action: Callable[[], T], written: tuple[sa.FromClause, sa.ColumnElement[bool]],
        *, only: frozenset[str] | None = None, without: frozenset[str] = frozenset(),
    ) -> T:  # fmt: skip
        """Do what writes rows of a table; again without checks if a key fails that is NOT VALID.

        Args:
            written: the rows with the values that they will have, and which.
            only: the columns that are written; None: all.
            without: columns that are not written yet.

        Raises:
            sqlalchemy.exc.DBAPIError: as the action.
            MissingParent: a row would refer to nothing by another key.
        """
        try:
            with self.connection.begin_nested():
                return action()
        except sa.exc.DBAPIError as error:
            name = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
            keys = [key for key in self.catalog.foreign_keys if key.child == table.oid]
            if not any(key.name == name and not key.validated for key in keys):
                raise
            try:
                with self.connection.begin_nested():
                    self.connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
                    result = action()
                    self.connection.exec_driver_sql("SET LOCAL session_replication_role = origin")
                    for key in keys:
                        columns = set(key.columns)
                        if key.validated and not columns & without and (only is None or columns & only):
                            self._check(table, key, *written)
            except sa.exc.DBAPIError:
                raise error from None
            return result

    def _check(self, table: Table, key: ForeignKey, rows: sa.FromClause, which: sa.ColumnElement[bool]) -> None:
        parent = self.catalog.table(key.parent).selectable.alias()
        named = [rows.c[column].is_not(None) for column in key.columns]
        there = sa.select(sa.literal(1)).select_from(parent).where(*key.same(rows, parent)).correlate(rows).exists()
        lost = sa.select(sa.literal(True)).select_from(rows).where(which, *named, ~there).limit(1)
        if self.connection.scalar(lost):
            raise MissingParent(f"rows of {table.label} refer by {key.name} to rows that do not exist")
