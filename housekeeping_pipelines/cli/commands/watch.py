"""`watch list | add | remove | review`: which documents are fetched again, and which wait for a review."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from housekeeping_pipelines.cli import launch, output, session
from housekeeping_pipelines.cli.commands.tasks import Queue, finish
from housekeeping_pipelines.cli.session import Json
from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.execution.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.execution.runner import TaskRunner
    from housekeeping_pipelines.settings import Settings
    from housekeeping_pipelines.watched_documents.administration import Decision, WatchAdministration
    from housekeeping_pipelines.watched_documents.queue import Entry

app = typer.Typer(help="Documents that are fetched again when they are due.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The document's id, as listed.")]


def register(parent: typer.Typer) -> None:
    parent.command("sync-watched-documents")(sync_watched_documents)
    parent.add_typer(app, name="watch")


def sync_watched_documents(
    max_documents: Annotated[int | None, typer.Option(min=1, help="The maximum number of documents.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Take every watched document, due or not.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fetch and compare, and write nothing.")] = False,
    queue: Queue = False,
    json_: Json = False,
) -> int:
    """Fetch the watched documents that are due, and replace what changed."""
    settings = session.start()
    given = {"max_documents": max_documents, "force": force or None, "dry_run": dry_run or None}
    config = {name: value for name, value in given.items() if value is not None}
    ops = {"sync_watched_documents": launch.check_config("sync_watched_documents", config)}
    if queue:
        run_id = launch.queue(settings, "sync_watched_documents_job", ops)
        return launch.echo_queued("sync_watched_documents_job", run_id, json_=json_)
    outcome = launch.run_here(settings, "sync_watched_documents_job", ops, names=False)
    finish(settings, outcome, json_=json_)
    return outcome.exit_code


@app.command("list")
def list_(json_: Json = False) -> None:
    """List the watched documents, ordered by due time."""
    with _administration(session.start()) as administration:
        entries = administration.entries()
    if json_:
        output.as_json({"items": [_as_dict(entry) for entry in entries]})
        return
    if not entries:
        output.echo("Nothing is watched.")
        output.echo(f"[dim]watch a page:[/] {output.command()} watch add link://https://example.com --workspace SLUG")
        return
    now = utc_now()
    rows = [(entry.id, entry.name, entry.state, _every(entry.stale_after), _next(entry, now)) for entry in entries]
    output.table(["id", "document", "state", "every", "next"], rows)
    for entry in entries:
        if entry.reason:
            output.echo(f"\n[yellow]![/] {entry.id}  {output.escape(entry.name)}: {output.escape(entry.reason)}")
            if entry.known.held:
                output.echo(_indented(entry.known.held.get("diff", "")))
            if entry.state != "active":
                choice = "--retry" if entry.state == "error" else "--accept | --reject"
                output.echo(f"   [dim]decide:[/] {output.command()} watch review {entry.id} {output.escape(choice)}")


@app.command()
def add(
    reference: Annotated[str, typer.Argument(help="Such as link://https://example.com/page.")],
    workspace: Annotated[
        str | None, typer.Option(metavar="SLUG", help="Where to create a document, if the reference has none.")
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, max=8760, metavar="HOURS", help="Default: WATCH_INTERVAL_HOURS.")
    ] = None,
    json_: Json = False,
) -> None:
    """Watch the documents of a reference."""
    settings = session.start()
    from housekeeping_pipelines.watched_documents.sources.opening import Sources
    from housekeeping_pipelines.watched_documents.sources.references import parse_reference

    Sources(settings).check(parse_reference(reference))
    with _administration(settings) as administration:
        watched = administration.add(
            reference,
            workspace=workspace,
            stale_after=None if every is None else timedelta(hours=every),
            default=timedelta(hours=settings.watch_interval_hours),
            now=utc_now(),
        )
    if json_:
        output.as_json(
            {
                "id": watched.id,
                "documents": watched.documents,
                "created": watched.created,
                "already_watched": watched.already,
                "every_hours": watched.stale_after / timedelta(hours=1),
            }
        )
        return
    what = "a new document" if watched.created else counted(watched.documents, "document")
    verb = "is already watched" if watched.already else "is watched"
    output.echo(f"{output.escape(reference)} {verb} as {watched.id}: {what}, every {_every(watched.stale_after)}.")
    if not watched.already:
        output.echo(f"[dim]fetch it now:[/] {output.command()} sync-watched-documents")


@app.command()
def remove(id_: Id, json_: Json = False) -> None:
    """Stop watching a document; its text is kept."""
    settings = session.start()
    from housekeeping_pipelines.watched_documents import administration

    with _runner(settings) as (runner, config):
        removal = administration.remove(runner, config, id_)
    if json_:
        documents = len(removal.entry.copies)
        output.as_json({"removed": removal.entry.id, "documents": documents, "run_id": removal.run_id})
        return
    output.echo(f"{output.escape(removal.entry.name)} is no longer watched.")
    _say_how_to_undo(removal.run_id)


@app.command()
def review(
    id_: Id,
    accept: Annotated[
        bool, typer.Option("--accept", help="Write the new text; if it is gone or fails, stop watching it.")
    ] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Keep the current text, and continue to watch.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Fetch it again in the next sync.")] = False,
    json_: Json = False,
) -> None:
    """Decide what happens to a document that is held, gone or in error."""
    given: list[Decision] = [name for name, on in _decisions(accept, reject, retry) if on]
    if len(given) != 1:
        raise ConfigurationError("a review is one of --accept, --reject and --retry", hint="give exactly one of them")
    settings = session.start()
    from housekeeping_pipelines.watched_documents import administration

    with _runner(settings) as (runner, config):
        reviewed = administration.review(runner, config, id_, given[0])
    entry = reviewed.entry
    if json_:
        document = {"id": entry.id, "was": entry.state, "decision": given[0], "message": reviewed.message}
        output.as_json(document | {"run_id": reviewed.run_id})
        return
    output.echo(f"{output.escape(entry.name)}: {reviewed.message}.")
    if reviewed.run_id is not None:
        _say_how_to_undo(reviewed.run_id)


def _decisions(accept: bool, reject: bool, retry: bool) -> list[tuple[Decision, bool]]:
    return [("accept", accept), ("reject", reject), ("retry", retry)]


@contextmanager
def _administration(settings: Settings) -> Iterator[WatchAdministration]:
    from housekeeping_pipelines.application.config import load_config
    from housekeeping_pipelines.watched_documents.administration import WatchAdministration

    config = load_config(settings)
    with session.platform_connection(settings) as connection:
        yield WatchAdministration.on(connection, config)


@contextmanager
def _runner(settings: Settings) -> Iterator[tuple[TaskRunner, HousekeepingConfig]]:
    from housekeeping_pipelines.execution.database import Database

    database = Database(settings)
    yield database.runner(), database.config
    database.close()


def _say_how_to_undo(run_id: str | None) -> None:
    if run_id is None:
        output.echo("[yellow]![/] this cannot be undone: TRASH_RETENTION_DAYS is 0")
    else:
        output.echo(f"[dim]undo[/] {output.command()} undo {run_id[:8]}")


def _as_dict(entry: Entry) -> dict[str, Any]:
    last = entry.last_synced_at
    return {
        "id": entry.id,
        "reference": entry.reference,
        "filename": entry.filename,
        "documents": len(entry.copies),
        "state": entry.state,
        "reason": entry.reason,
        "diff": (entry.known.held or {}).get("diff"),
        "every_hours": entry.stale_after / timedelta(hours=1),
        "last_synced_at": None if last is None else last.isoformat(),
        "next_sync_at": None if entry.awaits_review else entry.next_sync_at.isoformat(),
        "consecutive_failures": entry.failures,
    }


def _every(interval: timedelta) -> str:
    hours = interval / timedelta(hours=1)
    return f"{hours / 24:g} d" if hours >= 24 and hours % 24 == 0 else f"{hours:g} h"


def _next(entry: Entry, now: datetime) -> str:
    if entry.awaits_review:
        return "needs a review"
    return "due" if entry.next_sync_at <= now else f"{entry.next_sync_at:%Y-%m-%d %H:%M}"


def _indented(text: str) -> str:
    return "\n".join(f"   {output.escape(line)}" for line in text.splitlines())
