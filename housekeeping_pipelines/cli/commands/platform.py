"""Commands about the installation: `demo`, `init`, `check`, `migrate`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import sqlalchemy as sa
import typer

from housekeeping_pipelines.cli import launch, output, session
from housekeeping_pipelines.cli.commands.tasks import show, summary
from housekeeping_pipelines.cli.session import Json
from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from housekeeping_pipelines.health.checks import Check
    from housekeeping_pipelines.settings import SettingLine


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)
    app.command("check")(check)
    app.command("init")(init)
    app.command("migrate")(migrate)


def demo(
    conversations: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="The platform's size; everything else follows from it.")
    ] = 2_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same platform at the same moment.")] = 7,
    json_: Json = False,
) -> int:
    """Make a platform of sample data in the embedded PostgreSQL, and clean it."""
    settings = session.start()
    if settings.database_url is not None:
        raise ConfigurationError(
            "the demo writes sample data, and DATABASE_URL names a database of yours",
            hint="unset DATABASE_URL; the demo then uses the embedded PostgreSQL",
        )
    from housekeeping_pipelines.application.sample import create_sample, reset_sample
    from housekeeping_pipelines.application.sample_files import create_sample_files, sample_stores
    from housekeeping_pipelines.application.tables import metadata
    from housekeeping_pipelines.deletion.schema import file_outbox, holds, kept_files, trashed_files
    from housekeeping_pipelines.deletion.trash import purge
    from housekeeping_pipelines.resources.database import Database

    started = time.monotonic()
    database = Database(settings)
    now = datetime.now(UTC)
    stores = sample_stores(settings)
    reset_sample(database.engine)
    with database.engine.connect() as connection:
        # What an earlier demo left in the trash, or held, belongs to a platform that is no more.
        purge(connection, before=now)
        connection.execute(sa.delete(holds))
        for table in (file_outbox, trashed_files, kept_files):
            # What is in a store that is configured is not the demo's, and is to be found again.
            connection.execute(sa.delete(table).where(table.c.store.in_(stores)))
        connection.commit()
    rows = create_sample(database.engine, seed=seed, conversations=conversations, now=now)
    files = create_sample_files(database.engine, settings, seed=seed, now=now)
    made = time.monotonic() - started
    database.close()
    if not json_:
        output.say(f"[bold]A platform of sample data[/] [dim]seed {seed}, {made:.1f} s[/]\n")
        output.table(["table", "rows"], [(name, f"{rows[name]:,}") for name in metadata.tables if name in rows])
        if files:
            output.say("\nand files: " + ", ".join(f"{count:,} in {store}" for store, count in files.items()))
        output.say("\n[bold]daily_housekeeping_job[/], run through Dagster\n")
    from housekeeping_pipelines.definitions import CHAINS

    ops = {name: launch.check_config(name, {}) for name in CHAINS["daily_housekeeping"]}
    outcome = launch.run_here(settings, "daily_housekeeping_job", ops, names=False)
    if json_:
        output.as_json(summary(outcome) | {"sample": rows, "files": files})
    else:
        show(outcome, settings)
        output.say("\n[bold]What next?[/]")
        for command, what in (
            ("make dev", "the Dagster UI on this platform"),
            (f"{output.command()} orphan-cleanup", "which media nothing refers to"),
            (f"{output.command()} cleanup-files --stats", "what upload sessions left in storage"),
            (f"{output.command()} trash list", "what can still be brought back"),
            (f"{output.command()} undo {outcome.run_id[:8]}", "bring it all back"),
            (f"{output.command()} check", "every setting, every component"),
        ):
            output.say(f"  {command:<46} [dim]{what}[/]")
    return outcome.exit_code


def init(json_: Json = False) -> None:
    """Write DAGSTER_HOME to `.env`, so that Dagster's own commands work from this folder."""
    settings = session.start()
    from housekeeping_pipelines.resources.dagster_home import dagster_home, write_env_file

    home = write_env_file(settings.directory, dagster_home(settings))
    if json_:
        output.as_json({"dagster_home": str(home)})
    else:
        output.say(f"Dagster's commands work from here; their state is under {home}")


def migrate(json_: Json = False) -> None:
    """Make or upgrade the schema `housekeeping` in the platform's database."""
    settings = session.start()
    from housekeeping_pipelines.migrations import HEAD, ensure_schema
    from housekeeping_pipelines.resources.addresses import platform_url
    from housekeeping_pipelines.resources.database import make_engine, opened

    engine = make_engine(platform_url(settings))
    with opened(engine):
        changed = ensure_schema(engine)
    if json_:
        output.as_json({"version": HEAD, "changed": changed})
    else:
        output.say(f"The schema housekeeping is {'now ' if changed else ''}of version {HEAD}.")


def check(json_: Json = False) -> int:
    """Show every setting with its origin, and try every component."""
    settings = session.start()
    from housekeeping_pipelines.health.checks import check_all

    session.use_dagster(settings)
    checks = check_all(settings)
    failed = any(check.status == "failed" for check in checks)
    if json_:
        output.as_json(
            {
                "status": "failed" if failed else "ok",
                "settings": [_setting(line) for line in settings.lines],
                "checks": [check.to_dict() for check in checks],
            }
        )
    else:
        _show_settings(settings.lines)
        _show_checks(checks)
    return 1 if failed else 0


def _setting(line: SettingLine) -> dict[str, object]:
    return {
        "variable": line.variable,
        "value": line.value,
        "origin": line.origin,
        "shadows": [{"origin": origin, "value": value} for origin, value in line.shadows],
        "description": line.description,
    }


def _show_settings(lines: tuple[SettingLine, ...]) -> None:
    output.say("[bold]Settings[/] [dim]a line of .env outranks an exported variable[/]\n")
    for line in lines:
        origin = f"[dim]{line.origin}[/]" if line.origin == "default" else f"[cyan]{line.origin}[/]"
        output.say(f"  {line.variable:<31} {output.escape(line.value) or '[dim]unset[/]'}  {origin}")
        for hidden, value in line.shadows:
            output.say(f"  {'':<31} [yellow]hides[/] {output.escape(value)} [dim]of the {hidden}[/]")


_MARK = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[red]✗[/]", "skipped": "[dim]·[/]"}


def _show_checks(checks: list[Check]) -> None:
    output.say("\n[bold]Components[/]\n")
    for check in checks:
        output.say(f"  {_MARK[check.status]} {check.name:<31} {output.escape(check.message)}")
        if check.hint:
            output.say(f"    {'':<31} [dim]{output.escape(check.hint)}[/]")
