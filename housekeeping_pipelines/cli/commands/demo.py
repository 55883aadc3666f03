"""`demo`: a sample platform, its daily housekeeping, and a watched page that changes."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import sqlalchemy as sa
import typer

from housekeeping_pipelines.cli import launch, output, session
from housekeeping_pipelines.cli.commands.tasks import show, summary
from housekeeping_pipelines.cli.session import Json
from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import ConfigurationError, Refused

if TYPE_CHECKING:
    from housekeeping_pipelines.execution.database import Database
    from housekeeping_pipelines.settings import Settings

# If one of these is set, the demo leaves watched documents out.
_CONFIGURED = ("vector_store_url", "embedding_base_url", "embedding_model", "collector_url", "documents_path")


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    conversations: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="The number of conversations; other tables are in proportion.")
    ] = 2_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same platform.")] = 7,
    json_: Json = False,
) -> int:
    """Create a platform of sample data in the embedded PostgreSQL, and clean it."""
    settings = session.start()
    if settings.database_url is not None:
        raise ConfigurationError(
            "the demo writes sample data, and DATABASE_URL names a database of yours",
            hint="unset DATABASE_URL, so that the demo uses the embedded PostgreSQL",
        )
    from housekeeping_pipelines.application.tables import metadata
    from housekeeping_pipelines.definitions import REGISTRY
    from housekeeping_pipelines.demo.files import create_sample_files
    from housekeeping_pipelines.demo.platform import create_sample
    from housekeeping_pipelines.execution.database import Database

    started = time.monotonic()
    database = Database(settings)
    now = utc_now()
    _reset(database, settings, now)
    rows = create_sample(database.engine, seed=seed, conversations=conversations, now=now, recorded=True)
    files = create_sample_files(database.engine, settings, seed=seed, now=now)
    made = time.monotonic() - started
    if not json_:
        output.echo(f"[bold]A platform of sample data[/] [dim]seed {seed}, {made:.1f} s[/]\n")
        output.table(["table", "rows"], [(name, f"{rows[name]:,}") for name in metadata.tables if rows.get(name)])
        if files:
            output.echo("\nand files: " + ", ".join(f"{count:,} in {store}" for store, count in files.items()))
        output.echo("\n[bold]daily_housekeeping_job[/], run through Dagster\n")
    daily = REGISTRY.chains["daily_housekeeping"]
    ops = {task.name: launch.check_config(task.name, {}) for task in daily.tasks}
    outcome = launch.run_here(settings, daily.job.name, ops, names=False)
    if not json_:
        show(outcome, settings)
        output.echo("\n[bold]sync_watched_documents_job[/], on a page that has changed\n")
    synced = None if _is_configured(settings) else _watch_a_page(database, settings)
    database.close()
    if json_:
        document = summary(outcome) | {"sample": rows, "files": files}
        output.as_json(
            document | {"watched": None if synced is None else next(iter(synced.reports.values())).to_dict()}
        )
    else:
        if synced is None:
            output.echo("[dim]skipped: your own documents, vectors or collector are configured[/]")
        else:
            output.report(next(iter(synced.reports.values())))
        _print_next_steps(outcome)
    return max(outcome.exit_code, 0 if synced is None else synced.exit_code)


def _reset(database: Database, settings: Settings, now: datetime) -> None:
    """Remove the trash, holds and state of an earlier demo, whose platform is replaced."""
    from housekeeping_pipelines.deletion.purge import due_runs
    from housekeeping_pipelines.deletion.tables import file_outbox, holds, kept_files, trashed_files
    from housekeeping_pipelines.deletion.trash import purge_rows
    from housekeeping_pipelines.demo.files import sample_stores
    from housekeeping_pipelines.demo.platform import reset_sample
    from housekeeping_pipelines.demo.tables import sample_keys
    from housekeeping_pipelines.watched_documents.tables import watched_documents

    stores = sample_stores(settings)
    with database.engine.begin() as connection:
        _check_alone(connection, settings)
    reset_sample(database.engine)
    with database.engine.connect() as connection:
        purge_rows(connection, due_runs(connection, now), before=now)
        for table in (holds, sample_keys):
            connection.execute(sa.delete(table))
        connection.execute(sa.delete(watched_documents))
        for table in (file_outbox, trashed_files, kept_files):
            # Entries of a store that is configured are the user's, and are kept.
            connection.execute(sa.delete(table).where(table.c.store.in_(stores)))
        connection.commit()


def _check_alone(connection: sa.Connection, settings: Settings) -> None:
    """
    Raises:
        Refused: the embedded platform has data that no demo made.
    """
    from housekeeping_pipelines.application.tables import metadata
    from housekeeping_pipelines.deletion.trash import tables_in_trash
    from housekeeping_pipelines.demo.platform import rows_of_others

    found = [f"{count:,} rows of {name}" for name, count in rows_of_others(connection).items()]
    found += [f"rows of {name} in the trash" for name in tables_in_trash(connection) if name not in metadata.tables]
    if found:
        raise Refused(
            f"the embedded PostgreSQL has data that no demo made: {', '.join(found)}",
            hint=f"nothing was dropped; set HOUSEKEEPING_HOME to a new folder, or remove {settings.housekeeping_home}",
        )


def _is_configured(settings: Settings) -> bool:
    return any(getattr(settings, name) is not None for name in _CONFIGURED)


def _watch_a_page(database: Database, settings: Settings) -> launch.Outcome:
    """Watch a page that the demo serves, change it, and sync it; it is watched only while it is served."""
    from housekeeping_pipelines.demo.platform import record_sample
    from housekeeping_pipelines.demo.site import SampleSite
    from housekeeping_pipelines.watched_documents.administration import WatchAdministration, remove

    with SampleSite() as site:
        # Loopback addresses are not allowed otherwise.
        allowed = settings.model_copy(update={"fetch_allowed_hosts": settings.fetch_allowed_hosts | {site.host}})
        with database.engine.begin() as connection:
            watching = WatchAdministration.on(connection, database.config)
            workspace = connection.scalar(sa.text("SELECT slug FROM workspaces ORDER BY id LIMIT 1"))
            watched = watching.add(
                site.reference,
                workspace=workspace,
                stale_after=None,
                default=timedelta(hours=settings.watch_interval_hours),
                now=utc_now(),
            )
            record_sample(connection)
        _sync(allowed, {})
        site.opens = "eight"
        outcome = _sync(allowed, {"force": True})
        remove(database.runner(), database.config, watched.id)
    return outcome


def _sync(settings: Settings, config: dict[str, Any]) -> launch.Outcome:
    task = "sync_watched_documents"
    from housekeeping_pipelines.watched_documents.sources.opening import Sources

    ops = {task: launch.check_config(task, config)}
    sources = Sources(settings)
    try:
        return launch.run_here(settings, f"{task}_job", ops, names=False, resources={"sources": sources})
    finally:
        sources.close()


def _print_next_steps(outcome: launch.Outcome) -> None:
    output.echo("\n[bold]What next?[/]")
    command = output.command()
    for line, what in (
        ("make dev", "the Dagster UI on this platform"),
        (f"{command} orphan-cleanup", "which media have no reference"),
        (f"{command} cleanup-files --stats", "what upload sessions left in storage"),
        (f"{command} watch add --help", "keep a page of yours up to date"),
        (f"{command} trash list", "what can still be undone"),
        (f"{command} undo {outcome.run_id[:8]}", "undo this run"),
        (f"{command} check", "every setting, every component"),
    ):
        output.echo(f"  {line:<46} [dim]{what}[/]")
