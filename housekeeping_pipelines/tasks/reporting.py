"""A task's report in Dagster: an event on the task's asset for the plots, a summary with the step, red if it failed.

The event holds the whole report, so that whoever launched the run reads the same one back from the event log.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.report import SKIP_REASONS, Ending, Report
from housekeeping_pipelines.execution.wording import SYNC_COUNTS, in_units, missing
from housekeeping_pipelines.tasks.dagster_runs import end_dead_runs, tag_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from housekeeping_pipelines.execution.database import Database
    from housekeeping_pipelines.execution.progress import Observer
    from housekeeping_pipelines.execution.run import Run

REPORT = "report"
ASSET_PREFIX = "housekeeping"


def asset_key(task: str) -> dg.AssetKey:
    return dg.AssetKey([ASSET_PREFIX, task])


def run_task(
    context: dg.OpExecutionContext,
    database: Database,
    body: Callable[[Run], Report],
    *,
    dry_run: bool = False,
    observer: Observer | None = None,
) -> None:
    """Do an op's work under the task's lock, and publish the report.

    Raises:
        dagster.Failure: the report is not of success; the description is its one line.
    """
    task = context.op.name
    end_dead_runs(context.instance)
    tag_run(context.instance, context.run)
    try:
        report = database.runner(observer).run(task, context.run_id, body, dry_run=dry_run)
    except HousekeepingError as error:
        report = _blank(task, context.run_id, Ending.of(error))
    publish(context, report)


def _blank(task: str, run_id: str, ending: Ending) -> Report:
    """The report of a task that did not get as far as its own."""
    return Report(task=task, run_id=run_id, dry_run=False, started_at=utc_now(), duration_seconds=0.0, **asdict(ending))


def publish(context: dg.OpExecutionContext, report: Report) -> None:
    """Log the report, show it with the step, and fail the step if the report is not of success."""
    document = report.to_dict()
    metadata: dict[str, Any] = {
        "status": report.status,
        "summary": dg.MetadataValue.md(summarize(document)),
        REPORT: dg.MetadataValue.json(document),
        **plotted(document),
    }
    tables = _tables(document)
    if "in_error" in tables:
        # It is the state of the task, not of one run.
        metadata["in_error"] = tables["in_error"]
    done = report.status in ("succeeded", "partial") and not report.dry_run
    event = dg.AssetMaterialization if done else dg.AssetObservation
    context.log_event(event(asset_key=asset_key(report.task), metadata=metadata))
    if report.status in ("succeeded", "skipped"):
        context.add_output_metadata({"status": report.status, "summary": metadata["summary"], **tables})
        return
    raise dg.Failure(
        f"{report.task}: {report.message or failures(document)}",
        metadata={"summary": metadata["summary"], **tables},
        allow_retries=False,
    )


def plotted(document: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report that make a curve."""
    if document["dry_run"] or document["status"] not in ("succeeded", "partial"):
        # A curve of what really happened has no place for what would have.
        would = {f"would_delete/{table}": count for table, count in document["would_delete"].items()}
        return would | {"would_update": document["would_update"]} if document.get("would_update") else would
    numbers: dict[str, float] = {"duration_seconds": document["duration_seconds"]}
    if document["table"]:
        numbers |= {"candidates": document["candidates"], f"deleted/{document['table']}": 0}
    numbers |= {name: document[name] for name in _MEASURES if document.get(name)}
    # Of a sync, a zero is a point of the curve too.
    numbers |= {name: document[name] for name in SYNC_COUNTS if name in document and name != "would_update"}
    for name in ("deleted", "restored", "stats"):
        numbers |= {f"{name}/{key}": value for key, value in (document.get(name) or {}).items()}
    kept = {f"kept/{reason}": count for reason, count in document["skipped"].items() if count}
    failed = document["failed_count"]
    return numbers | kept | ({"failed": failed} if failed or "updated" in document else {})


# What failed is listed in full beside the summary.
_SHOWN = 5

# What a task on files has besides; a task on rows has none of it.
_MEASURES = ("deleted_bytes", "missing_count", "storage_bytes", "quota_used")


