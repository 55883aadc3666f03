"""What the queue records for each outcome of a fetch: the state, the next due time, and the stored knowledge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from housekeeping_pipelines.watched_documents.diffs import unified_diff
from housekeeping_pipelines.watched_documents.queue import Change

if TYPE_CHECKING:
    from collections.abc import Callable

    from housekeeping_pipelines.watched_documents.fetch_and_compare import FetchResult
    from housekeeping_pipelines.watched_documents.queue import Known, State

# A source that is down for an hour is tried twice in that hour, not twelve times.
FIRST_DELAY = timedelta(hours=1)
# A document that keeps failing is still fetched once a day.
DAILY = timedelta(days=1)
# Outages in a row until the state is `error`; the replaced system dropped the document then.
FAILURES_UNTIL_ERROR = 5
# Times that a source says "gone", a day apart, before it is believed.
GONE_UNTIL_REVIEW = 3


@dataclass(frozen=True)
class Outcomes:
    """Turns the result of a fetch into a change of the queue.

    Attributes:
        jitter: returns 0 to 1, so that documents that failed together are not fetched again together.
    """

    clock: Callable[[], datetime]
    jitter: Callable[[], float]

    def change(self, result: FetchResult) -> Change:
        """The change that the queue records."""
        known = replace(result.entry.known, last_error=None)
        if result.kind == "updated":
            return self._updated(result, known)
        if result.kind == "unchanged":
            return self._unchanged(result, known)
        if result.kind == "held":
            return self._held(result, known)
        known = replace(known, last_error=result.reason)
        return self._gone(result, known) if result.kind == "gone" else self._failed(result, known)

    def _updated(self, result: FetchResult, known: Known) -> Change:
        entry, now = result.entry, self.clock()
        known = replace(
            known,
            content_hash=result.hash,
            generation=result.generation,
            published=result.published,
            fetch_state=result.state,
            gone_count=0,
            gone_at=None,
            held=None,
            accepted_hash=None,
            rejected_hash=None,
        )
        workspaces = [str(copy.workspace) for copy in entry.copies]
        record, due, about = _record(result, workspaces), now + entry.stale_after, published_metadata(result)
        return Change("active", due, 0, "success", record, known, synced=True, metadata=about)

    def _unchanged(self, result: FetchResult, known: Known) -> Change:
        known = replace(known, gone_count=0, gone_at=None, held=None)
        if result.state is not None:
            known = replace(known, fetch_state=result.state)
        due = self.clock() + result.entry.stale_after
        return Change("active", due, 0, "exited", _record(result), known, synced=True)

    def _held(self, result: FetchResult, known: Known) -> Change:
        diff = unified_diff(result.old or "", result.text or "")
        known = replace(known, held={"reason": result.reason, "hash": result.hash, "diff": diff})
        return Change("held", self.clock(), result.entry.failures, "failed", _record(result), known)

    def _gone(self, result: FetchResult, known: Known) -> Change:
        entry, now = result.entry, self.clock()
        if known.gone_at is None or now - known.gone_at >= DAILY:
            known = replace(known, gone_count=known.gone_count + 1, gone_at=now)
        state: State = "gone" if known.gone_count >= GONE_UNTIL_REVIEW else entry.state
        # A little more than a day, or the next answer would come too early to count.
        again = DAILY * (1 + 0.05 * self.jitter()) + timedelta(minutes=1)
        return Change(state, now + again, entry.failures, "failed", _record(result), known)

    def _failed(self, result: FetchResult, known: Known) -> Change:
        failures = result.entry.failures + 1
        delay = self._backoff(failures)
        if result.failure is not None and result.failure.retry_after is not None:
            delay = max(delay, result.failure.retry_after)
        state: State = "error" if failures >= FAILURES_UNTIL_ERROR else "active"
        return Change(state, self.clock() + delay, failures, "failed", _record(result), known)

    def _backoff(self, failures: int) -> timedelta:
        """Exponential backoff: 1, 2, 4, 8 hours, then a day, with a jitter of a tenth."""
        whole = min(FIRST_DELAY * 2 ** min(failures - 1, 10), DAILY) if failures < FAILURES_UNTIL_ERROR else DAILY
        return whole * (0.9 + 0.2 * self.jitter())


def published_metadata(result: FetchResult) -> dict[str, object]:
    """The metadata of an updated document; its vectors carry the same `published` stamp."""
    title = {"title": result.title} if result.title and not result.entry.copies[0].metadata.get("title") else {}
    return {"published": result.published, **title}


def _record(result: FetchResult, workspaces: list[str] | None = None) -> dict[str, object]:
    """The value of `document_sync_runs.result`, in the format of the replaced system."""
    return {
        "filename": result.entry.filename,
        "workspacesModified": workspaces or [],
        "reason": result.reason or None,
    }
