"""Commands for files: upload sessions, orphans, and storage usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from housekeeping_pipelines.cli import launch, output, session
from housekeeping_pipelines.cli.commands.tasks import Queue, finish
from housekeeping_pipelines.cli.session import DryRun, Json
from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from housekeeping_pipelines.sessions.usage import StorageStatistics
    from housekeeping_pipelines.settings import Settings

Hours = Annotated[int | None, typer.Option(min=1, max=8760, help="Hours of inactivity until a session is deleted.")]
Apply = Annotated[bool, typer.Option("--apply", help="Remove them; without it nothing is changed.")]
AgeHours = Annotated[int | None, typer.Option(min=1, max=8760, help="Minimum age of a file in hours.")]


def register(app: typer.Typer) -> None:
    app.command("cleanup-files")(cleanup_files)
    app.command("scheduled-cleanup")(scheduled_cleanup)
    app.command("test-cleanup")(try_cleanup)
    app.command("cleanup-orphan-documents")(cleanup_orphan_documents)
    app.command("orphan-cleanup")(orphan_cleanup)
    app.command("cleanup-orphan-objects")(cleanup_orphan_objects)
    app.command("cleanup-orphan-vectors")(cleanup_orphan_vectors)


def cleanup_files(
    stats: Annotated[bool, typer.Option("--stats", help="Show storage usage and what could be removed.")] = False,
    dry_run: DryRun = False,
    hours: Hours = None,
    session_key: Annotated[
        str | None, typer.Option("--session", metavar="KEY", help="Only this session, at any age.")
    ] = None,
    keep_outputs: Annotated[
        bool, typer.Option("--keep-outputs", help="Keep the files generated from the uploads.")
    ] = False,
    queue: Queue = False,
    json_: Json = False,
) -> int:
    """Delete inactive upload sessions, with their documents and files."""
    settings = session.start()
    if hours is not None and session_key is not None:
        raise ConfigurationError(
            "--hours and --session exclude each other",
            hint="omit --hours: --session deletes at any age",
        )
    if stats:
        found = _statistics(settings, hours or settings.cleanup_interval_hours)
        if json_:
            output.as_json(found.to_dict())
        else:
            _show_statistics(found)
        return 0 if found.error is None else 1
    given = {"hours": hours, "session": session_key, "dry_run": dry_run or None}
    config = {name: value for name, value in given.items() if value is not None}
    if keep_outputs:
        config["include_outputs"] = False
    return _run(settings, "cleanup_files", config, queue=queue, json_=json_)


def scheduled_cleanup(
    hours: Hours = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print the report of a success too.")] = False,
    queue: Queue = False,
    json_: Json = False,
) -> int:
    """Do what the schedule does, for use from cron: silent on success."""
    settings = session.start()
    if not settings.auto_cleanup_enabled:
        if json_:
            output.as_json({"status": "skipped", "message": "AUTO_CLEANUP_ENABLED is false"})
        else:
            output.echo("AUTO_CLEANUP_ENABLED is false: nothing was cleaned up.")
        return 0
    ops = {"cleanup_files": launch.check_config("cleanup_files", {"hours": hours} if hours else {})}
    if queue:
        run_id = launch.queue(settings, "cleanup_files_job", ops)
        return launch.echo_queued("cleanup_files_job", run_id, json_=json_) if json_ or verbose else 0
    outcome = launch.run_here(settings, "cleanup_files_job", ops, names=False)
    if json_ or verbose or outcome.exit_code:
        finish(settings, outcome, json_=json_)
    return outcome.exit_code


def try_cleanup(
    create_test_data: Annotated[
        bool, typer.Option("--create-test-data", help="Create the session test_cleanup_session_123 with files.")
    ] = False,
    json_: Json = False,
) -> int:
    """Test the clean-up on a test session: its rows and its files, and nothing else."""
    settings = session.start()
    from housekeeping_pipelines.sessions import self_test

    with session.platform_connection(settings) as connection:
        test = self_test.SelfTest.on(connection, settings)
        if create_test_data:
            test.create(utc_now())
        else:
            test.check_is_there()
    if create_test_data:
        made = {"session": self_test.SESSION, "documents": len(test.names), "files": list(test.names)}
        if json_:
            output.as_json(made)
        else:
            output.echo(f"Created session {self_test.SESSION} with {len(test.names)} documents and their files.")
            output.echo("[dim]now:[/] housekeeping test-cleanup")
        return 0
    ops = {"cleanup_files": launch.check_config("cleanup_files", {"session": self_test.SESSION})}
    outcome = launch.run_here(settings, "cleanup_files_job", ops, names=False)
    with session.platform_connection(settings) as connection:
        findings = self_test.SelfTest.on(connection, settings).findings()
    passed = outcome.exit_code == 0 and all(ok for _, ok in findings)
    if json_:
        checks = [{"name": name, "passed": ok} for name, ok in findings]
        report = outcome.reports.get("cleanup_files")
        output.as_json({"passed": passed, "checks": checks, "report": report.to_dict() if report else None})
        return 0 if passed else 1
    finish(settings, outcome, json_=False)
    for name, ok in findings:
        output.echo(f"  {'[green]✓[/]' if ok else '[red]✗[/]'} {name}")
    return 0 if passed else 1


def cleanup_orphan_documents(
    batch_size: Annotated[int, typer.Option(min=1, max=10_000, help="Files per batch.")] = 500,
    dry_run: DryRun = False,
    queue: Queue = False,
    json_: Json = False,
) -> int:
    """Remove direct uploads that no parsed file refers to."""
    config: dict[str, Any] = {"batch_size": batch_size}
    if dry_run:
        config["dry_run"] = True
    return _run(session.start(), "cleanup_orphan_documents", config, queue=queue, json_=json_)


def orphan_cleanup(
    min_age_hours: Annotated[int | None, typer.Option(min=1, max=720, help="Minimum age of a file in hours.")] = None,
    max_gb: Annotated[float | None, typer.Option(help="The most that the run may remove, in GB.")] = None,
    base_path: Annotated[str | None, typer.Option(help="Only this folder within MEDIA_PATH.")] = None,
    apply: Apply = False,
    queue: Queue = False,
    json_: Json = False,
) -> int:
    """Find pictures and clips that no detection or event refers to; remove them with --apply."""
    given = {"min_age_hours": min_age_hours, "max_gigabytes": max_gb, "base_path": base_path}
    config = {name: value for name, value in given.items() if value is not None} | {"dry_run": not apply}
    return _run(session.start(), "orphan_cleanup", config, queue=queue, json_=json_)


def cleanup_orphan_objects(
    min_age_hours: AgeHours = None, apply: Apply = False, queue: Queue = False, json_: Json = False
) -> int:
    """Find objects in the bucket that no document or session refers to; remove them with --apply."""
    config: dict[str, Any] = {"dry_run": not apply}
    if min_age_hours is not None:
        config["min_age_hours"] = min_age_hours
    return _run(session.start(), "cleanup_orphan_objects", config, queue=queue, json_=json_)


def cleanup_orphan_vectors(apply: Apply = False, queue: Queue = False, json_: Json = False) -> int:
    """Find vectors whose document is gone; delete them with --apply."""
    return _run(session.start(), "cleanup_orphan_vectors", {"dry_run": not apply}, queue=queue, json_=json_)


def _run(settings: Settings, task: str, config: dict[str, Any], *, queue: bool, json_: bool) -> int:
    ops = {task: launch.check_config(task, config)}
    if queue:
        return launch.echo_queued(f"{task}_job", launch.queue(settings, f"{task}_job", ops), json_=json_)
    outcome = launch.run_here(settings, f"{task}_job", ops, names=not json_)
    finish(settings, outcome, json_=json_)
    return outcome.exit_code


def _statistics(settings: Settings, hours: int) -> StorageStatistics:
    from housekeeping_pipelines.application.platform import Platform
    from housekeeping_pipelines.sessions.usage import MEGABYTE, storage_statistics
    from housekeeping_pipelines.stores.folders import BUCKET
    from housekeeping_pipelines.stores.stores import Stores

    with session.platform_connection(settings) as connection:
        return storage_statistics(
            connection,
            Platform.on(connection, settings),
            Stores(settings)[BUCKET],
            now=utc_now(),
            hours=hours,
            quota_bytes=settings.max_storage_size_mb * MEGABYTE,
        )


def _show_statistics(found: StorageStatistics) -> None:
    from housekeeping_pipelines.execution.wording import in_units

    output.echo(f"[bold]{output.escape(found.storage)}[/]")
    types = ", ".join(f"{count:,} {kind or 'without a type'}" for kind, count in list(found.file_types.items())[:8])
    quota = f"{found.quota_used:.1%} of {in_units(found.quota_bytes)}"
    lines = [
        ("Total files", f"{found.total_files:,}"),
        ("Total size", f"{in_units(found.total_size_bytes)}, {quota}"),
        ("By type", types or "none"),
        ("Old files", f"{found.old_files:,} there for more than {found.hours} h"),
        ("Old sessions", f"{found.old_sessions:,} not used for more than {found.hours} h"),
        ("Waiting", f"{found.waiting_files:,} files to be removed, {found.stuck_files:,} of them failed often"),
        ("In the trash", f"{found.trash_files:,} files, {in_units(found.trash_bytes)}, beside the total"),
        ("Recommended", found.recommendation),
    ]
    if found.error is not None:
        lines.insert(0, ("Unknown", found.error))
    for name, text in lines:
        output.echo(f"  {name + ':':<14} {output.escape(text)}")