def failures(document: Mapping[str, Any]) -> str:
    """One line of what failed."""
    first = next(iter(document["failed"]), None)
    text = f"{document['failed_count']} failed"
    return f"{text}; the first: {first['item']}: {first['reason']}" if first else text


def summarize(document: Mapping[str, Any]) -> str:
    """A report as Markdown."""
    verb = "would delete" if document["dry_run"] else "deleted"
    counts = document["would_delete"] if document["dry_run"] else document["deleted"]
    lines = [f"**{document['status']}**" + (f": {document['message']}" if document["message"] else ""), ""]
    own_first = sorted(counts.items(), key=lambda entry: entry[0] != document["table"])
    lines += [f"- {verb} **{count:,}** of `{name}`" for name, count in own_first]
    if document["deleted_bytes"]:
        lines.append(f"- freed **{in_units(document['deleted_bytes'])}**")
    if document.get("would_delete_bytes"):
        lines.append(f"- would free **{in_units(document['would_delete_bytes'])}**")
    if said := missing(document):
        lines.append(f"- {said}")
    lines += [f"- {text}: **{document[name]:,}**" for name, text in SYNC_COUNTS.items() if document.get(name)]
    lines += [f"- restored **{count:,}** of `{name}`" for name, count in document.get("restored", {}).items()]
    lines += [f"- {name.replace('_', ' ')}: **{count:,}**" for name, count in (document.get("stats") or {}).items()]
    lines += [f"- kept {count:,} {SKIP_REASONS[reason]}" for reason, count in document["skipped"].items() if count]
    if document["stopped_reason"]:
        lines.append(f"- stopped by `{document['stopped_reason']}`; the next run goes on")
    lines += [f"- ✗ {item['item']}: {item['reason']}" for item in document["failed"][:_SHOWN]]
    if document["failed_count"] > _SHOWN:
        lines.append(f"- ✗ and {document['failed_count'] - _SHOWN:,} more")
    lines += [f"- ⚠ {warning}" for warning in document["warnings"]]
    for each in document.get("diffs", []):
        # A text that ends the block would go on as Markdown of its own.
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", each["diff"])), default=0))
        lines += ["", f"**{each['document']}**", "", f"{fence}diff", each["diff"], fence]
    return "\n".join(lines)


def _tables(document: Mapping[str, Any]) -> dict[str, dg.TableMetadataValue]:
    tables = {
        "candidates": document["sample"],
        "failed": document["failed"],
        "conflicts": document.get("conflicts", []),
        "largest": document.get("largest", []),
        "missing": [{"item": name} for name in document.get("missing_files", document.get("missing", []))],
        "in_error": document.get("in_error", []),
    }
    return {name: _table(rows) for name, rows in tables.items() if rows}


def _table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    shown = [{name: "" if value is None else value for name, value in row.items()} for row in rows]
    columns = [dg.TableColumn(name, "string") for name in shown[0]]
    records = [dg.TableRecord({name: str(value) for name, value in row.items()}) for row in shown]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def read_reports(instance: dg.DagsterInstance, run_id: str) -> dict[str, dict[str, Any]]:
    """The reports that a run's tasks left in the event log, by task, in the order in which they ended.

    A task that broke before it could report has one that says so.
    """
    kinds = {
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_OBSERVATION,
        dg.DagsterEventType.STEP_FAILURE,
    }
    reports: dict[str, dict[str, Any]] = {}
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.get_dagster_event()
        if event.is_step_failure:
            task, error = str(event.step_key), event.step_failure_data.error
            said = " ".join((error.cause or error).message.split()) if error else "the step failed"
            broken = _blank(task, run_id, Ending("failed", said))
            reports.setdefault(task, broken.to_dict())
            continue
        data = (
            event.step_materialization_data.materialization
            if event.is_step_materialization
            else event.asset_observation_data.asset_observation
        )
        report = data.metadata.get(REPORT)
        if isinstance(report, dg.JsonMetadataValue) and isinstance(report.value, dict):
            reports[str(report.value["task"])] = dict(report.value)
    return reports
