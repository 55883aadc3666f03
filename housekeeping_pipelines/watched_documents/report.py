"""What a sync says about itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.execution.report import Line, Report
from housekeeping_pipelines.execution.wording import counted, in_units

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.execution.report import Mark

_MEASURED = ("updated", "unchanged", "gone", "held_for_review", "chunks_embedded", "chunks_reused", "fetched_bytes")


@dataclass(frozen=True, slots=True)
class FailingDocument:
    """A watched document that fails, is gone or waits for a person; `next_attempt` is null where it waits."""

    id: str
    document: str
    state: str
    failures: int
    reason: str
    next_attempt: str | None


@dataclass(frozen=True, slots=True)
class Diff:
    """The beginning of what changed in a document, as `diff -u` shows it."""

    document: str
    diff: str


@dataclass(frozen=True, kw_only=True)
class SyncReport(Report):
    """A report on watched documents; `scanned` were due, `candidates` of them were taken.

    Attributes:
        updated, unchanged: documents whose text was replaced, or is as it was.
        would_update: what a dry run would replace.
        gone: documents that their source says are not there; from the third time, a day apart, they wait for a person.
        held_for_review: new texts that were not written, because a person should look first.
        chunks_embedded, chunks_reused: of the texts that were replaced.
        fetched_bytes: as they came over the network.
        in_error: up to 50 documents that are in trouble after the run, whether it took them or not.
        diffs: of up to ten documents, what changed.
    """

    updated: int = 0
    unchanged: int = 0
    would_update: int = 0
    gone: int = 0
    held_for_review: int = 0
    chunks_embedded: int = 0
    chunks_reused: int = 0
    fetched_bytes: int = 0
    in_error: tuple[FailingDocument, ...] = ()
    diffs: tuple[Diff, ...] = ()

    def done_lines(self) -> Iterator[Line]:
        changed = ("would be updated", self.would_update) if self.dry_run else ("updated", self.updated)
        others = (("unchanged", self.unchanged), ("gone", self.gone), ("held for review", self.held_for_review))
        for text, count in (changed, *others):
            if count:
                mark: Mark = "done" if text == changed[0] else "note"
                yield Line(mark, text, count, "document" if count == 1 else "documents")
        if self.updated:
            embedded, reused = counted(self.chunks_embedded, "chunk"), counted(self.chunks_reused, "chunk")
            yield Line("note", f"{embedded} embedded, {reused} reused")
        if self.fetched_bytes:
            yield Line("note", f"fetched {in_units(self.fetched_bytes)}")

    def lines(self) -> Iterator[Line]:
        yield from super().lines()
        for each in self.diffs:
            yield Line("diff", each.document, block=each.diff)

    def numbers(self) -> dict[str, float]:
        found = super().numbers()
        if self.dry_run or self.status not in ("succeeded", "partial"):
            return found | ({"would_update": self.would_update} if self.would_update else {})
        return found | {"failed": self.failed_count}

    def measures(self) -> dict[str, float]:
        # A zero is a point of the curve too.
        return {name: getattr(self, name) for name in _MEASURED}

    def state_tables(self) -> dict[str, list[dict[str, Any]]]:
        return {"in_error": [asdict(each) for each in self.in_error]}

    @property
    def summary(self) -> str:
        """What was done, as the end of a line of the log."""
        updated = f"would update {self.would_update:,}" if self.dry_run else f"{self.updated:,} updated"
        counts = {
            "unchanged": self.unchanged,
            "gone": self.gone,
            "held for review": self.held_for_review,
            "failed": self.failed_count,
        }
        return ", ".join([updated, *(f"{count:,} {name}" for name, count in counts.items() if count)])
