"""The addresses of the two databases, the platform's and Dagster's own, which are created if needed.

Both are configured as plain `postgresql://`. The platform's is used through psycopg 3, and Dagster's through
psycopg2, since its event log does not work with psycopg 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from housekeeping_pipelines.errors import ConfigurationError, Unavailable
from housekeeping_pipelines.postgres.embedded import create_database, embedded_server

if TYPE_CHECKING:
    import sqlalchemy as sa

    from housekeeping_pipelines.settings import Settings

PLATFORM_DRIVER = "postgresql+psycopg"
DAGSTER_DRIVER = "postgresql+psycopg2"

_PLATFORM = "platform"
_DAGSTER = "dagster"


def platform_url(settings: Settings) -> sa.URL:
    """The platform's database: DATABASE_URL, or `platform` on the embedded server, created if absent.

    Raises:
        ConfigurationError, Unavailable: the embedded server cannot be used; see `embedded_server`.
    """
    return (settings.database_url or _embedded(settings, _PLATFORM)).set(drivername=PLATFORM_DRIVER)


def dagster_url(settings: Settings) -> sa.URL:
    """Dagster's own database: DAGSTER_PG_URL, or else `dagster` beside the platform's, created if absent.

    Raises:
        ConfigurationError: it is absent, and DATABASE_URL's user lacks the permission to create it.
        Unavailable: DATABASE_URL's server does not answer.
    """
    if settings.dagster_pg_url:
        url = settings.dagster_pg_url
    elif settings.database_url:
        url = _beside(settings.database_url)
    else:
        url = _embedded(settings, _DAGSTER)
    return url.set(drivername=DAGSTER_DRIVER)


def _embedded(settings: Settings, database: str) -> sa.URL:
    server = embedded_server(settings.housekeeping_home)
    try:
        server.ensure_database(database)
    except psycopg.Error as error:
        raise Unavailable(
            f"the embedded PostgreSQL cannot create its database {database}: {str(error).splitlines()[0]}",
            hint=f"see its log, {settings.housekeeping_home / 'postgres' / 'server.log'}",
        ) from error
    return server.url(database)


def _beside(platform: sa.URL) -> sa.URL:
    try:
        create_database(platform, _DAGSTER)
    except psycopg.errors.InsufficientPrivilege:
        raise ConfigurationError(
            f"Dagster needs its own database, and the user of DATABASE_URL may not create {_DAGSTER} there",
            hint=f"create it: CREATE DATABASE {_DAGSTER} OWNER {platform.username}; or set DAGSTER_PG_URL",
        ) from None
    except psycopg.Error as error:
        raise Unavailable(
            f"DATABASE_URL does not answer: {str(error).splitlines()[0]}",
            hint="start that server, or check DATABASE_URL; `housekeeping check` shows which one is used",
        ) from error
    return platform.set(database=_DAGSTER)
