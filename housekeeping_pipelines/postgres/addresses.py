"""The addresses of the two databases, the platform's and Dagster's own, which are created if needed.

Both are configured as plain `postgresql://`. The platform's is used through psycopg 3, and Dagster's through
psycopg2, since its event log does not work with psycopg 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from housekeeping_pipelines.errors import ConfigurationError, Unavailable
from housekeeping_pipelines.postgres.embedded import create_database, embedded_server, has_cluster, has_database

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


def platform_name(settings: Settings) -> str:
    """The platform's database in words, for a command that acts on it: with its server, and without a password."""
    url = settings.database_url
    if url is None:
        return f"the embedded PostgreSQL in {settings.housekeeping_home}"
    host = url.host or url.query.get("host") or "the local server"
    port = f":{url.port}" if url.port else ""
    return f"the database {url.database} on {host if isinstance(host, str) else ', '.join(host)}{port}"


def require_platform(settings: Settings) -> None:
    """Make sure that there is a platform's database, for a command that must not make one.

    Raises:
        ConfigurationError: DATABASE_URL is unset, and no embedded server has the platform's database here.
        Unavailable: the embedded server does not answer.
    """
    if settings.database_url is None and not (
        has_cluster(settings.housekeeping_home)
        and has_database(embedded_server(settings.housekeeping_home).url("postgres"), _PLATFORM)
    ):
        raise ConfigurationError(
            f"there is no platform in {settings.housekeeping_home}, and DATABASE_URL is unset",
            hint="run it in the folder of your installation or below it, or set DATABASE_URL or HOUSEKEEPING_HOME",
        )


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
