"""PostgreSQL advisory locks, which the server drops with the connection: a killed run blocks nobody.

They need a connection of one's own for the whole run: through a pooler, use its session mode.
"""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterator

# "hkpg": keeps our locks apart from the application's own.
_NAMESPACE = 0x686B7067


def _number(name: str) -> int:
    return zlib.crc32(name.encode()) - 2**31


@contextmanager
def task_lock(connection: sa.Connection, task: str) -> Iterator[bool]:
    """Hold a task's lock for the block; yields False, without waiting, when another session has it.

    The connection must not be in a transaction, and is not in one inside the block.
    """
    numbers = {"namespace": _NAMESPACE, "number": _number(f"task {task}")}
    taken = bool(connection.scalar(sa.text("SELECT pg_try_advisory_lock(:namespace, :number)"), numbers))
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
    """Hold a lock in share mode for the block, across its transactions."""
    with _session_lock(connection, name, "_shared"):
        yield


@contextmanager
def exclusive_lock(connection: sa.Connection, name: str) -> Iterator[None]:
    """Wait for everyone who shares a lock, and keep them out for the block, across its transactions."""
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


def try_lock(name: str) -> sa.Select[tuple[bool]]:
    """A statement that says whether it got a lock, which is kept until the transaction ends; it does not wait."""
    return sa.select(sa.func.pg_try_advisory_xact_lock(_NAMESPACE, _number(name)))


def lock_for_transaction(name: str, *, shared: bool = False) -> sa.Select[tuple[None]]:
    """A statement that waits for a lock and keeps it until the transaction ends."""
    function = sa.func.pg_advisory_xact_lock_shared if shared else sa.func.pg_advisory_xact_lock
    return sa.select(function(_NAMESPACE, _number(name)))
