"""Which of Dagster's runs are really in progress.

A run whose process was killed stays STARTED in Dagster's history. Each run is therefore tagged with its process, and
the next run reports those as failed whose process no longer exists. Two runs of a task are kept apart by its advisory
lock, which dies with the process; the tags serve the history and the skip reasons of schedules.
"""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

from housekeeping_pipelines.clock import utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

# As in workspace.yaml.
LOCATION_NAME = "housekeeping"
REPOSITORY_LABEL = f"__repository__@{LOCATION_NAME}"

# Dagster's UI hides tags with this prefix, which would only clutter its list of runs.
HOST_TAG = ".dagster/housekeeping_host"
PID_TAG = ".dagster/housekeeping_pid"
STARTED_TAG = ".dagster/housekeeping_process_started"

# Longer than any run may take: a run that is still STARTED on another machine after this is dead.
MAX_RUNTIME_SECONDS = 2 * 60 * 60

# Longer than Dagster's run monitoring waits for a run to start (dagster.yaml).
START_TIMEOUT = timedelta(minutes=10)

IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

# Enough to look at in one tick; there are never so many at once.
_LOOKED_AT = 50


def process_tags() -> dict[str, str]:
    """Which process this is; its start time tells it from a later one with the same number."""
    import psutil

    return {
        HOST_TAG: platform.node(),
        PID_TAG: str(os.getpid()),
        STARTED_TAG: str(psutil.Process().create_time()),
    }


def tag_run(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Say that this process does the run, and of which code location it is, so that the UI lists it with its job."""
    # A run that a command executes in its own process has no origin; Dagster's daemon gives its runs this tag.
    origin = {} if REPOSITORY_LABEL_TAG in run.tags else {REPOSITORY_LABEL_TAG: REPOSITORY_LABEL}
    instance.add_run_tags(run.run_id, process_tags() | origin)


def create_runs_here(instance: dg.DagsterInstance, job_name: str) -> None:
    """Make the runs of this job that this process creates on `instance` runs of the code location, and of this process.

    Dagster gives a run in its creator's process no origin, and its UI then leaves it out of the overview.
    """
    origin = RemoteJobOrigin(
        RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION_NAME), "__repository__"), job_name
    )
    create = instance.create_run_for_job

    def create_run_for_job(**arguments: Any) -> dg.DagsterRun:
        tags = {**(arguments.pop("tags", None) or {}), **process_tags(), REPOSITORY_LABEL_TAG: REPOSITORY_LABEL}
        return create(**arguments, tags=tags, remote_job_origin=origin)

    instance.create_run_for_job = create_run_for_job  # type: ignore[method-assign, assignment]


def is_dead(tags: Mapping[str, str]) -> bool:
    """Whether the process of a run was on this machine and has ended."""
    if tags.get(HOST_TAG) != platform.node() or PID_TAG not in tags:
        return False
    import psutil

    try:
        return str(psutil.Process(int(tags[PID_TAG])).create_time()) != tags.get(STARTED_TAG)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report the runs whose process has ended as failed; returns their ids."""
    filters = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING], tags={HOST_TAG: platform.node()}
    )
    dead = [run for run in instance.get_runs(filters, limit=_LOOKED_AT) if is_dead(run.tags)]
    for run in dead:
        instance.report_run_failed(run, f"Its process, {run.tags[PID_TAG]} on {run.tags[HOST_TAG]}, no longer exists.")
    return [run.run_id for run in dead]


def run_in_flight(instance: dg.DagsterInstance, job_name: str, now: datetime | None = None) -> str | None:
    """The id of a run of this job that is really in progress or queued; None if there is none."""
    now = now or utc_now()
    filters = dg.RunsFilter(job_name=job_name, statuses=IN_FLIGHT)
    for record in instance.get_run_records(filters, limit=_LOOKED_AT):
        run, age = record.dagster_run, now - record.create_timestamp
        if run.status in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING):
            going = age < START_TIMEOUT
        elif run.status == dg.DagsterRunStatus.QUEUED:
            going = True
        else:
            started = datetime.fromtimestamp(record.start_time or record.create_timestamp.timestamp(), UTC)
            going = not is_dead(run.tags) and (now - started).total_seconds() < MAX_RUNTIME_SECONDS
        if going:
            return run.run_id
    return None
