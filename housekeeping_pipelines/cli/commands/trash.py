"""Commands for the trash, and for pausing deletion: `trash list`, `pause`, `resume`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from housekeeping_pipelines.cli import output, session
from housekeeping_pipelines.cli.session import Json
from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.execution.wording import in_units

if TYPE_CHECKING:
    from housekeeping_pipelines.deletion.trash import TrashedRun
    from housekeeping_pipelines.settings import Settings

app = typer.Typer(help="The deletions that can still be undone.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="trash")
    parent.command("pause")(pause)
    parent.command("resume")(resume)


@app.callback()
def _group() -> None:
    """The deletions that can still be undone."""


@app.command("list")
def list_(json_: Json = False) -> None:
    """List the runs whose deletions can still be undone, latest first."""
    settings = session.start()
    from housekeeping_pipelines.deletion.mirrors import mirrors_with_own_types
    from housekeeping_pipelines.deletion.trash import list_trash

    with session.platform_connection(settings) as connection:
        runs = list_trash(connection, timedelta(days=settings.trash_retention_days))
        blocking = mirrors_with_own_types(connection)
    if json_:
        output.as_json(
            {
                "database": session.platform_name(settings),
                "runs": [
                    {
                        "run_id": run.run_id,
                        "task": run.task,
                        "deleted_at": run.deleted_at.isoformat(),
                        "expires_at": run.expires_at.isoformat(),
                        "rows": run.rows,
                        "files": run.files,
                        "bytes": run.bytes,
                    }
                    for run in runs
                ],
            }
        )
        return
    if not runs:
        output.echo("The trash is empty.")
        session.echo_platform(settings)
        return
    output.table(["run", "task", "deleted UTC", "until", "rows", "files", "size"], [_line(run) for run in runs])
    output.echo("\n[dim]undo one:[/] housekeeping undo RUN")
    session.echo_platform(settings)
    if blocking:
        output.echo(
            f"[yellow]![/] rows of {', '.join(blocking)} use types of yours: while they are in the trash, DROP TYPE and"
            " DROP EXTENSION fail. To purge a run now:"
            """ housekeeping run purge_trash --config '{"run_id": "RUN"}'"""
        )


def _line(run: TrashedRun) -> tuple[str, ...]:
    same_year = run.expires_at.year == run.deleted_at.year
    when = f"{run.deleted_at:%m-%d %H:%M}", f"{run.expires_at:{'%m-%d' if same_year else '%Y-%m-%d'}}"
    files, size = (f"{run.files:,}", in_units(run.bytes)) if run.files else ("", "")
    return (run.run_id[:8], run.task, *when, f"{run.rows:,}", files, size)


def pause(
    reason: Annotated[str, typer.Option(help="The reason, for those who find deletion paused.")] = "by hand",
    json_: Json = False,
) -> None:
    """Stop every deleting run before its next batch, and refuse new ones."""
    settings = session.start()
    from housekeeping_pipelines.deletion import pause as switch

    with session.platform_connection(settings) as connection:
        switch.pause(connection, reason=reason, now=utc_now())
    _print_pause(settings, json_, paused=True, text="Paused: no run deletes anything until `housekeeping resume`.")


def resume(json_: Json = False) -> None:
    """Let deleting runs start again."""
    settings = session.start()
    from housekeeping_pipelines.deletion import pause as switch

    with session.platform_connection(settings) as connection:
        was_paused = switch.resume(connection)
    if settings.housekeeping_paused:
        text = "Still paused by HOUSEKEEPING_PAUSED, which outranks this command; set it to false."
    else:
        text = "Resumed." if was_paused else "It was not paused."
    _print_pause(settings, json_, paused=settings.housekeeping_paused, text=text)


def _print_pause(settings: Settings, json_: bool, *, paused: bool, text: str) -> None:
    if json_:
        output.as_json({"paused": paused, "database": session.platform_name(settings)})
    else:
        output.echo(text)
        session.echo_platform(settings)
