"""Commands that start or query Dagster's own processes: `dev`, `run-scheduler`, `scheduler-info`."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from housekeeping_pipelines.cli import launch, output, session
from housekeeping_pipelines.cli.session import Json
from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.settings import OVERRIDES_VARIABLE, check_cron

if TYPE_CHECKING:
    from housekeeping_pipelines.settings import Settings

# The bounds of the interval; Dagster evaluates sensors every five seconds.
SYNC_INTERVAL_SECONDS = (5, 86_400)


def register(app: typer.Typer) -> None:
    app.command("dev")(dev)
    app.command("run-scheduler")(run_scheduler)
    app.command("scheduler-info")(scheduler_info)


def dev(
    host: Annotated[str, typer.Option(help="The address that the web UI listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port that the web UI listens on.")] = 3000,
    json_: Json = False,
) -> None:
    """Open the Dagster web UI, with schedules and sensors ticking, until Ctrl-C."""
    settings = _prepare()
    _become(settings, "dagster", "dev", "--host", host, "--port", str(port))


def run_scheduler(
    cleanup_schedule: Annotated[
        str | None, typer.Option(metavar="CRON", help="When the daily housekeeping runs, instead of the setting.")
    ] = None,
    sync_interval: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="How often to look for due watched documents.")
    ] = None,
    json_: Json = False,
) -> None:
    """Run the daemon and the code location in the foreground, without a UI, until Ctrl-C."""
    overrides: dict[str, str] = {}
    if cleanup_schedule is not None:
        try:
            overrides["DAILY_HOUSEKEEPING_CRON"] = check_cron(cleanup_schedule)
        except ValueError as error:
            raise ConfigurationError(f"--cleanup-schedule is {cleanup_schedule!r}: {error}") from None
    if sync_interval is not None:
        low, high = SYNC_INTERVAL_SECONDS
        if not low <= sync_interval <= high:
            raise ConfigurationError(f"--sync-interval is {sync_interval}: accepted: {low} to {high} seconds")
        overrides["SYNC_WATCHED_DOCUMENTS_INTERVAL_SECONDS"] = str(sync_interval)
    os.environ[OVERRIDES_VARIABLE] = json.dumps(overrides)
    settings = _prepare()
    _become(settings, "dagster._daemon", "run")


def _prepare() -> Settings:
    """Create and check everything that the processes need here, where an error is printed as one line."""
    settings = session.start()
    from housekeeping_pipelines.execution.database import Database
    from housekeeping_pipelines.postgres.addresses import dagster_url

    session.use_dagster(settings)
    Database(settings).engine.dispose()
    dagster_url(settings)
    import housekeeping_pipelines.definitions  # noqa: F401 - finds a wrong rule now, not in the daemon

    _be_the_only_scheduler(settings)
    return settings


def _be_the_only_scheduler(settings: Settings) -> None:
    """
    Raises:
        Refused: another one ticks on the platform's database or on Dagster's, and would start the same runs.
    """
    from housekeeping_pipelines.postgres.addresses import dagster_url, platform_url
    from housekeeping_pipelines.postgres.process_lock import hold

    hold(platform_url(settings), "scheduler", setting="DATABASE_URL")
    hold(dagster_url(settings), "scheduler", setting="DAGSTER_PG_URL")


def _become(settings: Settings, module: str, *arguments: str) -> NoReturn:
    """Replace this process with Dagster's, so that it gets the terminal's and the supervisor's signals itself."""
    from housekeeping_pipelines.resources.dagster_home import workspace_file

    # A shell starts background processes with SIGINT ignored, and Dagster would then ignore SIGTERM too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Dagster warns that its older command is deprecated, which the user did not type.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:Function `dev_command`")
    level = ["--log-level", settings.log_level.lower()]
    command = [sys.executable, "-m", module, *arguments, "-w", str(workspace_file()), *level]
    os.execv(sys.executable, command)  # noqa: S606 - our own arguments


def scheduler_info(json_: Json = False) -> None:
    """Show every schedule and sensor with its next run, as recorded by Dagster."""
    settings = session.start()
    session.use_dagster(settings)
    from housekeeping_pipelines.definitions import defs
    from housekeeping_pipelines.tasks.scheduler_status import scheduler_status

    with launch.dagster_instance(settings) as instance:
        document = scheduler_status(instance, defs, utc_now())
    if json_:
        output.as_json(document)
        return
    output.echo(f"[bold]Scheduler[/] {_state(document['status'])}   [dim]time zone {settings.time_zone.key}[/]\n")
    for job in document["jobs"]:
        title = "" if job["name"] == job["id"] else f"  [dim]{job['name']}[/]"
        when = f"next {job['next_run_time'].replace('T', ' ')}" if job["next_run_time"] else "no next run"
        state = when if job["enabled"] else "off"
        output.echo(f"[bold]{job['id']}[/]{title}")
        output.echo(f"  {state:<31} [dim]{output.escape(job['trigger'])}[/]")
    if document["status"] == "stopped":
        output.echo("\n[dim]start it:[/] housekeeping run-scheduler, or make dev")


def _state(status: Any) -> str:
    return f"[green]{status}[/]" if status == "running" else f"[yellow]{status}[/]"
