"""What a run has done so far: counted while it works, and told once at its end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from housekeeping_pipelines.execution.report import (
    MAX_FAILED,
    MAX_SAMPLE,
    PARTIAL,
    SKIP_REASONS,
    SUCCEEDED,
    Candidate,
    Ending,
    FailedItem,
    Report,
)
from housekeeping_pipelines.foreign_text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from housekeeping_pipelines.execution.report import StoppedReason
    from housekeeping_pipelines.execution.run import Started

R = TypeVar("R", bound=Report)


@dataclass
class Tally:
    """Counts of one run, by the names of a report's fields.

    Attributes:
        dealt_with: candidates that were deleted, skipped or failed; the rest is for the next run.
        failed, sample: the first ones, up to MAX_FAILED and MAX_SAMPLE.
    """

    scanned: int = 0
    candidates: int = 0
    dealt_with: int = 0
    deleted: dict[str, int] = field(default_factory=dict)
    deleted_bytes: int = 0
    for_good: dict[str, int] = field(default_factory=dict)
    would_delete: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SKIP_REASONS, 0))
    failed: list[FailedItem] = field(default_factory=list)
    failed_count: int = 0
    sample: list[Candidate] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stopped_reason: StoppedReason | None = None

    def fail(self, item: str, reason: str) -> None:
        """One item could not be dealt with."""
        self.failed_count += 1
        if len(self.failed) < MAX_FAILED:
            self.failed.append(FailedItem(shown(item), shown(reason)))

    def show(self, candidate: Candidate) -> None:
        """One item went, or would go."""
        if len(self.sample) < MAX_SAMPLE:
            self.sample.append(replace(candidate, item=shown(candidate.item)))

    @property
    def ending(self) -> Ending:
        """The ending of a run that nothing broke off."""
        return PARTIAL if self.failed_count else SUCCEEDED

    def report(
        self,
        run: Started,
        ending: Ending | None = None,
        *,
        kind: type[R] = Report,  # type: ignore[assignment]
        **fields: Any,
    ) -> R:
        """The report of the run; it ended by itself unless another ending is given."""
        counts: Mapping[str, Any] = {
            "stopped_reason": self.stopped_reason,
            "scanned": self.scanned,
            "candidates": self.candidates,
            "deleted": dict(self.deleted),
            "deleted_bytes": self.deleted_bytes,
            "for_good": dict(self.for_good),
            "would_delete": dict(self.would_delete),
            "skipped": dict(self.skipped),
            "failed": tuple(self.failed),
            "failed_count": self.failed_count,
            "sample": tuple(self.sample),
            "warnings": tuple(self.warnings),
        }
        return run.report(ending or self.ending, kind=kind, **counts, **fields)
