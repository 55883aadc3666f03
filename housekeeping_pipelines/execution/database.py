"""The platform's database as the settings name it: an engine on our schema, and what runs the tasks on it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from housekeeping_pipelines.application.config import HousekeepingConfig, load_config
from housekeeping_pipelines.execution.runner import TaskRunner
from housekeeping_pipelines.migrations import ensure_schema
from housekeeping_pipelines.postgres.engine import make_engine, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.execution.progress import Observer
    from housekeeping_pipelines.settings import Settings

# A sensor's tick has to end long before the next one.
PROBE_SECONDS = 5


@dataclass(frozen=True)
class Database:
    """The platform's database as the settings name it; nothing is opened before its first use."""

    settings: Settings

    @cached_property
    def config(self) -> HousekeepingConfig:
        """`housekeeping.yaml`.

        Raises:
            ConfigurationError: the file is not valid.
        """
        return load_config(self.settings)

    @cached_property
    def engine(self) -> sa.Engine:
        """The engine, once the database has answered and our schema is created or upgraded.

        Raises:
            ConfigurationError: the database rejects the connection, or we may not create our schema.
            Unavailable: the database does not answer.
        """
        # It brings psycopg, which importing the definitions must not wait for.
        from housekeeping_pipelines.postgres.addresses import platform_url

        engine = make_engine(platform_url(self.settings))
        with opened(engine):
            ensure_schema(engine)
        return engine

    def runner(self, observer: Observer | None = None) -> TaskRunner:
        """What runs the tasks on it.

        Raises:
            HousekeepingError: the database cannot be opened.
        """
        given: dict[str, Any] = {} if observer is None else {"observer": observer}
        return TaskRunner(
            engine=self.engine,
            trashed=self.settings.trash_retention_days > 0,
            every_run_is_dry=self.settings.dry_run,
            paused_by_setting=self.settings.housekeeping_paused,
            compares_clocks=True,
            **given,
        )

    def close(self) -> None:
        """Close the connections."""
        if "engine" in self.__dict__:
            self.engine.dispose()


@contextmanager
def probe(settings: Settings, *, statement_timeout_seconds: float = PROBE_SECONDS) -> Iterator[sa.Connection]:
    """A connection that cannot write, with a statement timeout; our schema is neither made nor upgraded.

    Raises:
        HousekeepingError: the database cannot be reached, or a statement fails or takes longer.
    """
    # The drivers are first needed here: importing the definitions is to stay quick.
    from housekeeping_pipelines.postgres.addresses import platform_url

    engine = make_engine(platform_url(settings))
    try:
        with opened(engine), engine.connect() as connection:
            milliseconds = round(statement_timeout_seconds * 1000)
            connection.exec_driver_sql(
                f"SET statement_timeout = {milliseconds}; SET default_transaction_read_only = on"
            )
            connection.commit()
            yield connection
    finally:
        engine.dispose()
