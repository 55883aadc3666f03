"""Commands that run tasks: `run`, `run-housekeeping`, `undo`."""

from __future__ import annotations

import json
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from housekeeping_pipelines.cli import launch, output, session
from housekeeping_pipelines.cli.session import DryRun, Json
from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.execution.report import STORES
from housekeeping_pipelines.execution.wording import counted

if TYPE_CHECKING:
    from housekeeping_pipelines.settings import Settings

Queue = Annotated[bool, typer.Option("--queue", help="Hand the run to the daemon instead of doing it here.")]


class HousekeepingTask(StrEnum):
    """What `run-housekeeping --task` takes: the short names of the daily tasks, which a test holds against theirs."""

    all = "all"
    conversations = "conversations"
    messages = "messages"
    users = "users"
    stats = "stats"


def register(app: typer.Typer) -> None:
    app.command("run")(run)
    app.command("run-housekeeping")(run_housekeeping)
    app.command("undo")(undo)


def run(
    task: Annotated[str, typer.Argument(help="A task by its op's name, daily_housekeeping or weekly_cleanup.")],
    config: Annotated[str, typer.Option(help="The op's configuration as a JSON object.")] = "{}",
    dry_run: DryRun = False,
    queue: Queue = False,
    json_: Json = False,
) -> int:
    """Run any task, in this process, with its run in Dagster's event log."""
    settings = session.start()
    from housekeeping_pipelines.definitions import REGISTRY

    chain = REGISTRY.chains.get(task)
    try:
        values: Any = json.loads(config)
    except ValueError as error:
        raise ConfigurationError(f"--config is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigurationError("--config is not a JSON object", hint='such as {"older_than_days": 60}')
    by_task = values if chain else {task: values}
    names = [each.name for each in chain.tasks] if chain else [task]
    if unknown := sorted(set(by_task) - set(names)):
        raise ConfigurationError(
            f"{task} has no task {', '.join(unknown)}", hint=f"--config takes an object for each of {', '.join(names)}"
        )
    forced = {"dry_run": True} if dry_run else {}
    ops = {name: launch.check_config(name, {**by_task.get(name, {}), **forced}) for name in names}
    return _finish(settings, f"{task}_job", ops, queue=queue, json_=json_)


def run_housekeeping(
    task: Annotated[HousekeepingTask, typer.Option(help="Which task.")] = HousekeepingTask.all,
    dry_run: DryRun = False,
    queue: Queue = False,
    json_: Json = False,
) -> int:
    """Run the daily housekeeping, or one task of it."""
    settings = session.start()
    from housekeeping_pipelines.definitions import REGISTRY

    daily = REGISTRY.chains["daily_housekeeping"]
    tasks = list(daily.tasks)
    if task is not HousekeepingTask.all:
        # One that the daily job leaves out can still be asked for.
        tasks = [each for each in REGISTRY.tasks.values() if each.short_name == task]
    job = daily.job if task is HousekeepingTask.all else tasks[0].job
    ops = {each.name: launch.check_config(each.name, {"dry_run": True} if dry_run else {}) for each in tasks}
    return _finish(settings, job.name, ops, queue=queue, json_=json_, summarize=True)


def undo(
    run_id: Annotated[str, typer.Argument(help="The run to undo, or the beginning of its id.")],
    json_: Json = False,
) -> int:
    """Restore from the trash what a run deleted."""
    settings = session.start()
    session.require_platform(settings)
    ops = {"undo": launch.check_config("undo", {"run_id": run_id})}
    outcome = launch.run_here(settings, "undo_job", ops, names=False)
    report = outcome.reports["undo"]
    if not json_:
        output.report(report)
        session.echo_platform(settings)
    else:
        document = report.to_dict()
        error = {}
        if report.error_type:
            error = {"error": {"type": report.error_type, "message": report.message, "hint": None}}
        output.as_json(
            {
                "run_id": document["undone_run_id"],
                "restored": document["restored"],
                "conflicts": document["conflicts"],
                "database": session.platform_name(settings),
                "report": document,
            }
            | error
        )
    return outcome.exit_code


def summary(outcome: launch.Outcome) -> dict[str, Any]:
    """The result of all housekeeping tasks; a task that did not complete is null, and in full under `reports`."""
    from housekeeping_pipelines.definitions import REGISTRY

    completed = {name: report for name, report in outcome.reports.items() if report.status == "succeeded"}
    counts: dict[str, int | None] = {}
    for task in REGISTRY.tasks.values():
        if task.counted_as:
            report = completed.get(task.name)
            counts[task.counted_as] = report.deleted.get(report.table or "", 0) if report else None
    documents = [report.to_dict() for report in outcome.reports.values()]
    return {
        "run_id": outcome.run_id,
        "dry_run": any(report.dry_run for report in outcome.reports.values()),
        "status": outcome.status,
        **counts,
        "stats": next((document["stats"] for document in documents if document.get("stats")), None),
        "reports": documents,
    }


def _finish(
    settings: Settings, job: str, ops: dict[str, dict[str, Any]], *, queue: bool, json_: bool, summarize: bool = False
) -> int:
    if queue:
        return launch.echo_queued(job, launch.queue(settings, job, ops), json_=json_)
    outcome = launch.run_here(settings, job, ops, names=not json_)
    finish(settings, outcome, json_=json_, summarize=summarize)
    return outcome.exit_code


def finish(settings: Settings, outcome: launch.Outcome, *, json_: bool, summarize: bool = False) -> None:
    """Print what a run did: the report of its only task, or the summary of several."""
    if not json_:
        show(outcome, settings)
        return
    single = next(iter(outcome.reports.values()), None) if len(outcome.reports) == 1 and not summarize else None
    output.as_json(single.to_dict() if single is not None else summary(outcome))


def show(outcome: launch.Outcome, settings: Settings) -> None:
    """The reports of a run for people, and how to take it back."""
    from housekeeping_pipelines.definitions import REGISTRY

    reports = list(outcome.reports.values())
    for report in reports:
        output.report(report)
    output.echo(f"\n[dim]run[/]  {outcome.run_id}")
    back: dict[str, int] = {}
    lost: dict[str, int] = {}
    for report in reports:
        if not REGISTRY.tasks[report.task].undoable:
            continue
        for name, count in report.deleted.items():
            for_good = report.for_good.get(name, 0)
            lost[name] = lost.get(name, 0) + for_good
            back[name] = back.get(name, 0) + count - for_good
    if any(back.values()):
        last = utc_now() + timedelta(days=settings.trash_retention_days)
        what = f"[dim]{_amounts(back)}, until {last:%Y-%m-%d}[/]"
        output.echo(f"[dim]undo[/] {output.command()} undo {outcome.run_id[:8]}   {what}")
    if any(lost.values()):
        why = "STORAGE_TRASH_PREFIX is empty" if settings.trash_retention_days else "TRASH_RETENTION_DAYS is 0"
        output.echo(f"[yellow]![/] {_amounts(lost)} deleted permanently: {why}")


def _amounts(counts: dict[str, int]) -> str:
    """`17 rows and 5 files`."""
    files = sum(count for name, count in counts.items() if name in STORES)
    parts = [(sum(counts.values()) - files, "row"), (files, "file")]
    return " and ".join(counted(count, what) for count, what in parts if count)
