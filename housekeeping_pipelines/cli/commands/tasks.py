"""Commands that run tasks: `run`, `run-housekeeping`, `undo`."""

from __future__ import annotations

import json
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from housekeeping_pipelines.cli import launch, output, session
from housekeeping_pipelines.cli.output import STORES
from housekeeping_pipelines.cli.session import DryRun, Json
from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.execution.wording import counted

if TYPE_CHECKING:
    from housekeeping_pipelines.settings import Settings

Queue = Annotated[bool, typer.Option("--queue", help="Hand the run to the daemon instead of doing it here.")]

# What seeds' callers read, and where it stands in a report.
_SUMMARY = {
    "deleted_conversations": "delete_old_conversations",
    "cleaned_messages": "cleanup_orphaned_messages",
    "deleted_users": "cleanup_inactive_users",
}


class HousekeepingTask(StrEnum):
    """What `run-housekeeping --task` takes."""

    all = "all"
    conversations = "conversations"
    messages = "messages"
    users = "users"
    stats = "stats"


_OPS = {
    HousekeepingTask.conversations: "delete_old_conversations",
    HousekeepingTask.messages: "cleanup_orphaned_messages",
    HousekeepingTask.users: "cleanup_inactive_users",
    HousekeepingTask.stats: "generate_statistics",
}


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
    from housekeeping_pipelines.definitions import CHAINS

    try:
        values: Any = json.loads(config)
    except ValueError as error:
        raise ConfigurationError(f"--config is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigurationError("--config is not a JSON object", hint='such as {"older_than_days": 60}')
    by_task = values if task in CHAINS else {task: values}
    names = CHAINS.get(task, [task])
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
    from housekeeping_pipelines.definitions import CHAINS

    names = CHAINS["daily_housekeeping"] if task is HousekeepingTask.all else [_OPS[task]]
    ops = {name: launch.check_config(name, {"dry_run": True} if dry_run else {}) for name in names}
    job = "daily_housekeeping_job" if task is HousekeepingTask.all else f"{_OPS[task]}_job"
    return _finish(settings, job, ops, queue=queue, json_=json_, summarize=True)


def undo(
    run_id: Annotated[str, typer.Argument(help="The run to undo, or the beginning of its id.")],
    json_: Json = False,
) -> int:
    """Bring back out of the trash what a run deleted."""
    settings = session.start()
    ops = {"undo": launch.check_config("undo", {"run_id": run_id})}
    outcome = launch.run_here(settings, "undo_job", ops, names=False)
    report = outcome.reports["undo"]
    if not json_:
        output.report(report)
    elif report.get("error_type"):
        output.error(report["error_type"], report["message"], None, as_json=True)
    else:
        output.as_json(
            {
                "run_id": report["undone_run_id"],
                "restored": report["restored"],
                "conflicts": report["conflicts"],
                "report": report,
            }
        )
    return outcome.exit_code


def summary(outcome: launch.Outcome) -> dict[str, Any]:
    """The result of all housekeeping tasks; a task that did not complete is null, and in full under `reports`."""
    reports = outcome.reports
    completed = {name: report for name, report in reports.items() if report["status"] == "succeeded"}
    counts: dict[str, int | None] = {
        field: completed[task]["deleted"].get(completed[task]["table"], 0) if task in completed else None
        for field, task in _SUMMARY.items()
    }
    return {
        "run_id": outcome.run_id,
        "dry_run": any(report["dry_run"] for report in reports.values()),
        "status": outcome.status,
        **counts,
        "stats": completed.get("generate_statistics", {}).get("stats"),
        "reports": list(reports.values()),
    }


def _finish(
    settings: Settings, job: str, ops: dict[str, dict[str, Any]], *, queue: bool, json_: bool, summarize: bool = False
) -> int:
    if queue:
        return launch.say_queued(job, launch.queue(settings, job, ops), json_=json_)
    outcome = launch.run_here(settings, job, ops, names=not json_)
    finish(settings, outcome, json_=json_, summarize=summarize)
    return outcome.exit_code


def finish(settings: Settings, outcome: launch.Outcome, *, json_: bool, summarize: bool = False) -> None:
    """Print what a run did: the report of its only task, or the summary of several."""
    if not json_:
        show(outcome, settings)
        return
    single = next(iter(outcome.reports.values()), None) if len(outcome.reports) == 1 and not summarize else None
    output.as_json(single if single is not None else summary(outcome))


def show(outcome: launch.Outcome, settings: Settings) -> None:
    """The reports of a run for people, and how to take it back."""
    reports = list(outcome.reports.values())
    for report in reports:
        output.report(report)
    output.say(f"\n[dim]run[/]  {outcome.run_id}")
    back: dict[str, int] = {}
    lost: dict[str, int] = {}
    for report in reports:
        # Vectors are made of texts, which are still there.
        if report["task"] in ("purge_trash", "undo", "cleanup_orphan_vectors"):
            continue
        for name, count in report["deleted"].items():
            for_good = report["for_good"].get(name, 0)
            lost[name] = lost.get(name, 0) + for_good
            back[name] = back.get(name, 0) + count - for_good
    if any(back.values()):
        last = utc_now() + timedelta(days=settings.trash_retention_days)
        what = f"[dim]{_amounts(back)}, until {last:%Y-%m-%d}[/]"
        output.say(f"[dim]undo[/] {output.command()} undo {outcome.run_id[:8]}   {what}")
    if any(lost.values()):
        why = "STORAGE_TRASH_PREFIX is not set" if settings.trash_retention_days else "TRASH_RETENTION_DAYS is 0"
        output.say(f"[yellow]![/] {_amounts(lost)} gone for good: {why}")


def _amounts(counts: dict[str, int]) -> str:
    """`17 rows and 5 files`."""
    files = sum(count for name, count in counts.items() if name in STORES)
    parts = [(sum(counts.values()) - files, "row"), (files, "file")]
    return " and ".join(counted(count, what) for count, what in parts if count)
