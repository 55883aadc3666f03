"""A probe reads, and neither writes nor waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.database import probe
from housekeeping_pipelines.settings import Settings, load_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings(engine: sa.Engine, tmp_path: Path) -> Settings:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return load_settings(tmp_path, {"DATABASE_URL": url})


def test_a_probe_cannot_write(settings: Settings) -> None:
    with pytest.raises(HousekeepingError, match="read-only transaction"), probe(settings) as connection:
        connection.execute(sa.text("CREATE TABLE things (id int)"))


def test_a_statement_that_takes_too_long_ends_a_probe(settings: Settings) -> None:
    with (
        pytest.raises(HousekeepingError, match="statement timeout"),
        probe(settings, statement_timeout_seconds=0.05) as connection,
    ):
        connection.execute(sa.text("SELECT pg_sleep(60)"))
