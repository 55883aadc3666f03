"""The sensor starts a run only when something is due, and says how much; it changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.watched_documents.definitions import SYNC_WATCHED_DOCUMENTS, capability
from housekeeping_pipelines_tests.deletion.support import column, sql
from housekeeping_pipelines_tests.watched_documents.support import OLD, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa
    from dagster._core.definitions.sensor_definition import SensorExecutionData


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def world(engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", engine.url.set(drivername="postgresql").render_as_string(hide_password=False))
    return World(engine, tmp_path).make()


def tick(instance: dg.DagsterInstance) -> SensorExecutionData:
    (sensor,) = capability(load_settings(), HousekeepingConfig()).sensors
    assert timedelta(seconds=sensor.minimum_interval_seconds or 0) == timedelta(minutes=5)
    return sensor.evaluate_tick(dg.build_sensor_context(instance=instance))


def requested(instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    return list(tick(instance).run_requests or ())


def skipped(instance: dg.DagsterInstance) -> str:
    return tick(instance).skip_message or ""


def test_a_quiet_hour_starts_no_run(world: World, instance: dg.DagsterInstance) -> None:
    assert skipped(instance) == "0 watched documents are due"
    world.document("a.example")
    world.source.by_address["a.example"] = OLD
    world.sync()
    # It is due again years ago by the clock of the machine, in the state that waits for a person.
    sql(world.engine, "UPDATE document_sync_queues SET state = 'held'")
    assert skipped(instance) == "0 watched documents are due"


def test_what_is_due_starts_one_run_that_says_how_much(world: World, instance: dg.DagsterInstance) -> None:
    for name in ("a.example", "b.example", "c.example"):
        world.document(name)
        world.source.by_address[name] = OLD
    # None of them has a place in the queue yet, and the sensor gives them none.
    (request,) = requested(instance)
    assert request.tags["housekeeping/due_documents"] == "3"
    assert column(world.engine, "SELECT count(*) FROM document_sync_queues") == [0]
    world.sync()
    sql(world.engine, "UPDATE document_sync_queues SET next_sync_at = now() + interval '1 hour'")
    sql(world.engine, "UPDATE document_sync_queues SET next_sync_at = now() WHERE id = 1")
    (request,) = requested(instance)
    assert request.tags["housekeeping/due_documents"] == "1"


def test_a_run_that_is_in_progress_is_not_joined_by_another(world: World, instance: dg.DagsterInstance) -> None:
    world.document("a.example")
    run = instance.create_run_for_job(SYNC_WATCHED_DOCUMENTS.job, status=dg.DagsterRunStatus.STARTED)
    said = skipped(instance)
    assert said == f"1 watched document is due; run {run.run_id} is still in progress"


def test_a_platform_without_such_tables_is_a_reason_and_no_error(
    engine: sa.Engine, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", engine.url.set(drivername="postgresql").render_as_string(hide_password=False))
    assert "there is no table documents" in skipped(instance)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert "127.0.0.1" in skipped(instance)
