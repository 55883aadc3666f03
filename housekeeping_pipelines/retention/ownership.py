"""What an account owns: rows that refer to it by a key, and rows that look as if they did."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.postgres.schema import OUR_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from housekeeping_pipelines.application.platform import MappedTable, Platform
    from housekeeping_pipelines.postgres.catalog import Catalog, ForeignKey, Table

# Columns of these names hold accounts, whether or not a key says so. `account_id` often means a tenant.
_OWNER_NAMES = {
    *(f"{who}{end}" for who in ("user", "owner", "author", "creator", "sender", "uploader", "assignee")
      for end in ("", "id", "uuid")),
    *(f"{done}by{end}" for done in ("created", "uploaded", "owned", "sent") for end in ("", "id")),
}  # fmt: skip

_COLUMNS = sa.text(
    """
    SELECT a.attrelid AS oid, a.attname AS name FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', :ours) AND n.nspname NOT LIKE 'pg\\_t%'
      AND (t.typcategory IN ('N', 'S') OR t.typname = 'uuid') AND t.typname NOT IN ('float4', 'float8')
      AND translate(lower(a.attname), '_', '') = ANY (CAST(:names AS text[]))
      AND has_column_privilege(a.attrelid, a.attnum, 'SELECT')
    ORDER BY a.attrelid, a.attnum
    """
).bindparams(ours=OUR_SCHEMA)

SHOWN = 6


@dataclass(frozen=True)
class Ownership:
    """How to tell that an account owns nothing.

    Attributes:
        paths: keys that lead from the users, through tables of the account itself, to tables that are not.
        columns: columns without a key that look as if they held accounts.
    """

    catalog: Catalog
    users: MappedTable
    paths: tuple[tuple[ForeignKey, ...], ...]
    columns: tuple[tuple[Table, str], ...]

    @property
    def owned(self) -> list[ForeignKey]:
        """The keys by which something is owned: its rows are never deleted with an account."""
        return [path[-1] for path in self.paths]

    def nothing(self) -> list[sa.ColumnElement[bool]]:
        """The conditions under which a row of the users owns nothing."""
        refers = [_refers(self.catalog, path, self.users.live) for path in self.paths]
        return [~each for each in (*refers, *(self._is_in(table, column) for table, column in self.columns))]

    def describe(self) -> str:
        """The columns that were looked at."""
        names = [f"{self.catalog.table(key.child).label}.{key.columns[0]}" for key in self.owned]
        names += [f"{table.label}.{column}" for table, column in self.columns]
        names = list(dict.fromkeys(names))
        more = f" and {len(names) - SHOWN} more columns" if len(names) > SHOWN else ""
        return ", ".join(names[:SHOWN]) + more

    def _is_in(self, table: Table, column: str) -> sa.ColumnElement[bool]:
        other, key = table.selectable.alias(), self.users["id"]
        value: sa.ColumnElement[Any] = other.c[column]
        name = self.users.names["id"]
        if name is None or table.column(column).bare_type != self.users.live.column(name).bare_type:
            value, key = sa.cast(value, sa.Text), sa.cast(key, sa.Text)
        found = sa.select(sa.literal(1)).select_from(other).where(value == key)
        return found.correlate(self.users.live.selectable).exists()


def find_ownership(platform: Platform, users: MappedTable, undeclared: Iterable[ForeignKey]) -> Ownership:
    """
    Args:
        undeclared: the application's keys that the database does not declare.

    Raises:
        ConfigurationError: a table or column of `inactive_users` does not exist, or no key leads to it.
    """
    catalog, given = platform.catalog, platform.config.inactive_users
    keys = [*catalog.foreign_keys, *undeclared]
    accounts = {table.oid: table for table in map(platform.any_table, given.account_tables)}
    reached = _reached(keys, users.live.oid, accounts.keys())
    for oid, table in accounts.items():
        if oid not in reached:
            raise ConfigurationError(
                f"inactive_users.account_tables: no key leads from {table.label} to {users.live.label}, so its rows"
                " would stay",
                hint="declare the key, or take the table off the list",
            )
    ignored = {_column(platform, name) for name in given.ignored_columns}
    known = {(key.child, name) for key in keys for name in key.columns}
    strange = [
        (catalog.table(row.oid), row.name)
        for row in platform.catalog.connection.execute(_COLUMNS, {"names": _names(users.live.name)})
        if row.oid not in {users.live.oid, *accounts} and (row.oid, row.name) not in known | ignored
    ]
    return Ownership(catalog, users, tuple(_paths_to_owned(keys, users.live.oid, accounts.keys())), tuple(strange))


def _names(users: str) -> list[str]:
    singular = re.sub(r"[^a-z0-9]", "", users.lower()).removesuffix("s")
    return sorted({*_OWNER_NAMES, f"{singular}id"})


def _column(platform: Platform, name: str) -> tuple[int, str]:
    """
    Raises:
        ConfigurationError: there is no such column.
    """
    table_name, _, column = name.rpartition(".")
    table = platform.any_table(table_name)
    if column not in {each.name for each in table.columns}:
        raise ConfigurationError(
            f"inactive_users.ignored_columns: {table.label} has no column {column}{table.nearest(column)}",
            hint="write table.column",
        )
    return table.oid, column


def _reached(keys: Sequence[ForeignKey], users: int, accounts: Collection[int]) -> set[int]:
    """The tables of the account itself to which keys lead."""
    found, queue = {users}, [users]
    for parent in queue:
        for key in keys:
            if key.parent == parent and key.child in accounts and key.child not in found:
                found.add(key.child)
                queue.append(key.child)
    return found


def _paths_to_owned(
    keys: Sequence[ForeignKey], users: int, accounts: Collection[int], path: tuple[ForeignKey, ...] = ()
) -> Iterator[tuple[ForeignKey, ...]]:
    """The paths of keys from the users, through tables of the account itself, to tables that are not.

    A user with a row at the end of such a path owns something, if only through a profile.
    """
    parent = path[-1].child if path else users
    for key in keys:
        if key.parent != parent or key.child in {users, *(step.child for step in path)} & {*accounts}:
            continue
        if key.child in accounts:
            yield from _paths_to_owned(keys, users, accounts, (*path, key))
        else:
            yield (*path, key)


def _refers(catalog: Catalog, path: Sequence[ForeignKey], users: Table) -> sa.ColumnElement[bool]:
    parent: Any = users.selectable
    joined: Any = None
    same: list[sa.ColumnElement[bool]] = []
    for key in path:
        child = catalog.table(key.child).selectable.alias()
        same += key.same(child, parent)
        joined = child if joined is None else joined.join(child, sa.true())
        parent = child
    return sa.select(sa.literal(1)).select_from(joined).where(*same).correlate(users.selectable).exists()
