"""What a run needs of the server and of its role, whatever its task."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.postgres.schema import OUR_SCHEMA

if TYPE_CHECKING:
    from datetime import datetime

# Machines without NTP drift by seconds a day; what is wrong by more is wrong by hours or years.
CLOCK_TOLERANCE = timedelta(minutes=5)

# `reset_val` is what the database, the role or the server sets; our sessions set their own.
_SERVER = sa.text(
    """
    SELECT pg_is_in_recovery() AS in_recovery,
           (SELECT s.reset_val = 'on' FROM pg_settings s WHERE s.name = 'default_transaction_read_only') AS read_only,
           has_database_privilege(current_database(), 'TEMPORARY') AS may_create_temporary,
           current_database() AS database, current_user AS role
    """
)

_STRANGE = sa.text(
    """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema ORDER BY c.relname LIMIT 1
    """
).bindparams(schema=OUR_SCHEMA)


class Problem(NamedTuple):
    """What is wrong with the server or the role, and what to do."""

    message: str
    hint: str

    def error(self) -> ConfigurationError:
        return ConfigurationError(self.message, hint=self.hint)


def server_problem(connection: sa.Connection) -> Problem | None:
    """What keeps every run from working on this server; None if nothing does."""
    server = connection.execute(_SERVER).one()
    if server.in_recovery:
        return Problem(
            f"the server of database {server.database!r} is a replica: it cannot be written to",
            "set DATABASE_URL to the primary; a dry run needs it too, for temporary tables",
        )
    if server.read_only:
        return Problem(
            f"database {server.database!r} is set to read-only (default_transaction_read_only)",
            "reset it for the database or the role, or set DATABASE_URL to one that may be written to",
        )
    if not server.may_create_temporary:
        return Problem(
            f"user {server.role!r} may keep no list of candidates in database {server.database!r}",
            f'let its owner run: GRANT TEMPORARY ON DATABASE "{server.database}" TO "{server.role}"',
        )
    return None


def pooler_problem(engine: sa.Engine) -> Problem | None:
    """Why no lock of a session holds: a pooler gives two of our sessions one of the server's; None if none does."""
    with engine.connect() as one, engine.connect() as other:
        seen: list[set[int]] = [set(), set()]
        for _ in range(2):
            for pids, connection in zip(seen, (one, other), strict=True):
                pids.add(connection.execute(sa.select(sa.func.pg_backend_pid())).scalar_one())
                connection.rollback()
    if len(seen[0]) == len(seen[1]) == 1 and seen[0].isdisjoint(seen[1]):
        return None
    return Problem(
        f"a pooler at {engine.url.host or 'the server'} shares the server's sessions between transactions",
        "set DATABASE_URL to the server itself, or to a pooler in session mode: locks are held by sessions",
    )


def clock_problem(connection: sa.Connection, now: datetime) -> Problem | None:
    """Why ages cannot be trusted: our clock, which says `now`, differs from the server's; None if it does not."""
    theirs: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    difference = now - theirs
    if abs(difference) <= CLOCK_TOLERANCE:
        return None
    direction = "ahead of" if difference > timedelta(0) else "behind"
    return Problem(
        f"the clock of this machine is {abs(difference).total_seconds():,.0f} s {direction} the database server's",
        "set both right: what is old, and what of the trash has expired, would be judged by a wrong time",
    )


def schema_problem(connection: sa.Connection) -> Problem | None:
    """Why our schema cannot be made, where it does not exist yet; None if it can be."""
    database, role = connection.execute(sa.text("SELECT current_database(), current_user")).one()
    there = connection.scalar(sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": OUR_SCHEMA})
    if there is None:
        if connection.scalar(sa.text("SELECT has_database_privilege(current_database(), 'CREATE')")):
            return None
        return Problem(
            f"user {role!r} may not create the schema {OUR_SCHEMA} in database {database!r}",
            f'let an administrator run: GRANT CREATE ON DATABASE "{database}" TO "{role}"',
        )
    if not connection.scalar(sa.text("SELECT has_schema_privilege(:name, 'USAGE')"), {"name": OUR_SCHEMA}):
        return Problem(
            f"user {role!r} may not use the schema {OUR_SCHEMA} in database {database!r}",
            f'if it holds the trash, let its owner run: GRANT ALL ON SCHEMA {OUR_SCHEMA} TO "{role}";'
            " if it is another application's, rename it",
        )
    if (strange := connection.scalar(_STRANGE)) is not None:
        return Problem(
            f"the schema {OUR_SCHEMA} in database {database!r} is someone else's: it has {strange}",
            f"rename that schema: the name {OUR_SCHEMA} is needed for the trash and the holds",
        )
    if not connection.scalar(sa.text("SELECT has_schema_privilege(:name, 'CREATE')"), {"name": OUR_SCHEMA}):
        return Problem(
            f"user {role!r} may not create tables in the schema {OUR_SCHEMA}",
            f'let its owner run: ALTER SCHEMA {OUR_SCHEMA} OWNER TO "{role}"',
        )
    return None
