"""Whether restored rows are as they were, and setting back what triggers changed of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from housekeeping_pipelines.postgres.catalog import PgType

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from housekeeping_pipelines.deletion.mirrors import Mirror
    from housekeeping_pipelines.postgres.catalog import Table


@dataclass(frozen=True)
class RestoredRows:
    """Rows of a mirror, and the rows of its table with the same keys.

    Attributes:
        which: selects the rows of the mirror.
        compared: the columns that have to be the same.
        same_type: those of them whose type is that of the mirror; the others are compared as text.
    """

    connection: sa.Connection
    mirror: Mirror
    table: Table
    which: sa.ColumnElement[bool]
    compared: Sequence[str]
    same_type: frozenset[str]

    def different(self) -> list[str]:
        """The places (ctid) in the mirror of rows that are not in the table as they were."""
        source, live = self.mirror.selectable, self.table.selectable
        restored = sa.select(sa.literal(1)).select_from(live).where(self._same_key, self._differs.is_(False))
        statement = sa.select(sa.cast(source.c.ctid, sa.Text)).where(self.which, ~restored.correlate(source).exists())
        return list(self.connection.scalars(statement))

    def set_all_back(self, referring: Collection[str]) -> bool:
        """Set rows back until none differs; returns whether none does.

        A trigger that rewrites each update is passed by, if the role may do that; then columns that refer to other rows
        are left out, since their keys would not be checked.

        Args:
            referring: the columns of foreign keys.
        """
        if not self.different():
            return True
        self.set_back()
        if self.different():
            with suppress(sa.exc.DBAPIError), self.connection.begin_nested():
                self.connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
                self.set_back(frozenset(referring))
                self.connection.exec_driver_sql("SET LOCAL session_replication_role = origin")
        return not self.different()

    def set_back(self, without: frozenset[str] = frozenset()) -> None:
        """Set the columns that differ to what they were, key and generated columns left out."""
        source, live = self.mirror.selectable, self.table.selectable
        fixed = {column.name for column in self.table.columns if column.generated or column.identity}
        names = [
            name
            for name in self.compared
            if name in self.same_type and name not in {*fixed, *self.mirror.key, *without}
        ]
        if names:
            values = {name: source.c[name] for name in names}
            statement = sa.update(live).values(values).where(self.which, self._same_key, self._differs)
            self.connection.execute(statement)

    @property
    def _same_key(self) -> sa.ColumnElement[bool]:
        source, live = self.mirror.selectable, self.table.selectable
        return sa.and_(
            *(
                source.c[name] == live.c[name]
                if name in self.same_type
                else sa.cast(source.c[name], sa.Text) == sa.cast(live.c[name], sa.Text)
                for name in self.mirror.key
            )
        )

    @property
    def _differs(self) -> sa.ColumnElement[bool]:
        """Whether a row's image differs: every type has one, whatever its operators, and at any size."""
        source, live = self.mirror.selectable, self.table.selectable
        images: list[Any] = [name for name in self.compared if name in self.same_type]
        found: list[sa.ColumnElement[bool]] = [
            sa.cast(live.c[name], sa.Text).is_distinct_from(sa.cast(source.c[name], sa.Text))
            for name in self.compared
            if name not in self.same_type
        ]
        if images:
            now, before = sa.func.row(*(live.c[n] for n in images)), sa.func.row(*(source.c[n] for n in images))
            found.append(sa.func.record_image_ne(now, before))
        return sa.or_(*found)


def delete_own_rows(connection: sa.Connection, table: Table, since: str | None = None) -> int:
    """Delete the rows that this transaction has made: triggers did, on the insertion of other rows.

    Args:
        since: a transaction number; rows of savepoints before it stay.

    Returns:
        how many.
    """
    xmin: sa.ColumnElement[Any] = sa.literal_column("xmin")
    age = sa.func.age(xmin)
    # Rows of our savepoints have numbers after the transaction's own; so may those of others, which have committed.
    number = sa.cast(sa.cast(sa.func.pg_current_xact_id(), sa.Text), sa.BigInteger) - age
    status = sa.func.pg_xact_status(sa.cast(sa.cast(number, sa.Text), PgType("xid8")))
    ours: sa.ColumnElement[bool] = sa.case((age <= 0, status == "in progress"), else_=False)
    if since is not None:
        ours = sa.and_(number >= sa.cast(since, sa.BigInteger), ours)
    return connection.execute(sa.delete(table.selectable).where(ours)).rowcount
