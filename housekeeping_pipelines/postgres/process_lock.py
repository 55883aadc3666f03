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
    engine = make_engine(url, application_name=f"housekeeping {name} {socket.gethostname()} {os.getpid()}"[:63])
    with opened(engine, setting=setting):
        connection = engine.connect()
        # It is idle from now on, which a server may be set to end.
        connection.exec_driver_sql("SET idle_session_timeout = 0")
        if not try_session_lock(connection, name):
            other = next(iter(holders(connection, name)), "").removeprefix("housekeeping ")
            connection.close()
            raise Refused(
                f"a {name} is running on the database {url.database} already{f' ({other})' if other else ''}",
                hint="stop that one first: each would start the same runs",
            )
        connection.commit()
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    os.set_inheritable(driver.fileno(), True)
    _held.append(connection)
