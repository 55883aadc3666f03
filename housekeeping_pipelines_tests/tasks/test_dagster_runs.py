"""Which runs are really going on, after their process was killed: those whose lock is held, whatever else is said."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from housekeeping_pipelines.execution.database import Database
from housekeeping_pipelines.execution.liveness import alive, announce, identity, withdraw
from housekeeping_pipelines.settings import Settings, load_settings
from housekeeping_pipelines.tasks import dagster_runs as runs
from housekeeping_pipelines.tasks.jobs import schedule
from housekeeping_pipelines_tests.support import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

_OTHER = """
import sys
from pathlib import Path
from housekeeping_pipelines.execution.database import Database
from housekeeping_pipelines.execution.liveness import announce
from housekeeping_pipelines.settings import load_settings
database = Database(load_settings(Path("/nowhere"), {"DATABASE_URL": sys.argv[1]}))
print(announce(database, sys.argv[2]), flush=True)
sys.stdin.read()
"""


@dg.op
def nothing() -> None:
    pass


@dg.job
def some_job() -> None:
    nothing()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def settings(engine: sa.Engine, tmp_path: Path) -> Settings:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return load_settings(tmp_path, {"DATABASE_URL": url})


@pytest.fixture
def here(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        return identity(connection)


@contextmanager
def process_of(run_id: str, settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Another process that does a run."""
    assert settings.database_url is not None
    url = settings.database_url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", _OTHER, url, run_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "/" in process.stdout.readline()
        yield process
        process.kill()


def started(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    run = instance.create_run_for_job(some_job, tags=tags)
    event = dg.DagsterEvent(event_type_value="PIPELINE_START", job_name="some_job", message="")
    instance.report_dagster_event(event, run.run_id)
    return run.run_id


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def is_free(engine: sa.Engine, run_id: str) -> bool:
    with engine.connect() as connection:
        return not alive(connection, [run_id])


# As of a container with the same name whose processes have other numbers, and of a machine whose clock was set.
STRANGE = {runs.PID_TAG: "1"}


@pytest.mark.parametrize(
    "tags", [{}, STRANGE, {runs.HOST_TAG: "elsewhere"}], ids=["here", "other numbers", "elsewhere"]
)
def test_a_run_is_alive_as_long_as_its_lock_is_held_and_no_longer(
    engine: sa.Engine, instance: dg.DagsterInstance, settings: Settings, here: str, tags: dict[str, str]
) -> None:
    run_id = started(instance, runs.process_tags(here) | tags)
    with process_of(run_id, settings) as process:
        assert runs.run_in_flight(instance, "some_job", settings) == run_id
        assert runs.end_dead_runs(instance, Database(settings)) == []
        process.kill()
        process.wait()
        until(lambda: is_free(engine, run_id), seconds=20)
    assert runs.run_in_flight(instance, "some_job", settings) is None
    assert runs.end_dead_runs(instance, Database(settings)) == [run_id]
    assert status(instance, run_id) is dg.DagsterRunStatus.FAILURE
    assert runs.end_dead_runs(instance, Database(settings)) == []


def test_a_run_on_another_database_is_left_to_its_time_limit(instance: dg.DagsterInstance, settings: Settings) -> None:
    """Two installations may share Dagster's storage."""
    run_id = started(instance, runs.process_tags("7712752550341246206/16384"))
    assert runs.end_dead_runs(instance, Database(settings)) == []
    assert runs.run_in_flight(instance, "some_job", settings) == run_id
    later = datetime.now(UTC) + timedelta(seconds=runs.MAX_RUNTIME_SECONDS + 1)
    assert runs.run_in_flight(instance, "some_job", settings, later) is None


def test_a_database_that_is_down_ends_no_run(instance: dg.DagsterInstance, here: str, tmp_path: Path) -> None:
    down = load_settings(tmp_path, {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    run_id = started(instance, runs.process_tags(here))
    assert runs.end_dead_runs(instance, Database(down)) == []
    assert runs.run_in_flight(instance, "some_job", down) == run_id
    assert announce(Database(down), run_id) is None


def test_a_process_announces_one_run_at_a_time(engine: sa.Engine, settings: Settings, here: str) -> None:
    assert announce(Database(settings), "run-1") == announce(Database(settings), "run-1") == here
    with engine.connect() as connection:
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'housekeeping run-1'"
        assert connection.exec_driver_sql(sessions).scalar_one() == 1
        assert alive(connection, ["run-1", "run-2"]) == {"run-1"}
        announce(Database(settings), "run-2")
        until(lambda: alive(connection, ["run-1", "run-2"]) == {"run-2"}, seconds=20)
        withdraw()
        until(lambda: not alive(connection, ["run-1", "run-2"]), seconds=20)


def test_a_run_that_never_started_blocks_only_for_a_while(instance: dg.DagsterInstance, settings: Settings) -> None:
    run_id = instance.create_run_for_job(some_job).run_id
    assert runs.run_in_flight(instance, "some_job", settings) == run_id
    assert runs.run_in_flight(instance, "some_job", settings, datetime.now(UTC) + runs.START_TIMEOUT) is None
    assert runs.run_in_flight(instance, "other_job", settings) is None


def test_a_schedule_skips_with_the_run_that_is_in_its_way(
    engine: sa.Engine, instance: dg.DagsterInstance, settings: Settings, here: str
) -> None:
    definition = schedule(some_job, "0 2 * * *", settings)
    with dg.build_schedule_context(instance, scheduled_execution_time=datetime.now(UTC)) as context:
        assert len(definition.evaluate_tick(context).run_requests or []) == 1
        run_id = started(instance, runs.process_tags(here))
        with process_of(run_id, settings) as process:
            tick = definition.evaluate_tick(context)
            assert tick.run_requests == []
            assert tick.skip_message == f"run {run_id} of some_job is still in progress"
            process.kill()
            process.wait()
            until(lambda: is_free(engine, run_id), seconds=20)
        assert len(definition.evaluate_tick(context).run_requests or []) == 1
