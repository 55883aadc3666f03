"""Which runs are really going on, after their process was killed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import psutil
import pytest

from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.tasks import dagster_runs as runs
from housekeeping_pipelines.tasks.jobs import schedule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
def other() -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        yield psutil.Process(process.pid)
        process.kill()


def started(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    run = instance.create_run_for_job(some_job, tags=tags)
    event = dg.DagsterEvent(event_type_value="PIPELINE_START", job_name="some_job", message="")
    instance.report_dagster_event(event, run.run_id)
    return run.run_id


def tags_of(process: psutil.Process) -> dict[str, str]:
    return runs.process_tags() | {runs.PID_TAG: str(process.pid), runs.STARTED_TAG: str(process.create_time())}


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_a_run_whose_process_is_gone_is_ended_and_blocks_nothing(
    instance: dg.DagsterInstance, other: psutil.Process
) -> None:
    run_id = started(instance, tags_of(other))
    assert runs.run_in_flight(instance, "some_job") == run_id
    assert runs.end_dead_runs(instance) == []
    other.kill()
    other.wait()
    assert runs.run_in_flight(instance, "some_job") is None
    assert runs.end_dead_runs(instance) == [run_id]
    assert status(instance, run_id) is dg.DagsterRunStatus.FAILURE
    assert runs.end_dead_runs(instance) == []


def test_a_process_that_took_over_the_number_is_not_taken_for_it(
    instance: dg.DagsterInstance, other: psutil.Process
) -> None:
    run_id = started(instance, tags_of(other) | {runs.STARTED_TAG: "1.0"})
    assert runs.end_dead_runs(instance) == [run_id]


def test_a_run_of_another_machine_is_left_to_its_time_limit(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, {runs.HOST_TAG: "elsewhere", runs.PID_TAG: "1", runs.STARTED_TAG: "1.0"})
    assert runs.end_dead_runs(instance) == []
    assert runs.run_in_flight(instance, "some_job") == run_id
    later = datetime.now(UTC) + timedelta(seconds=runs.MAX_RUNTIME_SECONDS + 1)
    assert runs.run_in_flight(instance, "some_job", later) is None


def test_a_run_that_never_started_blocks_only_for_a_while(instance: dg.DagsterInstance) -> None:
    run_id = instance.create_run_for_job(some_job).run_id
    assert runs.run_in_flight(instance, "some_job") == run_id
    assert runs.run_in_flight(instance, "some_job", datetime.now(UTC) + runs.START_TIMEOUT) is None
    assert runs.run_in_flight(instance, "other_job") is None


def test_a_schedule_skips_with_the_run_that_is_in_its_way(
    instance: dg.DagsterInstance, other: psutil.Process, tmp_path: Path
) -> None:
    definition = schedule(some_job, "0 2 * * *", load_settings(tmp_path, {}))
    with dg.build_schedule_context(instance, scheduled_execution_time=datetime.now(UTC)) as context:
        assert len(definition.evaluate_tick(context).run_requests or []) == 1
        run_id = started(instance, tags_of(other))
        tick = definition.evaluate_tick(context)
        assert tick.run_requests == []
        assert tick.skip_message == f"run {run_id} of some_job is still in progress"
        other.kill()
        other.wait()
        assert len(definition.evaluate_tick(context).run_requests or []) == 1
