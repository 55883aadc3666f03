"""What may be deleted from one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable

    from housekeeping_pipelines.postgres.catalog import ForeignKey, Table


@dataclass(frozen=True)
class FileColumn:
    """A column that names an object of a store, which belongs to the row and follows it.

    Attributes:
        kept: the object stays although its row goes, and is no orphan for that.
    """

    table: Table
    column: str
    store: str
    kept: bool = False


@dataclass(frozen=True)
class Sparing:
    """Rows of a table that goes along, each of which keeps the row that it hangs on.

    The policy's `old` asks for them row by row. Where they go anyway, it is cheaper to look at what went.

    Attributes:
        key: the column by which they hang on it.
        spares: whether a value of the column does.
    """

    table: Table
    key: str
    column: str
    spares: Callable[[sa.ColumnElement[Any]], sa.ColumnElement[bool]]


@dataclass(frozen=True)
class RowPolicy:
    """Which rows of `table` are candidates.

    Attributes:
        age_from: the moment that a row's age counts from.
        old: whether it is long enough ago; a row whose age is not known is not old.
        sparing: rows of another table by which `old` is false of a row, and `old_itself` what is left of `old` without.
        eligible: the conditions and exemptions apart from age; None: every row.
        reason: why a candidate goes, for people.
        references: tables that must not be empty, since being absent from them is what makes a candidate.
        undeclared: keys that the application has and the database does not declare.
        users: the users' table, so that a hold on a user covers what is theirs.
        files: the objects that follow their rows.
        follows: whether the rows behind a key go along; where they do not, the policy says that there are none.
    """

    table: Table
    age_from: sa.ColumnElement[Any]
    old: sa.ColumnElement[bool]
    reason: str
    eligible: sa.ColumnElement[bool] | None = None
    references: tuple[Table, ...] = ()
    undeclared: tuple[ForeignKey, ...] = ()
    follows: Callable[[ForeignKey], bool] | None = None
    users: Table | None = None
    files: tuple[FileColumn, ...] = ()
    sparing: Sparing | None = None
    old_itself: sa.ColumnElement[bool] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def condition(self) -> sa.ColumnElement[bool]:
        """Whether a row is a candidate, holds apart."""
        return self.old if self.eligible is None else sa.and_(self.eligible, self.old)

    @property
    def own_condition(self) -> sa.ColumnElement[bool]:
        """The same without a look at `sparing`."""
        old = self.old if self.old_itself is None else self.old_itself
        return old if self.eligible is None else sa.and_(self.eligible, old)
