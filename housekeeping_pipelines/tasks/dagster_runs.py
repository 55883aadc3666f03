"""Which of Dagster's runs are really in progress.

A run whose process was killed stays STARTED in Dagster's history. So each run holds a lock in the platform's database
(`execution.liveness`), and is tagged with that database; the next run reports those as failed whose lock is free. The
tags of host and process are for people.
"""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution import liveness
from housekeeping_pipelines.execution.database import probe

if TYPE_CHECKING:
    from housekeeping_pipelines.execution.database import Database
    from housekeeping_pipelines.settings import Settings

# As in workspace.yaml.
LOCATION_NAME = "housekeeping"
REPOSITORY_LABEL = f"__repository__@{LOCATION_NAME}"

# Dagster's UI hides tags with this prefix, which would only clutter its list of runs.
HOST_TAG = ".dagster/housekeeping_host"
PID_TAG = ".dagster/housekeeping_pid"
DATABASE_TAG = ".dagster/housekeeping_database"

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


def process_tags(database: str | None) -> dict[str, str]:
    """Which process this is, for people, and in which database it holds the run's lock."""
    where = {} if database is None else {DATABASE_TAG: database}
    return {HOST_TAG: platform.node(), PID_TAG: str(os.getpid())} | where


def tag_run(instance: dg.DagsterInstance, run: dg.DagsterRun, database: str | None) -> None:
    """Say that this process does the run, and of which code location it is, so that the UI lists it with its job."""
    # A run that a command executes in its own process has no origin; Dagster's daemon gives its runs this tag.
    origin = {} if REPOSITORY_LABEL_TAG in run.tags else {REPOSITORY_LABEL_TAG: REPOSITORY_LABEL}
    instance.add_run_tags(run.run_id, process_tags(database) | origin)


def create_runs_here(instance: dg.DagsterInstance, job_name: str, database: str | None) -> None:
    """Make the runs of this job that this process creates on `instance` runs of the code location, and of this process.

    Dagster gives a run in its creator's process no origin, and its UI then leaves it out of the overview.
    """
    origin = RemoteJobOrigin(
        RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION_NAME), "__repository__"), job_name
    )
    create = instance.create_run_for_job

    def create_run_for_job(**arguments: Any) -> dg.DagsterRun:
        tags = {**(arguments.pop("tags", None) or {}), **process_tags(database), REPOSITORY_LABEL_TAG: REPOSITORY_LABEL}
        return create(**arguments, tags=tags, remote_job_origin=origin)

    instance.create_run_for_job = create_run_for_job  # type: ignore[method-assign, assignment]


def dead_runs(instance: dg.DagsterInstance, connection: sa.Connection) -> list[dg.DagsterRun]:
    """The runs that held their lock in this database, and hold it no longer."""
    filters = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING],
        tags={DATABASE_TAG: liveness.identity(connection)},
    )
    runs = {run.run_id: run for run in instance.get_runs(filters, limit=_LOOKED_AT)}
    dead = runs.keys() - liveness.alive(connection, runs)
    # One that has ended since it was listed is not dead.
    now = instance.get_runs(dg.RunsFilter(run_ids=sorted(dead), statuses=list(filters.statuses))) if dead else []
    return list(now)


def end_dead_runs(instance: dg.DagsterInstance, database: Database) -> list[str]:
    """Report the runs whose process has ended as failed; returns their ids; none if the database does not answer."""
    try:
        with database.engine.connect() as connection:
            dead = dead_runs(instance, connection)
    except (HousekeepingError, sa.exc.DBAPIError):
        return []
    for run in dead:
        place = f"{run.tags.get(PID_TAG, '?')} on {run.tags.get(HOST_TAG, '?')}"
        instance.report_run_failed(run, f"Its process, {place}, no longer exists: its lock is free.")
    return [run.run_id for run in dead]


def cancel_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Say of a run that a signal ends that it was asked to end, which Dagster knows only of its own requests."""
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status == dg.DagsterRunStatus.STARTED:
        instance.report_run_canceling(run, "A signal asked it to end.")


def run_in_flight(
    instance: dg.DagsterInstance, job_name: str, settings: Settings, now: datetime | None = None
) -> str | None:
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
            overdue = (now - started).total_seconds() >= MAX_RUNTIME_SECONDS
            going = not overdue and run.run_id not in _dead(instance, settings)
        if going:
            return run.run_id
    return None


def _dead(instance: dg.DagsterInstance, settings: Settings) -> set[str]:
    """Those that have lost their lock; none if the database does not answer."""
    try:
        with probe(settings) as connection:
            return {run.run_id for run in dead_runs(instance, connection)}
    except HousekeepingError:
        return set()
