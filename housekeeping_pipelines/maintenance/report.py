"""What an undo reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.execution.report import STORES, FailedItem, Line, Report, unit

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, kw_only=True)
class UndoReport(Report):
    """A report with what came back by table; `run_id` is the undo's own, `undone_run_id` the one undone."""

    undone_run_id: str = ""
    restored: dict[str, int] = field(default_factory=dict)
    conflicts: tuple[FailedItem, ...] = ()

    def done_lines(self) -> Iterator[Line]:
        for name, count in sorted(self.restored.items(), key=lambda entry: entry[0] in STORES):
            yield Line("done", "restored", count, unit(name, count))

    def measures(self) -> dict[str, float]:
        return {f"restored/{name}": count for name, count in self.restored.items()}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        return super().tables() | {"conflicts": [asdict(each) for each in self.conflicts]}
