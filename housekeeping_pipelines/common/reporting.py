"""A task's report in Dagster: an event on the task's asset for the plots, a summary with the step, red if it failed.

The event holds the whole report, so that whoever launched the run reads the same one back from the event log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from housekeeping_pipelines.common.runs import end_dead_runs, tag_run
from housekeeping_pipelines.errors import HousekeepingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from housekeeping_pipelines.deletion.report import Report

REPORT = "report"
ASSET_PREFIX = "housekeeping"

# What a report has as mappings is plotted by name, one curve each.
_PLOTTED = ("candidates", "scanned", "duration_seconds", "failed_count", "deleted_bytes")


def asset_key(task: str) -> dg.AssetKey:
    return dg.AssetKey([ASSET_PREFIX, task])


def do_task(context: dg.OpExecutionContext, work: Callable[[str, str], Report]) -> None:
    """Do an op's work, given its name and the run's id, and publish the report.

    Raises:
        dagster.Failure: the report is not of success; the description is its one line.
    """
    task = context.op.name
    end_dead_runs(context.instance)
    tag_run(context.instance, context.run_id)
    try:
        report = work(task, context.run_id)
    except HousekeepingError as error:
        context.log.error("%s: %s", task, error.one_line)
        raise dg.Failure(f"{task}: {error.one_line}", allow_retries=False) from None
    publish(context, report)


def publish(context: dg.OpExecutionContext, report: Report) -> None:
    """Log the report, show it with the step, and fail the step if the report is not of success."""
    document = report.to_dict()
    metadata: dict[str, Any] = {
        "status": report.status,
        "summary": dg.MetadataValue.md(summarize(document)),
        REPORT: dg.MetadataValue.json(document),
        **plotted(document),
    }
    done = report.status in ("succeeded", "partial") and not report.dry_run
    event = dg.AssetMaterialization if done else dg.AssetObservation
    context.log_event(event(asset_key=asset_key(report.task), metadata=metadata))
    if report.status in ("succeeded", "skipped"):
        context.add_output_metadata({"status": report.status, "summary": metadata["summary"], **_tables(document)})
        return
    raise dg.Failure(
        f"{report.task}: {report.message or failures(document)}",
        metadata={"summary": metadata["summary"], **_tables(document)},
        allow_retries=False,
    )


def plotted(document: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report that make a curve."""
    numbers: dict[str, float] = {name: document[name] for name in _PLOTTED}
    for name in ("deleted", "would_delete", "skipped", "restored", "stats"):
        numbers |= {f"{name}/{key}": value for key, value in (document.get(name) or {}).items()}
    return numbers


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
    lines += [f"- {verb} **{count:,}** of `{name}`" for name, count in counts.items()]
    lines += [f"- restored **{count:,}** of `{name}`" for name, count in document.get("restored", {}).items()]
    lines += [f"- {name.replace('_', ' ')}: **{count:,}**" for name, count in (document.get("stats") or {}).items()]
    lines += [
        f"- left, {reason.replace('_', ' ')}: {count:,}" for reason, count in document["skipped"].items() if count
    ]
    if document["stopped_reason"]:
        lines.append(f"- stopped by `{document['stopped_reason']}`; the next run goes on")
    lines += [f"- ⚠ {warning}" for warning in document["warnings"]]
    return "\n".join(lines)


def _tables(document: Mapping[str, Any]) -> dict[str, dg.TableMetadataValue]:
    tables = {
        "candidates": document["sample"],
        "failed": document["failed"],
        "conflicts": document.get("conflicts", []),
    }
    return {name: _table(rows) for name, rows in tables.items() if rows}


def _table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    shown = [{name: "" if value is None else value for name, value in row.items()} for row in rows]
    columns = [dg.TableColumn(name, "string") for name in shown[0]]
    records = [dg.TableRecord({name: str(value) for name, value in row.items()}) for row in shown]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def read_reports(instance: dg.DagsterInstance, run_id: str) -> dict[str, dict[str, Any]]:
    """The reports that a run's tasks left in the event log, by task, in the order in which they ended."""
    kinds = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION}
    reports: dict[str, dict[str, Any]] = {}
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.get_dagster_event()
        data = (
            event.step_materialization_data.materialization
            if event.is_step_materialization
            else event.asset_observation_data.asset_observation
        )
        report = data.metadata.get(REPORT)
        if isinstance(report, dg.JsonMetadataValue) and isinstance(report.value, dict):
            reports[str(report.value["task"])] = dict(report.value)
    return reports
