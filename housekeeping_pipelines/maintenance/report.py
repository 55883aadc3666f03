"""What an undo reports."""

from __future__ import annotations

from dataclasses import dataclass, field

from housekeeping_pipelines.execution.report import FailedItem, Report


@dataclass(frozen=True, kw_only=True)
class UndoReport(Report):
    """A report with what came back by table; `run_id` is the undo's own, `undone_run_id` the one undone."""

    undone_run_id: str = ""
    restored: dict[str, int] = field(default_factory=dict)
    conflicts: tuple[FailedItem, ...] = ()
