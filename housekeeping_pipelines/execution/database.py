"""The platform's database: SQLAlchemy over psycopg 3, one session a task, with settings that nothing can bend."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from housekeeping_pipelines.application.config import HousekeepingConfig, load_config
from housekeeping_pipelines.migrations import ensure_schema
from housekeeping_pipelines.postgres.engine import make_engine, opened

if TYPE_CHECKING:
    from housekeeping_pipelines.execution.progress import Observer
    from housekeeping_pipelines.execution.runner import TaskRunner
    from housekeeping_pipelines.settings import Settings


@dataclass(frozen=True)
class Database:
    """The platform's database as the settings name it; nothing is opened before it is used."""

    settings: Settings

    @cached_property
    def config(self) -> HousekeepingConfig:
        """`housekeeping.yaml`.

        Raises:
            ConfigurationError: it is not of its form.
        """
        return load_config(self.settings.housekeeping_config)

    @cached_property
    def engine(self) -> sa.Engine:
        """Connected once, with our schema made or upgraded.

        Raises:
            ConfigurationError: it does not accept us, or we may not make our schema.
            Unavailable: it does not answer.
        """
        # The drivers are first needed here: importing the definitions is to stay quick.
        from housekeeping_pipelines.postgres.addresses import platform_url

        engine = make_engine(platform_url(self.settings))
        with opened(engine):
            ensure_schema(engine)
        return engine

    def runner(self, observer: Observer | None = None) -> TaskRunner:
        """What runs the tasks on it.

        Raises:
            HousekeepingError: it cannot be opened.
        """
        # With it comes the database's driver, which importing the definitions is not to wait for.
        from housekeeping_pipelines.execution.runner import TaskRunner

        given: dict[str, Any] = {} if observer is None else {"observer": observer}
        return TaskRunner(
            engine=self.engine,
            trashed=self.settings.trash_retention_days > 0,
            every_run_is_dry=self.settings.dry_run,
            paused_by_setting=self.settings.housekeeping_paused,
            **given,
        )

    def close(self) -> None:
        """Close the connections."""
        if "engine" in self.__dict__:
            self.engine.dispose()
