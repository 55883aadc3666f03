"""A lock that a process holds on a database for its lifetime, across `exec`: it goes with the socket."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa

from housekeeping_pipelines.errors import Refused
from housekeeping_pipelines.postgres.engine import make_engine, opened
from housekeeping_pipelines.postgres.locks import holders, try_session_lock

if TYPE_CHECKING:
    from typing import Any

# Closing one would release its lock.
_held: list[sa.Connection] = []


def hold(url: sa.URL, name: str, *, setting: str) -> None:
    """Take a lock for the rest of this process, and of the program that it becomes.

    Args:
        name: what this process is, for the message to the next one: `scheduler`.
        setting: the variable that names the database.

    Raises:
        Refused: another process holds it; the text says which.
        ConfigurationError, Unavailable: the database cannot be used.
    """
    session = f"housekeeping {name} {socket.gethostname()} {os.getpid()}"[:63]
    with opened(make_engine(url), setting=setting) as engine:
        connection = locked_session(engine.url, name, application_name=session)
        if connection is None:
            with engine.connect() as other:
                holder = next(iter(holders(other, name)), "").removeprefix("housekeeping ")
            raise Refused(
                f"a {name} is running on the database {url.database} already{f' ({holder})' if holder else ''}",
                hint="stop that one first: each would start the same runs",
            )
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    os.set_inheritable(driver.fileno(), True)
    _held.append(connection)


def locked_session(url: sa.URL, name: str, *, application_name: str) -> sa.Connection | None:
    """A session that holds a lock until it is closed; None if another has it.

    Raises:
        sqlalchemy.exc.DBAPIError: the database cannot be used.
    """
    connection = make_engine(url, application_name=application_name).connect()
    # It is idle from now on, which a server may be set to end.
    connection.exec_driver_sql("SET idle_session_timeout = 0")
    taken = try_session_lock(connection, name)
    connection.commit()
    if not taken:
        connection.close()
        return None
    return connection
