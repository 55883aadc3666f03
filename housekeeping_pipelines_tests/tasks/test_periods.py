"""What ticks by hours or by what is due: a period that no cron expression has, the outbox, and what is switched off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.maintenance.definitions import capability
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.tasks.jobs import every_hours
from housekeeping_pipelines_tests.deletion.support import sql

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa


@dg.job
def tidy_job() -> None: ...


@pytest.fixture
def instance() -> Any:
    with dg.instance_for_test() as instance:
        yield instance


def tick(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        return sensor.evaluate_tick(context)


@pytest.mark.parametrize(
    ("hours", "cron"), [(1, "0 * * * *"), (6, "0 */6 * * *"), (12, "0 */12 * * *"), (24, "0 0 * * *")]
)
def test_a_period_that_a_cron_expression_has_is_a_schedule(tmp_path: Path, hours: int, cron: str) -> None:
    (made,), sensors = every_hours(tidy_job, hours, load_settings(tmp_path, {}))
    assert sensors == ()
    assert (made.name, made.cron_schedule) == ("tidy_schedule", cron)


@pytest.mark.parametrize("hours", [5, 36, 168])
def test_any_other_period_is_a_sensor_that_runs_once_a_slot(
    tmp_path: Path, instance: dg.DagsterInstance, hours: int
) -> None:
    schedules, (made,) = every_hours(tidy_job, hours, load_settings(tmp_path, {}), run_config={"ops": {}})
    assert schedules == ()
    first = tick(made, instance)
    assert (first.run_requests or [], "the next run is due at" in first.skip_message) == ([], True)
    again = tick(made, instance, first.cursor)
    assert (again.run_requests or [], again.cursor) == ([], first.cursor)
    due = tick(made, instance, str(int(first.cursor) - 3))
    assert [request.run_key for request in due.run_requests] == [f"tidy_job {first.cursor}"]
    assert due.cursor == first.cursor


def test_what_is_switched_off_says_so(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    settings, reason = load_settings(tmp_path, {}), "TIDY_ENABLED is false"
    _, (made,) = every_hours(tidy_job, 5, settings, disabled_reason=reason)
    assert tick(made, instance, "0").skip_message == "TIDY_ENABLED is false"
    (schedule,), _ = every_hours(tidy_job, 6, settings, disabled_reason=reason)
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime(2026, 1, 1, tzinfo=UTC))
    assert schedule.evaluate_tick(context).skip_message == "TIDY_ENABLED is false"


def test_the_outbox_starts_a_run_only_when_something_is_due(
    engine: sa.Engine, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", engine.url.set(drivername="postgresql").render_as_string(hide_password=False))
    (sensor,) = capability(load_settings(tmp_path, {}), HousekeepingConfig()).sensors
    assert tick(sensor, instance).skip_message == "no file is due"
    for name, when in (("due", "now()"), ("due too", "now() - interval '1 h'"), ("later", "now() + interval '1 h'")):
        sql(
            engine,
            "INSERT INTO housekeeping.file_outbox (run_id, task, store, name, queued_at, next_attempt_at)"
            f" VALUES ('run', 'task', 'bucket', '{name}', now(), {when})",
        )
    requests = tick(sensor, instance).run_requests
    assert [request.tags["housekeeping/due_files"] for request in requests] == ["2"]
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert "127.0.0.1" in tick(sensor, instance).skip_message
    assert timedelta(seconds=sensor.minimum_interval_seconds or 0) == timedelta(minutes=1)
