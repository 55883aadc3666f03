"""What may be deleted from one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from housekeeping_pipelines.postgres.catalog import ForeignKey, Table


@dataclass(frozen=True)
class FileColumn:
    """A column that names an object of a store, which belongs to the row and is removed after it.

    Attributes:
        kept: the object stays when its row is deleted, and does not count as an orphan.
        may_mean: the names in the store that a value may mean.
    """

    table: Table
    column: str
    store: str
    kept: bool = False
    may_mean: Callable[[str], Collection[str]] = lambda value: (value,)


@dataclass(frozen=True)
class KeepRule:
    """A row is kept while a child row satisfies `keeps`.

    The policy's `old` looks for such children row by row. Where the children are deleted with the row anyway, it is
    cheaper to look at the deleted ones.

    Attributes:
        table: the children's table.
        key: their column that refers to the row.
        column: their column that decides.
        keeps: the condition on a value of `column`.
    """

    table: Table
    key: str
    column: str
    keeps: Callable[[sa.ColumnElement[Any]], sa.ColumnElement[bool]]


@dataclass(frozen=True)
class RowPolicy:
    """Which rows of `table` are candidates.

    Attributes:
        age_from: the moment from which a row's age is counted.
        old: whether that is long enough ago; a row of unknown age is not old.
        keep_rule: rows of another table that make `old` false for a row.
        own_age_condition: `old` without the keep rule's part.
        eligible: the conditions and exemptions apart from age; None: every row.
        reason: why a candidate is deleted, for the report.
        references: tables that must not be empty, since a row that is absent from them makes a candidate.
        undeclared: keys that the application has and the database does not declare.
        users: the users' table, so that a hold on a user covers what belongs to the user.
        files: the objects that are removed after their rows.
        also_deleted: tables of which triggers may delete further rows, which cannot be restored.
        without_undo: tables whose rows need not come back.
        follows: whether the rows that refer by a key are deleted too; False where the policy implies that none do.
    """

    table: Table
    age_from: sa.ColumnElement[Any]
    old: sa.ColumnElement[bool]
    reason: str
    eligible: sa.ColumnElement[bool] | None = None
    references: tuple[Table, ...] = ()
    undeclared: tuple[ForeignKey, ...] = ()
    also_deleted: tuple[Table, ...] = ()
    without_undo: tuple[Table, ...] = ()
    follows: Callable[[ForeignKey], bool] | None = None
    users: Table | None = None
    files: tuple[FileColumn, ...] = ()
    keep_rule: KeepRule | None = None
    own_age_condition: sa.ColumnElement[bool] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def condition(self) -> sa.ColumnElement[bool]:
        """Whether a row is a candidate, apart from holds."""
        return self.old if self.eligible is None else sa.and_(self.eligible, self.old)

    @property
    def own_condition(self) -> sa.ColumnElement[bool]:
        """The condition without the keep rule."""
        old = self.old if self.own_age_condition is None else self.own_age_condition
        return old if self.eligible is None else sa.and_(self.eligible, old)
