"""The platform's database: SQLAlchemy over psycopg 3, one connection a task, with settings that nothing can bend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from typing import Any

CONNECT_TIMEOUT_SECONDS = 10

# Keys and deleted values travel as text: these settings decide how it looks. Times without a zone are read as UTC.
# With row_security off, a policy that would hide rows is an error: a hidden reference would make an orphan.
_SESSION = (
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex';"
    " SET extra_float_digits = 1; SET xmloption = 'content'; SET row_security = off;"
    " SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off"
)


def make_engine(url: sa.URL, *, application_name: str = "housekeeping") -> sa.Engine:
    """An engine for the platform's database; it connects when it is first used.

    Each connection is a session of its own (no pool), since a task's advisory lock lives and ends with it.
    """
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=sa.pool.NullPool,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": application_name,
            # Prepared statements do not survive a pooler that shares its servers.
            "prepare_threshold": None,
        },
    )

    @sa.event.listens_for(engine, "connect")
    def _fix_settings(connection: Any, _record: object) -> None:
        autocommit, connection.autocommit = connection.autocommit, True
        connection.execute(_SESSION)
        connection.autocommit = autocommit

    return engine
