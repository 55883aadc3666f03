"""The counts of one sync, and its report."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from housekeeping_pipelines.execution.report import MAX_FAILED, Candidate, Ending
from housekeeping_pipelines.execution.tally import Tally
from housekeeping_pipelines.watched_documents.diffs import unified_diff
from housekeeping_pipelines.watched_documents.report import Diff, FailingDocument, SyncReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.watched_documents.fetch_and_compare import FetchResult
    from housekeeping_pipelines.watched_documents.queue import Change, Entry, State

logger = logging.getLogger(__name__)

MAX_DIFFS = 10


@dataclass
class SyncTally(Tally):
    """The counts of one sync; `scanned` documents were due, `candidates` of them were taken."""

    updated: int = 0
    unchanged: int = 0
    gone: int = 0
    held_for_review: int = 0
    chunks_embedded: int = 0
    chunks_reused: int = 0
    fetched_bytes: int = 0
    diffs: list[Diff] = field(default_factory=list)

    def count(self, task: str, result: FetchResult, change: Change) -> None:
        """Count one document, and log the outcome; some outcomes add a warning."""
        entry = result.entry
        self.dealt_with += 1
        self.fetched_bytes += result.bytes
        self.chunks_embedded += result.chunks_embedded
        self.chunks_reused += result.chunks_reused
        if result.kind == "unchanged":
            self.unchanged += 1
            return
        if result.kind == "updated":
            self.updated += 1
            logger.info(
                "%s: %s is updated, %d chunks embedded, %d reused",
                task, entry.name, result.chunks_embedded, result.chunks_reused,
            )  # fmt: skip
            self._preview(result)
            return
        logger.warning("%s: %s: %s: %s", task, entry.name, result.kind, result.reason)
        if result.kind == "failed":
            self.fail(entry.name, result.reason)
        elif result.kind == "gone":
            self.gone += 1
        else:
            self.held_for_review += 1
            self._preview(result)
        if change.state != "active":
            self._warn(task, entry, change.state, result.reason)

    def count_unrecorded(self, task: str, entry: Entry, reason: str) -> None:
        """Count a failure that the platform refuses to record: the document stays due."""
        logger.warning("%s: %s: failed: %s", task, entry.name, reason)
        self.dealt_with += 1
        self.fail(entry.name, reason)

    def count_locked(self, documents: int) -> None:
        """Count documents that another session locked, or changed since they were read."""
        self.dealt_with += documents
        self.skipped["locked"] += documents

    def fail(self, item: str, reason: str) -> None:
        """Count a failed document; documents of one reference are listed once."""
        if any(each.item == item for each in self.failed):
            self.failed_count += 1
        else:
            super().fail(item, reason)

    def report_on(self, run: Run, ending: Ending | None, failing: Sequence[Entry]) -> SyncReport:
        """The report of the run, which ended by itself unless an ending is given.

        Args:
            failing: documents that fail or wait for a review after the run, whether it took them or not.
        """
        self.skipped["budget"] = self.scanned - self.dealt_with
        return self.report(
            run,
            ending,
            kind=SyncReport,
            updated=0 if run.dry_run else self.updated,
            would_update=self.updated if run.dry_run else 0,
            unchanged=self.unchanged,
            gone=self.gone,
            held_for_review=self.held_for_review,
            chunks_embedded=self.chunks_embedded,
            chunks_reused=self.chunks_reused,
            fetched_bytes=self.fetched_bytes,
            in_error=tuple(map(_failing_document, failing)),
            diffs=tuple(self.diffs),
        )

    def _warn(self, task: str, entry: Entry, state: State, reason: str) -> None:
        text = {
            "held": f"{entry.name} is held for review: {reason}",
            "gone": f"{entry.name} is gone: {reason}",
            "error": f"{entry.name} fails repeatedly, and is tried once a day: {reason}",
        }[state]
        choice = "--retry" if state == "error" else "--accept or --reject"
        line = f"{text}; `housekeeping watch review {entry.id} {choice}`"
        logger.error("%s: %s", task, line)
        if len(self.warnings) < MAX_FAILED:
            self.warnings.append(line)

    def _preview(self, result: FetchResult) -> None:
        size = None if result.text is None else len(result.text.encode(errors="replace"))
        self.show(Candidate(result.entry.name, size, None, result.reason or result.kind))
        if len(self.diffs) < MAX_DIFFS and result.text is not None and result.text != result.old:
            self.diffs.append(Diff(result.entry.name, unified_diff(result.old or "", result.text)))


def _failing_document(entry: Entry) -> FailingDocument:
    again = None if entry.awaits_review else entry.next_sync_at.isoformat(timespec="seconds")
    return FailingDocument(entry.id, entry.name, entry.state, entry.failures, entry.reason or "", again)
