"""PostgreSQL advisory locks. The server releases them with the connection, so a killed run blocks no other.

A run needs one connection of its own throughout: behind a pooler, use session mode.
"""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import OID

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# "hkpg": separates our locks from the application's.
_NAMESPACE = 0x686B7067


def _number(name: str) -> int:
    return zlib.crc32(name.encode()) - 2**31


@contextmanager
def task_lock(connection: sa.Connection, task: str) -> Iterator[bool]:
    """Hold a task's lock for the block; yields False, without waiting, if another session holds it.

    The connection must not be in a transaction, and is in none when the block begins.
    """
    name = f"task {task}"
    numbers = {"namespace": _NAMESPACE, "number": _number(name)}
    taken = try_session_lock(connection, name)
    connection.commit()
    try:
        yield taken
    finally:
        if taken and not connection.closed and not connection.invalidated:
            connection.rollback()
            connection.execute(sa.text("SELECT pg_advisory_unlock(:namespace, :number)"), numbers)
            connection.commit()


@contextmanager
def shared_lock(connection: sa.Connection, name: str) -> Iterator[None]:
    """Hold a lock in share mode for the block, across transactions."""
    with _session_lock(connection, name, "_shared"):
        yield


@contextmanager
def exclusive_lock(connection: sa.Connection, name: str) -> Iterator[None]:
    """Hold a lock exclusively for the block, across transactions; waits for the sessions that share it."""
    with _session_lock(connection, name, ""):
        yield


@contextmanager
def _session_lock(connection: sa.Connection, name: str, mode: str) -> Iterator[None]:
    numbers = {"namespace": _NAMESPACE, "number": _number(name)}
    connection.execute(sa.text(f"SELECT pg_advisory_lock{mode}(:namespace, :number)"), numbers)
    connection.commit()
    try:
        yield
    finally:
        if not connection.closed and not connection.invalidated:
            connection.rollback()
            connection.execute(sa.text(f"SELECT pg_advisory_unlock{mode}(:namespace, :number)"), numbers)
            connection.commit()


@contextmanager
def locks_to_be_had(connection: sa.Connection, names: Collection[str]) -> Iterator[set[str]]:
    """Hold those of the locks exclusively for the block, across transactions, that no other session holds."""
    by_number = {_number(name): name for name in names}
    numbers = {"namespace": _NAMESPACE, "numbers": list(by_number)}
    each = "SELECT number FROM unnest(CAST(:numbers AS int[])) number WHERE {}(:namespace, number)"
    taken = list(connection.scalars(sa.text(each.format("pg_try_advisory_lock")), numbers))
    connection.commit()
    try:
        # Two names may have one number; their lock is one, too.
        yield {name for name in names if _number(name) in taken}
    finally:
        if taken and not connection.closed and not connection.invalidated:
            connection.rollback()
            connection.execute(sa.text(each.format("pg_advisory_unlock")), {**numbers, "numbers": taken})
            connection.commit()


def try_session_lock(connection: sa.Connection, name: str) -> bool:
    """Take a lock for the rest of the session, without waiting; whether it was to be had."""
    numbers = {"namespace": _NAMESPACE, "number": _number(name)}
    return bool(connection.scalar(sa.text("SELECT pg_try_advisory_lock(:namespace, :number)"), numbers))


_locks = sa.table("pg_locks", *(sa.column(n) for n in ("locktype", "granted", "database", "objsubid", "pid")),
                  sa.column("classid", OID), sa.column("objid", OID))  # fmt: skip
_sessions = sa.table("pg_stat_activity", sa.column("pid"), sa.column("application_name", sa.Text))
_databases = sa.table("pg_database", sa.column("oid"), sa.column("datname"))


def is_locked(connection: sa.Connection, name: str) -> bool:
    """Whether any session of this database holds a lock."""
    return bool(connection.scalar(sa.select(sa.exists().where(_is_held(name)))))


def holders(connection: sa.Connection, name: str) -> list[str]:
    """The application names of the sessions of this database that hold a lock."""
    held = sa.select(_locks.c.pid).where(_is_held(name))
    found = connection.scalars(sa.select(_sessions.c.application_name).where(_sessions.c.pid.in_(held)))
    return [each or "" for each in found]


def _is_held(name: str) -> sa.ColumnElement[bool]:
    here = sa.select(_databases.c.oid).where(_databases.c.datname == sa.func.current_database()).scalar_subquery()
    # pg_locks shows the two integers without their signs.
    return sa.and_(
        _locks.c.locktype == "advisory",
        _locks.c.granted,
        _locks.c.objsubid == 2,
        _locks.c.database == here,
        sa.cast(_locks.c.classid, sa.BigInteger) == _NAMESPACE,
        sa.cast(_locks.c.objid, sa.BigInteger) == _number(name) % 2**32,
    )


def lock_for_transaction(name: str, *, shared: bool = False) -> sa.Select[tuple[None]]:
    """A statement that waits for a lock and holds it until the transaction ends."""
    function = sa.func.pg_advisory_xact_lock_shared if shared else sa.func.pg_advisory_xact_lock
    return sa.select(function(_NAMESPACE, _number(name)))
