"""What a sync says about itself."""

from __future__ import annotations

from dataclasses import dataclass

from housekeeping_pipelines.execution.report import Report


@dataclass(frozen=True, slots=True)
class Trouble:
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
    in_error: tuple[Trouble, ...] = ()
    diffs: tuple[Diff, ...] = ()

    @property
    def in_short(self) -> str:
        """What was done, as the end of a line of the log."""
        updated = f"would update {self.would_update:,}" if self.dry_run else f"{self.updated:,} updated"
        counts = {
            "unchanged": self.unchanged,
            "gone": self.gone,
            "held for review": self.held_for_review,
            "failed": self.failed_count,
        }
        return ", ".join([updated, *(f"{count:,} {name}" for name, count in counts.items() if count)])
