"""Dagster's own storage, which takes the address of its database from the settings.

Every Dagster process opens the storage, whichever command started it. So the embedded server is started and the log
is configured here, and dagster.yaml needs neither an address nor a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import yaml
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from housekeeping_pipelines import logs
from housekeeping_pipelines.postgres.addresses import dagster_url
from housekeeping_pipelines.postgres.engine import with_keepalives
from housekeeping_pipelines.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping


class HousekeepingStorage(DagsterPostgresStorage):
    """`DagsterPostgresStorage` in the database that the settings name; it has no configuration."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """The configuration accepted in dagster.yaml: none."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, object]) -> Self:
        """Called by Dagster in each process.

        Raises:
            ConfigurationError, Unavailable: a setting is wrong, or the database cannot be used; see `dagster_url`.
        """
        del config_value
        settings = load_settings()
        logs.configure(settings, to_stderr=False)
        url = with_keepalives(dagster_url(settings))
        return cls(url.render_as_string(hide_password=False), inst_data=inst_data)

    # The parent's versions would read the configuration, which is empty here.

    @property
    def run_storage_data(self) -> ConfigurableClassData | None:
        """How to open the runs alone, for Dagster's older interfaces."""
        return self._part("LegacyRunStorage")

    @property
    def event_storage_data(self) -> ConfigurableClassData | None:
        """How to open the event log alone, for Dagster's older interfaces."""
        return self._part("LegacyEventLogStorage")

    @property
    def schedule_storage_data(self) -> ConfigurableClassData | None:
        """How to open the schedules alone, for Dagster's older interfaces."""
        return self._part("LegacyScheduleStorage")

    def _part(self, class_name: str) -> ConfigurableClassData | None:
        if self.inst_data is None:
            return None
        whole = yaml.safe_dump(self.inst_data._asdict())
        return ConfigurableClassData("dagster._core.storage.legacy_storage", class_name, whole)
