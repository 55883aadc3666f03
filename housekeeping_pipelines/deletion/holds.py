"""Holds: a hold exempts one subject from every policy until a date.

Every transaction that commits after `add_hold` honours the hold: each batch takes the holds' lock in share mode before
it reads them, and adding a hold waits for the batches in progress.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from housekeeping_pipelines.deletion.tables import holds
from housekeeping_pipelines.errors import ConfigurationError, Refused
from housekeeping_pipelines.postgres.keys import Key, matches
from housekeeping_pipelines.postgres.locks import lock_for_transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from housekeeping_pipelines.postgres.catalog import Catalog, ForeignKey, Table

HOLDS_LOCK = "holds"

# How far up the keys the owner of a row is searched: message -> conversation -> workspace -> team -> user.
MAX_OWNER_DISTANCE = 4

HoldType = Literal["row", "user", "session"]

# A hold on names in a store: `file` for a local folder, `object` for the bucket.
NameHoldType = Literal["file", "object"]


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as it is listed; `subject` as it was given, such as `row:conversations/42`."""

    id: int
    subject: str
    until: datetime
    reason: str
    created_at: datetime


def add_hold(
    connection: sa.Connection,
    *,
    type: HoldType,  # noqa: A002 - the column's name
    table: Table,
    key: Key,
    subject: str,
    until: datetime,
    reason: str,
    now: datetime,
) -> Hold:
    """Record a hold on a row; waits for the batches in progress.

    A hold on a session also covers every object under its key.

    Raises:
        ConfigurationError: `key` does not fit the key of the table.
    """
    if not table.has_key or len(key) != len(table.key):
        raise ConfigurationError(
            f"{','.join(key)!r} is not a key of {table.label}", hint=f"give a value for {', '.join(table.key)}"
        )
    source = {"type": type, "source_schema": table.schema, "source_table": table.name, "key": list(key)}
    return _add(connection, source, subject=subject, until=until, reason=reason, now=now)


def add_name_hold(
    connection: sa.Connection,
    *,
    type: NameHoldType,  # noqa: A002 - the column's name
    store: str,
    names: Sequence[str],
    subject: str,
    until: datetime,
    reason: str,
    now: datetime,
) -> Hold:
    """Record a hold on names in a store; waits for the batches in progress. A name that ends with / is a folder."""
    source = {"type": type, "source_schema": None, "source_table": store, "key": list(names)}
    return _add(connection, source, subject=subject, until=until, reason=reason, now=now)


def _add(
    connection: sa.Connection, source: dict[str, Any], *, subject: str, until: datetime, reason: str, now: datetime
) -> Hold:
    connection.execute(lock_for_transaction(HOLDS_LOCK))
    values = source | {"subject": subject, "until": until, "reason": reason, "created_at": now}
    row = connection.execute(sa.insert(holds).values(values).returning(holds.c.id)).one()
    return Hold(row.id, subject, until, reason, now)


def list_holds(connection: sa.Connection) -> list[Hold]:
    """Every hold, ordered by its end."""
    statement = sa.select(holds.c.id, holds.c.subject, holds.c.until, holds.c.reason, holds.c.created_at)
    return [Hold(*row) for row in connection.execute(statement.order_by(holds.c.until, holds.c.id))]


def remove_hold(connection: sa.Connection, hold_id: int) -> bool:
    """Remove a hold; False if none has this number."""
    return connection.execute(sa.delete(holds).where(holds.c.id == hold_id)).rowcount > 0


