"""An engine for the platform's database: psycopg 3, one session a task, and the session settings deletion needs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from housekeeping_pipelines.postgres import errors as database_errors

if TYPE_CHECKING:
    from collections.abc import Iterator


CONNECT_TIMEOUT_SECONDS = 10

# A host that is gone is noticed within a minute; Linux's own defaults are two hours, and fifteen minutes for what was
# sent. In libpq's units: seconds, and milliseconds for the last.
_TCP = {
    "keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}  # fmt: skip

# Keys and cleared references travel as text, and undo compares rows as text: these settings decide how it looks. Times
# without a zone are read as UTC.
# With row_security off, a policy that would hide rows is an error: a hidden reference would make an orphan.
_SESSION = (
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex';"
    " SET extra_float_digits = 1; SET xmloption = 'content'; SET row_security = off;"
    # A batch's rows pass from their table to the trash through a work table, which spills to disk at the default 4 MB.
    " SET work_mem = '32MB';"
    " SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;"
    # A batch waits much less. Whatever else waits so long for a lock says so, and is run again.
    " SET lock_timeout = '60s';"
    # The server releases the locks of a process that has stopped, or whose host is gone.
    " SET idle_in_transaction_session_timeout = '15min';"
    " SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;"
    " SET tcp_user_timeout = '60s'"
)


def with_keepalives(url: sa.URL) -> sa.URL:
    """An address with which libpq notices a host that is gone, for connections that others make."""
    return url.update_query_dict({name: str(value) for name, value in _TCP.items() if name not in url.query})


def make_engine(url: sa.URL, *, application_name: str = "housekeeping", pooled: int = 0) -> sa.Engine:
    """An engine for the platform's database; it connects when it is first used.

    Connections are not pooled by default: a task's advisory lock lives as long as its session.

    Args:
        pooled: how many connections to keep for many short transactions; hold no session lock on them.
    """
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        **({"pool_size": pooled, "max_overflow": 0} if pooled else {"poolclass": sa.pool.NullPool}),
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": application_name,
            # Without it, the driver takes texts of a database in SQL_ASCII for bytes.
            "client_encoding": "UTF8",
            # Prepared statements fail behind a pooler that shares server connections.
            "prepare_threshold": None,
            **_TCP,
        },
    )

    @sa.event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, _arguments: object, given: dict[str, Any]) -> Any:
        # It brings psycopg, which importing the definitions must not wait for.
        from housekeeping_pipelines.postgres.patience import PatientConnection

        return PatientConnection.connect(**given)

    @sa.event.listens_for(engine, "connect")
    def _fix_settings(connection: Any, _record: object) -> None:
        autocommit, connection.autocommit = connection.autocommit, True
        connection.execute(_SESSION)
        connection.autocommit = autocommit

    return engine


@contextmanager
def opened(engine: sa.Engine, *, setting: str = "DATABASE_URL") -> Iterator[sa.Engine]:
    """The engine for the block; the driver's errors become ours.

    Raises:
        ConfigurationError: the database rejects the connection.
        Unavailable: the database does not answer.
    """
    try:
        yield engine
    except sa.exc.DBAPIError as error:
        raise database_errors.explain(error, engine.url, setting=setting) from None


@contextmanager
def dagster_connection(url: sa.URL, *, timeout_seconds: int) -> Iterator[sa.Connection]:
    """A connection to the database of Dagster's own storage, with the driver that Dagster uses.

    Raises:
        ConfigurationError: the database rejects the connection.
        Unavailable: the database does not answer.
    """
    given = {"connect_timeout": timeout_seconds, **_TCP}
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool, connect_args=given)
    with opened(engine, setting="DAGSTER_PG_URL"), engine.connect() as connection:
        yield connection
