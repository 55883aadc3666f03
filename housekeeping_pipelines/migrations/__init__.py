"""The schema `housekeeping`, created and upgraded by Alembic.

Every entry point that needs the schema calls `ensure_schema`, which costs two queries when it is up to date.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.postgres.errors import sqlstate
from housekeeping_pipelines.postgres.locks import lock_for_transaction
from housekeeping_pipelines.postgres.requirements import pooler_problem, schema_problem, server_problem
from housekeeping_pipelines.postgres.schema import OUR_SCHEMA

if TYPE_CHECKING:
    from alembic.config import Config

# The newest revision; a test compares it with the files in versions/.
HEAD = "0007"

# The name of a table in a schema that may not be used is an error, even for to_regclass().
_MAY_USE = sa.text("SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :name").bindparams(
    name=OUR_SCHEMA
)


def ensure_schema(engine: sa.Engine) -> bool:
    """Create or upgrade the schema; False if it was up to date.

    Raises:
        ConfigurationError: the server or the user lacks what every run needs, the schema cannot be made or is someone
            else's, or it is of a newer version of this project.
    """
    if (problem := pooler_problem(engine)) is not None:
        raise problem.error()
    with engine.connect() as connection:
        if (problem := server_problem(connection)) is not None:
            raise problem.error()
        current = current_revision(connection)
        if current == HEAD:
            return False
        if current is None and (problem := schema_problem(connection)) is not None:
            raise problem.error()
        if current is not None and current > HEAD:
            raise ConfigurationError(
                f"the schema {OUR_SCHEMA} is of version {current}, this program knows {HEAD}",
                hint="upgrade housekeeping-pipelines here too",
            )
        try:
            _upgrade(connection)
        except sa.exc.ProgrammingError as error:
            if sqlstate(error) != "42501":
                raise
            url = engine.url
            raise ConfigurationError(
                f"user {url.username!r} may not create the schema {OUR_SCHEMA} in database {url.database!r}",
                hint=f'let an administrator run: GRANT CREATE ON DATABASE "{url.database}" TO "{url.username}"',
            ) from None
    return True


def current_revision(connection: sa.Connection) -> str | None:
    """The version of our schema in the database; None if it does not exist, is someone else's or may not be used."""
    if not connection.scalar(_MAY_USE):
        return None
    # Another application may be migrated by Alembic, too.
    names = [f"{OUR_SCHEMA}.{name}" for name in ("alembic_version", "trash_batches")]
    if any(connection.scalar(sa.select(sa.func.to_regclass(name))) is None for name in names):
        return None
    versions = sa.table("alembic_version", sa.column("version_num", sa.Text), schema=OUR_SCHEMA)
    return connection.scalar(sa.select(versions.c.version_num))


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command

    connection.rollback()
    with connection.begin():
        connection.execute(lock_for_transaction("migrations"))
        if connection.scalar(sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": OUR_SCHEMA}) is None:
            connection.exec_driver_sql(f"CREATE SCHEMA {OUR_SCHEMA}")
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def alembic_config() -> Config:
    """Alembic's configuration; it has no file of its own."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
