"""Commands for the installation: `init`, `check`, `migrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from housekeeping_pipelines.cli import output, session
from housekeeping_pipelines.cli.session import Json

if TYPE_CHECKING:
    from housekeeping_pipelines.execution.checking import Check
    from housekeeping_pipelines.settings import SettingLine


def register(app: typer.Typer) -> None:
    app.command("check")(check)
    app.command("init")(init)
    app.command("migrate")(migrate)


def init(json_: Json = False) -> None:
    """Write DAGSTER_HOME to `.env`, so that Dagster's own commands work from this folder."""
    settings = session.start()
    from housekeeping_pipelines.resources.dagster_home import dagster_home, write_env_file

    home = write_env_file(settings.directory, dagster_home(settings))
    if json_:
        output.as_json({"dagster_home": str(home)})
    else:
        output.echo(f"Dagster's commands work from here; their state is in {home}")


def migrate(json_: Json = False) -> None:
    """Create or upgrade the schema `housekeeping` in the platform's database."""
    settings = session.start()
    from housekeeping_pipelines.migrations import HEAD, ensure_schema
    from housekeeping_pipelines.postgres.addresses import platform_url
    from housekeeping_pipelines.postgres.engine import make_engine, opened

    engine = make_engine(platform_url(settings))
    with opened(engine):
        changed = ensure_schema(engine)
    if json_:
        output.as_json({"version": HEAD, "changed": changed})
    else:
        output.echo(f"The schema housekeeping is {'now ' if changed else ''}at version {HEAD}.")


def check(json_: Json = False) -> int:
    """Show every setting with its origin, and check every component."""
    settings = session.start()
    session.use_dagster(settings)
    from housekeeping_pipelines.capabilities import assemble
    from housekeeping_pipelines.health.checks import check_all

    checks = check_all(settings, lambda settings, config: assemble(settings, config).capabilities)
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
    output.echo("[bold]Settings[/] [dim]a line of .env outranks an exported variable[/]\n")
    width = max(len(line.variable) for line in lines)
    for line in lines:
        origin = f"[dim]{line.origin}[/]" if line.origin == "default" else f"[cyan]{line.origin}[/]"
        output.echo(f"  {line.variable:<{width}} {output.escape(line.value) or '[dim]unset[/]'}  {origin}")
        for hidden, value in line.shadows:
            output.echo(f"  {'':<{width}} [yellow]hides[/] {output.escape(value)} [dim]of the {hidden}[/]")


_MARK = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[red]✗[/]", "skipped": "[dim]·[/]"}


def _show_checks(checks: list[Check]) -> None:
    output.echo("\n[bold]Components[/]\n")
    for check in checks:
        output.echo(f"  {_MARK[check.status]} {check.name:<31} {output.escape(check.message)}")
        if check.hint:
            output.echo(f"    {'':<31} [dim]{output.escape(check.hint)}[/]")
