"""Whether a run is alive: a session of the platform's database, which is named after it, holds its lock.

The server ends a session with its process, on whatever machine and in whatever container that is; process numbers and
clocks, which differ between these, decide nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.postgres.locks import is_locked
from housekeeping_pipelines.postgres.process_lock import locked_session

if TYPE_CHECKING:
    from collections.abc import Collection

    from housekeeping_pipelines.execution.database import Database


_IDENTITY = sa.text(
    "SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || oid FROM pg_database"
    " WHERE datname = current_database()"
)


class _Announced:
    """The run that this process does, and the session that says so."""

    run_id: str | None = None
    connection: sa.Connection | None = None
    database: str | None = None


def announce(database: Database, run_id: str) -> str | None:
    """Hold a run's lock from now on, until this process ends, withdraws it or announces another run.

    Returns:
        the identity of the database, by which others find the lock; None if it does not answer, or another process
            does the run.
    """
    if _Announced.run_id == run_id and _Announced.connection is not None and not _Announced.connection.invalidated:
        return _Announced.database
    withdraw()
    try:
        url = database.engine.url
        connection = locked_session(url, _lock(run_id), application_name=f"housekeeping {run_id}")
        if connection is None:
            return None
        _Announced.database = identity(connection)
        connection.commit()
    except (HousekeepingError, sa.exc.DBAPIError):
        return None
    _Announced.run_id, _Announced.connection = run_id, connection
    return _Announced.database


def withdraw() -> None:
    """Release the lock of the run that this process has done."""
    if _Announced.connection is not None:
        _Announced.connection.close()
    _Announced.run_id = _Announced.connection = _Announced.database = None


def identity(connection: sa.Connection) -> str:
    """What tells this database from every other, whatever it is called where."""
    return str(connection.scalar(_IDENTITY))


def alive(connection: sa.Connection, run_ids: Collection[str]) -> set[str]:
    """Those of the runs whose lock is held."""
    return {run_id for run_id in run_ids if is_locked(connection, _lock(run_id))}


def _lock(run_id: str) -> str:
    return f"run {run_id}"
