"""Tasks run through Dagster: in this process, or handed to the daemon's queue; either way the event log has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from housekeeping_pipelines.cli import output, session
from housekeeping_pipelines.errors import Absent, ConfigurationError, HousekeepingError, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    import dagster as dg

    from housekeeping_pipelines.execution.report import Report
    from housekeeping_pipelines.settings import Settings

# An address that drops packets answers nothing at all.
_CONNECT_SECONDS = 4

_EXIT = {"skipped": 0, "succeeded": 0, "partial": 1, "failed": 1, "refused": Refused.exit_code}


@dataclass(frozen=True)
class Outcome:
    """A finished run: the report of each of its tasks, in their order.

    Attributes:
        interrupted: the exit code of the signal that ended it; None if none did.
    """

    run_id: str
    reports: dict[str, Report]
    interrupted: int | None = None

    @property
    def exit_code(self) -> int:
        """0 done, 1 failed or partial, 2 bad configuration, 3 refused; the worst of the tasks. 130 or 143: a signal.

        A task for which the platform has no tables is bad configuration only where it was asked for alone.
        """
        if self.interrupted is not None:
            return self.interrupted
        codes = {self._code(report) for report in self.reports.values()}
        if len(self.reports) == 1 and any(report.error_type == Absent.__name__ for report in self.reports.values()):
            return Absent.exit_code
        return next((code for code in (1, 2, 3) if code in codes), 0)

    @staticmethod
    def _code(report: Report) -> int:
        if report.error_type == ConfigurationError.__name__:
            return ConfigurationError.exit_code
        return _EXIT[report.status]

    @property
    def status(self) -> str:
        """The status of the whole run: that of its only task, or `partial` if only some tasks succeeded."""
        statuses = [report.status for report in self.reports.values()]
        bad = [status for status in statuses if status not in ("succeeded", "skipped")]
        if not bad:
            return "skipped" if statuses and set(statuses) == {"skipped"} else "succeeded"
        return bad[0] if len(set(statuses)) == 1 else "partial"


def check_config(task: str, values: dict[str, Any]) -> dict[str, Any]:
    """An op's configuration as Dagster takes it, checked as the step would check it.

    Raises:
        ConfigurationError: no such task, or a value is out of bounds; the text names it.
    """
    from housekeeping_pipelines.definitions import REGISTRY

    tasks = REGISTRY.tasks
    if task not in tasks:
        raise ConfigurationError(f"there is no task {task!r}", hint=f"the tasks are {', '.join(sorted(tasks))}")
    known = tasks[task].config.model_fields
    if unknown := sorted(set(values) - set(known)):
        raise ConfigurationError(f"{task} takes no {', '.join(unknown)}", hint=f"it takes {', '.join(known)}")
    try:
        tasks[task].config(**values)
    except ValidationError as error:
        raise ConfigurationError(
            f"{task}: " + "; ".join(_explain(problem) for problem in error.errors()),
            hint=f"it takes {', '.join(known)}",
        ) from None
    return {"config": values} if values else {}


def _explain(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"]) or "the configuration"
    if problem["type"] == "missing":
        return f"{name} is missing"
    return f"{name} is {problem['input']!r}: {problem['msg'].removeprefix('Input ')}"


def run_here(
    settings: Settings,
    job: str,
    ops: dict[str, dict[str, Any]],
    *,
    names: bool,
    resources: Mapping[str, object] | None = None,
) -> Outcome:
    """Run a job in this process.

    Args:
        ops: configuration by op, as `check_config` returns it.
        names: whether a dry run prints the name of everything that would go.
        resources: in place of those of the code location.

    Raises:
        HousekeepingError: Dagster's own storage cannot be used.
    """
    session.use_dagster(settings)
    from housekeeping_pipelines.definitions import REGISTRY, defs
    from housekeeping_pipelines.execution.database import Database
    from housekeeping_pipelines.execution.interruption import INTERRUPTION
    from housekeeping_pipelines.execution.liveness import announce, withdraw
    from housekeeping_pipelines.tasks.dagster_runs import create_runs_here, end_dead_runs
    from housekeeping_pipelines.tasks.reporting import read_reports

    database, run_id = Database(settings), str(uuid.uuid4())
    with dagster_instance(settings) as instance, output.ProgressBar(names=names) as bar, INTERRUPTION.listening():
        # Before it exists, so that no other process finds it without its lock.
        create_runs_here(instance, job, announce(database, run_id))
        end_dead_runs(instance, database)
        result = defs.resolve_job_def(job).execute_in_process(
            # The event log has the run; what Dagster would print of it is for its own developers.
            run_config={"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            instance=instance,
            resources={"database": database, "observer": bar, **(resources or {})},
            raise_on_error=False,
            run_id=run_id,
        )
        withdraw()
        database.close()
        kinds = {name: task.report for name, task in REGISTRY.tasks.items()}
        reports = read_reports(instance, run_id, kinds)
        return Outcome(run_id, reports, INTERRUPTION.exit_code if _was_interrupted(result) else None)


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    import dagster as dg

    from housekeeping_pipelines.execution.interruption import INTERRUPTION

    return bool(INTERRUPTION) or result.dagster_run.status == dg.DagsterRunStatus.CANCELED


def dagster_instance(settings: Settings) -> dg.DagsterInstance:
    """Dagster's own storage, as DAGSTER_HOME configures it.

    Raises:
        HousekeepingError: it cannot be used.
    """
    import dagster as dg
    from dagster_postgres.utils import DagsterPostgresException

    _check_storage(settings)
    try:
        return dg.DagsterInstance.get()
    except HousekeepingError:
        raise
    except (dg.DagsterError, DagsterPostgresException) as error:
        raise ConfigurationError(f"Dagster cannot start: {' '.join(str(error).split())}") from None


def _check_storage(settings: Settings) -> None:
    """Dagster itself tries for 13 s, and then fails with its whole stack.

    Raises:
        ConfigurationError, Unavailable: the database of DAGSTER_PG_URL cannot be used.
    """
    from housekeeping_pipelines.postgres.addresses import dagster_url
    from housekeeping_pipelines.postgres.engine import dagster_connection

    ours = os.environ.get("DAGSTER_HOME") == str(settings.housekeeping_home / "dagster")
    if settings.dagster_pg_url is not None and ours:
        with dagster_connection(dagster_url(settings), timeout_seconds=_CONNECT_SECONDS):
            pass


def queue(settings: Settings, job: str, ops: dict[str, dict[str, Any]]) -> str:
    """Hand a job to the daemon; returns the run's id. What the settings here stop or keep, they stop and keep there.

    Raises:
        HousekeepingError: Dagster does not take it.
    """
    from housekeeping_pipelines.resources.dagster_home import workspace_file
    from housekeeping_pipelines.tasks.resources import SETTINGS_TAG

    session.use_dagster(settings)
    run_id = str(uuid.uuid4())
    command = [
        *(sys.executable, "-m", "dagster", "job", "launch", "-w", str(workspace_file()), "-j", job),
        *("--run-id", run_id, "--config-json", json.dumps({"ops": ops})),
        *("--tags", json.dumps({SETTINGS_TAG: json.dumps(settings.travelling)} if settings.travelling else {})),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    if done.returncode != 0:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
        raise HousekeepingError(f"Dagster did not take the run: {last.strip()}")
    return run_id


def echo_queued(job: str, run_id: str, *, json_: bool) -> int:
    """Tell that a run waits for the daemon; returns the exit code."""
    if json_:
        output.as_json({"run_id": run_id, "status": "queued"})
    else:
        output.echo(f"{job} is queued as run {run_id}; the daemon (`housekeeping run-scheduler`) starts it")
    return 0
