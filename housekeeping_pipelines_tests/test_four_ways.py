"""However a run is started, the same history and the same report come of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines_tests.deletion.support import scalar
from housekeeping_pipelines_tests.hammer.test_kill import make_rows
from housekeeping_pipelines_tests.support import (
    MESSAGES_EACH,
    OLD_CONVERSATIONS,
    ORPHANED_MESSAGES,
    UNUSED_ACCOUNTS,
    Installation,
    make_platform,
    rows,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
_TERMINATE = "mutation Terminate($run: String!) { terminateRun(runId: $run) { __typename } }"
_RUNS = """
{ runsOrError(filter: {pipelineName: "daily_housekeeping_job"}) {
    ... on Runs { results { runId status tags { key value } } } } }
"""
_REPORTS = """
import json, sys
import dagster as dg
from housekeeping_pipelines.tasks.reporting import read_reports

with dg.DagsterInstance.get() as instance:
    reports = {run_id: read_reports(instance, run_id) for run_id in sys.argv[1:]}
    json.dump({run_id: {task: each.to_dict() for task, each in found.items()} for run_id, found in reports.items()},
              sys.stdout)
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def web_ui(installation: Installation, **environ: str) -> Iterator[str]:
    """`housekeeping dev` with its daemon and its UI; the address of its GraphQL."""
    port = free_port()
    log = (installation.directory / "dev.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-c", "from housekeeping_pipelines.cli import main; main()", "dev", "--port", str(port)],
        cwd=installation.directory,
        env=installation.environment(**environ),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield f"http://127.0.0.1:{port}/graphql"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            log.close()


def graphql(address: str, query: str, **variables: Any) -> Any:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.load(response)["data"]
    except (urllib.error.URLError, ConnectionError):
        return None


def test_command_queue_graphql_and_schedule_tell_the_same(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    before = rows(engine)
    # Every run is dry, so that each finds the same; a tick is due every minute.
    environ = {"DRY_RUN": "true", "DAILY_HOUSEKEEPING_CRON": "* * * * *"}
    assert installation.run("init").returncode == 0
    with web_ui(installation, **environ) as address:
        by_command = installation.json("run-housekeeping", **environ)["run_id"]
        by_graphql = until(lambda: launched(address), seconds=90)
        # `--queue` is `dagster job launch`.
        by_queue = installation.json("run", "daily_housekeeping", "--queue", **environ)["run_id"]

        def finished() -> list[Any] | None:
            runs = (graphql(address, _RUNS) or {"runsOrError": {"results": []}})["runsOrError"]["results"]
            done = [run for run in runs if run["status"] == "SUCCESS"]
            ticked = [run for run in done if tag(run, "dagster/schedule_name") == "daily_housekeeping_schedule"]
            wanted = {by_command, by_graphql, by_queue} <= {run["runId"] for run in done}
            return done if wanted and ticked else None

        runs = until(finished, seconds=150)
    ids = [run["runId"] for run in runs]
    assert all(tag(run, "owner") == "housekeeping" for run in runs)
    found = json.loads(installation.python("-c", _REPORTS, *ids, **environ, **dagster_home(installation)).stdout)
    reports = [{task: comparable(report) for task, report in found[run_id].items()} for run_id in ids]
    assert len(reports) >= 4
    assert all(report == reports[0] for report in reports)
    assert reports[0]["delete_old_conversations"]["would_delete"] == {
        "conversations": OLD_CONVERSATIONS,
        "chat_messages": OLD_CONVERSATIONS * MESSAGES_EACH,
    }
    assert reports[0]["cleanup_orphaned_messages"]["would_delete"] == {"chat_messages": ORPHANED_MESSAGES}
    assert reports[0]["cleanup_inactive_users"]["would_delete"] == {"users": UNUSED_ACCOUNTS}
    assert rows(engine) == before


def test_a_run_that_dagster_ends_says_what_it_did(engine: sa.Engine, installation: Installation) -> None:
    make_rows(engine, 8_000)
    with engine.begin() as connection:
        # Minutes for all, so that each run is ended on its way.
        connection.exec_driver_sql(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_sleep(0.02); RETURN OLD; END';"
            "CREATE TRIGGER slowly BEFORE DELETE ON conversations FOR EACH ROW EXECUTE FUNCTION slowly()"
        )
    assert installation.run("init").returncode == 0
    job, task = "delete_old_conversations_job", "delete_old_conversations"
    config = {"ops": {task: {"config": {"batch_size": 1, "allow_large_deletion": True}}}}

    def report(run_id: str) -> Any:
        found = installation.python("-c", _REPORTS, run_id, **dagster_home(installation)).stdout
        return json.loads(found)[run_id].get(task)

    with web_ui(installation) as address:
        run_id = until(lambda: launched(address, job, config), seconds=90)
        there = "SELECT count(*) FROM pg_class WHERE relname = 'trash_batches'"
        trashed = "SELECT count(*) FROM housekeeping.trash_batches"
        until(lambda: scalar(engine, there) and scalar(engine, trashed) > 3, seconds=90)
        assert graphql(address, _TERMINATE, run=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"
        terminated = until(lambda: report(run_id), seconds=60)
        gone = 8_000 - scalar(engine, "SELECT count(*) FROM conversations")
        assert 3 < terminated["deleted"]["conversations"] == gone < 8_000
        limit = [{"key": "dagster/max_runtime", "value": "1"}]
        limited = until(lambda: launched(address, job, config, limit), seconds=30)
        # The daemon looks for runs that are over their time every 30 s.
        overdue = until(lambda: report(limited), seconds=120)
    for said in (terminated, overdue):
        assert (said["status"], said["stopped_reason"]) == ("partial", "interrupted")
    left = scalar(engine, "SELECT count(*) FROM conversations")
    assert 0 < overdue["deleted"]["conversations"] == 8_000 - gone - left < 8_000


def launched(address: str, job: str = "daily_housekeeping_job", config: Any = None, tags: Any = ()) -> str | None:
    selector = {
        "repositoryLocationName": "housekeeping",
        "repositoryName": "__repository__",
        "pipelineName": job,
    }
    params = {
        "selector": selector, "runConfigData": config or {}, "mode": "default", "executionMetadata": {"tags": [*tags]},
    }  # fmt: skip
    found = graphql(address, _LAUNCH, params=params)
    if not found or found["launchRun"]["__typename"] != "LaunchRunSuccess":
        return None
    run_id: str = found["launchRun"]["run"]["runId"]
    return run_id


def tag(run: Any, key: str) -> str | None:
    return next((tag["value"] for tag in run["tags"] if tag["key"] == key), None)


def dagster_home(installation: Installation) -> dict[str, str]:
    return {"DAGSTER_HOME": str(installation.directory / ".housekeeping" / "dagster")}


def comparable(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what differs from run to run."""
    kept = {key: value for key, value in report.items() if key not in ("run_id", "started_at", "duration_seconds")}
    kept["sample"] = [{**found, "age_seconds": None} for found in report["sample"]]
    return kept
