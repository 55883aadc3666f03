"""Counts of the orphans of one store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from housekeeping_pipelines.execution.report import MAX_SAMPLE, Candidate
from housekeeping_pipelines.execution.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from housekeeping_pipelines.execution.report import StoppedReason
    from housekeeping_pipelines.orphans.candidates import Findings
    from housekeeping_pipelines.resources.object_storage import StoredObject


@dataclass(kw_only=True)
class OrphanTally(Tally):
    """Counts of one run over one store; candidates not yet processed count as skipped by a budget.

    Attributes:
        store: the name by which deleted items are counted.
        permanent: whether they are deleted without a trash.
        now: the time by which ages are measured.
        why: the reason that the report gives for each candidate.
        planned: how many candidates the budgets allow.
    """

    store: str
    permanent: bool
    now: datetime
    why: str
    planned: int = 0

    @classmethod
    def of(cls, found: Findings, *, store: str, permanent: bool, now: datetime, why: str) -> Self:
        """The tally of a run whose search has ended and whose removal has not begun."""
        tally = cls(store=store, permanent=permanent, now=now, why=why)
        tally.scanned, tally.candidates = found.scanned, found.orphaned
        tally.skipped |= {
            "young": found.young,
            "unrecognised": found.unrecognised,
            "held": found.held,
            "in_use": found.in_use,
            "budget": found.orphaned,
        }
        tally.warnings += found.warnings
        return tally

    def plan(self, count: int, stopped: StoppedReason | None, *, dry_run: bool) -> None:
        """Set how many candidates fit the budgets, and which budget excludes the rest."""
        self.planned, self.stopped_reason = count, stopped
        if dry_run and count:
            self.would_delete = {self.store: count}

    def delete(self, count: int, size: int = 0) -> None:
        """Count deleted items and their bytes."""
        if not count:
            return
        self.deleted[self.store] = self.deleted_count + count
        self.deleted_bytes += size
        if self.permanent:
            self.for_good[self.store] = self.deleted_count

    @property
    def deleted_count(self) -> int:
        """Items deleted so far."""
        return self.deleted.get(self.store, 0)

    def deal_with(self, batch: Sequence[StoredObject]) -> None:
        """Count a batch as processed: each item was deleted, skipped or failed, or would be deleted in a dry run."""
        self.dealt_with += len(batch)
        self.skipped["budget"] -= len(batch)
        for each in batch[: MAX_SAMPLE - len(self.sample)]:
            self.show(self.candidate(each))

    def candidate(self, found: StoredObject) -> Candidate:
        """A candidate as the report shows it."""
        age = None if found.modified is None else (self.now - found.modified).total_seconds()
        return Candidate(f"{self.store}/{found.name}", found.size, age, self.why)