@dataclass(frozen=True)
class ActiveHolds:
    """The holds in force at one moment.

    Attributes:
        rows: held keys by schema and table, users and sessions included.
        users: the keys of held users, which also hold what belongs to them.
        sessions: the keys of held sessions, which also hold the objects under them.
        stored: held names, each with its store; the name of a folder ends with a slash, and holds all that is in it.
    """

    rows: dict[tuple[str, str], list[Key]] = field(default_factory=dict)
    users: list[Key] = field(default_factory=list)
    sessions: frozenset[str] = frozenset()
    stored: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def read(cls, connection: sa.Connection, now: datetime) -> ActiveHolds:
        rows: dict[tuple[str, str], list[Key]] = {}
        users: list[Key] = []
        sessions: set[str] = set()
        stored: set[tuple[str, str]] = set()
        statement = sa.select(holds.c.type, holds.c.source_schema, holds.c.source_table, holds.c.key)
        for row in connection.execute(statement.where(holds.c.until > now)):
            if row.source_schema is None:
                stored.update((row.source_table, name) for name in row.key)
                continue
            rows.setdefault((row.source_schema, row.source_table), []).append(tuple(row.key))
            if row.type == "user":
                users.append(tuple(row.key))
            elif row.type == "session":
                sessions.add(row.key[0])
        return cls(rows, users, frozenset(sessions), frozenset(stored))

    def __bool__(self) -> bool:
        return bool(self.rows or self.stored)

    def names(self, store: str, names: Iterable[str]) -> set[str]:
        """Those of a store's names that are held, themselves, in a held folder, or under a held session."""
        held = {name for of_store, name in self.stored if of_store == store}
        folders = tuple(name for name in held if name.endswith("/"))
        return {
            name
            for name in names
            if name in held or name.startswith(folders) or (self.sessions and name.partition("/")[0] in self.sessions)
        }

    def any_name(self, store: str) -> bool:
        """Whether a name of the store is held."""
        return any(of_store == store for of_store, _ in self.stored)

    def cover(self, table: Table, owners: OwnerPaths) -> sa.ColumnElement[bool] | None:
        """Whether a row of `table` is held, itself or as a held user's; None if no row can be.

        Raises:
            Refused: the key of the table has changed since a hold was added.
        """
        conditions: list[sa.ColumnElement[bool]] = []
        keys = self.rows.get((table.schema, table.name), [])
        if any(not table.has_key or len(key) != len(table.key) for key in keys):
            raise Refused(
                f"a hold on a row of {table.label} no longer fits its key",
                hint="find it with `housekeeping hold list`, remove it and add it again",
            )
        if keys:
            conditions.append(matches(table, table.key, keys))
        if self.users:
            conditions += [owners.belongs(path, self.users) for path in owners.of(table)]
        return sa.or_(*conditions) if conditions else None


class OwnerPaths:
    """The paths up the keys from a table to the users.

    Args:
        users: the users' table; None if the platform has none.
        keys: the declared keys and those that only the application knows.
    """

    def __init__(self, catalog: Catalog, users: Table | None, keys: Iterable[ForeignKey]) -> None:
        self._catalog = catalog
        self._users = users
        self._keys = list(keys)
        self._known: dict[int, list[tuple[ForeignKey, ...]]] = {}

    def of(self, table: Table) -> list[tuple[ForeignKey, ...]]:
        """Every path, as its keys in order; the users' table has none."""
        if self._users is None or table.oid == self._users.oid:
            return []
        if table.oid not in self._known:
            self._known[table.oid] = list(self._search(table.oid, ()))
        return self._known[table.oid]

    def _search(self, oid: int, path: tuple[ForeignKey, ...]) -> Iterable[tuple[ForeignKey, ...]]:
        for key in self._keys:
            if key.child != oid or key.parent in {oid, *(step.child for step in path)}:
                continue
            if self._users is not None and key.parent == self._users.oid:
                yield (*path, key)
            elif len(path) + 1 < MAX_OWNER_DISTANCE:
                yield from self._search(key.parent, (*path, key))

    def belongs(self, path: Sequence[ForeignKey], users: list[Key]) -> sa.ColumnElement[bool]:
        """Whether a row at the start of the path belongs to one of the users."""
        owner = self._catalog.table(path[-1].parent)
        condition = matches(owner, owner.key, users)
        for key in reversed(path):
            parent = self._catalog.table(key.parent).selectable
            child = self._catalog.table(key.child).selectable
            own = [child.c[name] for name in key.columns]
            targets = sa.select(*(parent.c[name] for name in key.targets)).where(condition)
            condition = (sa.tuple_(*own) if len(own) > 1 else own[0]).in_(targets)
        return condition
