"""What may be deleted from one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable

    from housekeeping_pipelines.deletion.catalog import ForeignKey, Table


@dataclass(frozen=True)
class RowPolicy:
    """Which rows of `table` are candidates.

    Attributes:
        age_from: the moment that a row's age counts from.
        old: whether it is long enough ago; a row whose age is not known is not old.
        eligible: the conditions and exemptions apart from age; None: every row.
        reason: why a candidate goes, for people.
        references: tables that must not be empty, since being absent from them is what makes a candidate.
        undeclared: keys that the application has and the database does not declare.
        users: the users' table, so that a hold on a user covers what is theirs.
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
    warnings: tuple[str, ...] = ()

    @property
    def condition(self) -> sa.ColumnElement[bool]:
        """Whether a row is a candidate, holds apart."""
        return self.old if self.eligible is None else sa.and_(self.eligible, self.old)
