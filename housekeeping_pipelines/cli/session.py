"""The start of every command: the settings, the log, and Dagster's home."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from housekeeping_pipelines import logs
from housekeeping_pipelines.cli import output
from housekeeping_pipelines.env_file import read_env_file
from housekeeping_pipelines.resources.dagster_home import dagster_home
from housekeeping_pipelines.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

from contextlib import contextmanager

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List what would be deleted, and delete nothing.")]


def start() -> Settings:
    """Read the settings and configure the log by them.

    On a terminal, which shows the report, nothing is logged unless LOG_LEVEL or LOG_FILE is set.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    settings = load_settings()
    quiet = settings.log_file is None and settings.origin("log_level") == "default" and sys.stderr.isatty()
    logs.configure(settings.model_copy(update={"log_level": "CRITICAL"}) if quiet else settings)
    return settings


def use_dagster(settings: Settings) -> None:
    """Set this process's environment as Dagster's own commands do: `.env`, and a home for its state."""
    os.environ.update(read_env_file(settings.directory / ".env"))
    named = os.environ.get("DAGSTER_HOME")
    # Our home may have been removed, with the rest of HOUSEKEEPING_HOME, since it was written to `.env`.
    if not named or Path(named) == settings.housekeeping_home / "dagster":
        os.environ["DAGSTER_HOME"] = str(dagster_home(settings))


def platform_name(settings: Settings) -> str:
    """The platform's database in words, so that people see on which one a command acted."""
    from housekeeping_pipelines.postgres.addresses import platform_name

    return platform_name(settings)


def require_platform(settings: Settings) -> None:
    """See `postgres.addresses.require_platform`."""
    from housekeeping_pipelines.postgres.addresses import require_platform

    require_platform(settings)


def echo_platform(settings: Settings) -> None:
    """Tell on which database a command acted."""
    output.echo(f"[dim]in {output.escape(platform_name(settings))}[/]")


@contextmanager
def platform_connection(settings: Settings) -> Iterator[sa.Connection]:
    """A transaction on the platform's database, which must exist, committed at the end.

    Raises:
        HousekeepingError: it does not exist, or cannot be opened.
    """
    from housekeeping_pipelines.execution.database import Database

    require_platform(settings)
    database = Database(settings)
    with database.engine.begin() as connection:
        yield connection
    database.close()
