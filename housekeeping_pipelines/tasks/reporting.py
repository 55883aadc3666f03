"""A task's report in Dagster: an event on the task's asset for the plots, a summary with the step, red if it failed.

The event holds the whole report, so that the command and the API read the same one back from the event log.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.execution.liveness import announce
from housekeeping_pipelines.execution.report import Ending, Report
from housekeeping_pipelines.foreign_text import in_markdown, shown
from housekeeping_pipelines.tasks.dagster_runs import cancel_run, end_dead_runs, tag_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from housekeeping_pipelines.execution.database import Database
    from housekeeping_pipelines.execution.progress import Observer
    from housekeeping_pipelines.execution.report import Line
    from housekeeping_pipelines.execution.run import Run

REPORT = "report"
ASSET_PREFIX = "housekeeping"

_SIGNS = {"failure": "✗ ", "warning": "⚠ "}


def asset_key(task: str) -> dg.AssetKey:
    return dg.AssetKey([ASSET_PREFIX, task])


def run_task(
    context: dg.OpExecutionContext,
    database: Database,
    body: Callable[[Run], Report],
    *,
    dry_run: bool = False,
    observer: Observer | None = None,
    kind: type[Report] = Report,
    **options: Any,
) -> None:
    """Do an op's work under the task's lock, and publish the report.

    Args:
        kind: the class of the report.
        options: more for `TaskRunner.run`.

    Raises:
        dagster.Failure: the report is not of success; the description is its one line.
    """
    task = context.op.name
    with INTERRUPTION.listening():
        tag_run(context.instance, context.run, announce(database, context.run_id))
        end_dead_runs(context.instance, database)
        try:
            report = database.runner(observer).run(task, context.run_id, body, dry_run=dry_run, kind=kind, **options)
        except HousekeepingError as error:
            report = kind.minimal(task, context.run_id, Ending.of(error), utc_now())
        publish(context, report)


def publish(context: dg.OpExecutionContext, report: Report) -> None:
    """Log the report, show it with the step, and fail the step if the report is not of success.

    Raises:
        dagster.Failure: the report is not of success.
        DagsterExecutionInterruptedError: a signal ended the task: the run is to end, too.
    """
    state = _tables(report.state_tables())
    tables = _tables(report.tables()) | state
    summary = dg.MetadataValue.md(to_markdown(report))
    metadata: dict[str, Any] = {
        "status": report.status,
        "summary": summary,
        REPORT: dg.MetadataValue.json(report.to_dict()),
        **report.numbers(),
        **state,
    }
    done = report.status in ("succeeded", "partial") and not report.dry_run
    event = dg.AssetMaterialization if done else dg.AssetObservation
    context.log_event(event(asset_key=asset_key(report.task), metadata=metadata))
    if INTERRUPTION:
        cancel_run(context.instance, context.run_id)
        raise DagsterExecutionInterruptedError
    if report.is_success:
        context.add_output_metadata({"status": report.status, "summary": summary, **tables})
        return
    raise dg.Failure(f"{report.task}: {report.reason}", metadata={"summary": summary, **tables}, allow_retries=False)


def to_markdown(report: Report) -> str:
    """A report as Markdown: its status, and a list of its lines."""
    head = f"**{report.status}**" + (f": {in_markdown(report.message)}" if report.message else "")
    return "\n".join([head, "", *(_markdown_line(line) for line in report.lines())])


def _markdown_line(line: Line) -> str:
    if line.block:
        # A text that ends the block would go on as Markdown of its own.
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", line.block)), default=0))
        block = shown(line.block, lines=True, limit=None)
        return f"\n**{in_markdown(line.text)}**\n\n{fence}{line.mark}\n{block}\n{fence}"
    count = "" if line.count is None else f" **{line.count:,}** {line.of}".rstrip()
    return f"- {_SIGNS.get(line.mark, '')}{in_markdown(line.text)}{count}"


def _tables(lists: Mapping[str, list[dict[str, Any]]]) -> dict[str, dg.TableMetadataValue]:
    return {name: _table(rows) for name, rows in lists.items() if rows}


def _table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    filled = [{name: "" if value is None else value for name, value in row.items()} for row in rows]
    columns = [dg.TableColumn(name, "string") for name in filled[0]]
    records = [dg.TableRecord({name: shown(str(value)) for name, value in row.items()}) for row in filled]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def read_reports(
    instance: dg.DagsterInstance, run_id: str, kinds: Mapping[str, type[Report]] | None = None
) -> dict[str, Report]:
    """The reports that a run's tasks left in the event log, by task, in the order in which they ended.

    A task that broke before it could report has one that says so.

    Args:
        kinds: the class of each task's report; for any other task it is Report, with the fields that all have.
    """
    types = {
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_OBSERVATION,
        dg.DagsterEventType.STEP_FAILURE,
    }
    reports: dict[str, Report] = {}
    for entry in instance.all_logs(run_id, of_type=types):
        event = entry.get_dagster_event()
        if event.is_step_failure:
            task, error = str(event.step_key), event.step_failure_data.error
            said = " ".join((error.cause or error).message.split()) if error else "the step failed"
            reports.setdefault(task, Report.minimal(task, run_id, Ending("failed", said), utc_now()))
            continue
        data = (
            event.step_materialization_data.materialization
            if event.is_step_materialization
            else event.asset_observation_data.asset_observation
        )
        report = data.metadata.get(REPORT)
        if isinstance(report, dg.JsonMetadataValue) and isinstance(report.value, dict):
            task = str(report.value["task"])
            reports[task] = _read((kinds or {}).get(task, Report), report.value)
    return reports


def _read(kind: type[Report], document: Mapping[str, Any]) -> Report:
    # The report of a task that was refused or broke off early lacks the fields that its own class adds.
    own = {each.name for each in fields(kind)} <= document.keys()
    return (kind if own else Report).from_dict(document)
