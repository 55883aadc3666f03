"""Refreshing what is watched: each document that is due, many at once, one failing never touching another.

Workers fetch, compare and write generations of vectors that no search sees (`examining`). What they find is published
here, by one thread over the run's own session: whoever lost that session publishes nothing. The order is such that the
next run repairs a crash at any point, since it compares what it knows with what the store has:

    a generation for every copy, invisible -> the text beside the old one -> every copy switched, its text in place
    -> the queue, what is known and the run's record in one transaction -> the old generations deleted
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.report import (
    MAX_FAILED,
    MAX_SAMPLE,
    PARTIAL,
    SKIP_REASONS,
    SUCCEEDED,
    Candidate,
    Ending,
    FailedItem,
)
from housekeeping_pipelines.postgres import errors as database_errors
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.watched_documents.diffs import unified_diff
from housekeeping_pipelines.watched_documents.fetch_and_compare import DocumentFetcher, FetchResult
from housekeeping_pipelines.watched_documents.queue import Change, Queue
from housekeeping_pipelines.watched_documents.report import Diff, FailingDocument, SyncReport
from housekeeping_pipelines.watched_documents.texts import TextFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.execution.report import Report, StoppedReason
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.resources.vector_store import VectorStore
    from housekeeping_pipelines.resources.vectors import Vectors
    from housekeeping_pipelines.watched_documents.queue import Entry, Known, RunStatus, State
    from housekeeping_pipelines.watched_documents.sources import Source
    from housekeeping_pipelines.watched_documents.texts import Texts

logger = logging.getLogger(__name__)

# A source that is down for an hour is asked twice in it, not twelve times.
FIRST_DELAY = timedelta(hours=1)
# What is in trouble for long is still asked once a day.
DAILY = timedelta(days=1)
# Outages in a row, after which a person is told; the replaced system dropped a document then.
FAILURES_UNTIL_ERROR = 5
# Times that a source says "gone", a day apart, before it is believed.
GONE_UNTIL_HELD = 3

# Findings that change nothing but rows are written so many at a time.
_WRITTEN_AT_ONCE = 50
# What is ready waits that long for others, to be published with them in as few statements.
_PUBLISHED_AT_ONCE, _PATIENCE_SECONDS = 16, 0.2
# Most of publishing is waiting for disks.
_PUBLISHERS = 8
MAX_DIFFS = 10


@dataclass(frozen=True)
class Options:
    """What one run does.

    Attributes:
        force: due or not.
        concurrency: documents at a time.
        stale_after: of a document that gets a place in the queue in this run.
    """

    max_documents: int | None = None
    max_seconds: float | None = None
    force: bool = False
    concurrency: int = 16
    stale_after: timedelta = timedelta(days=7)


def sync_documents(
    run: Run,
    *,
    config: HousekeepingConfig,
    source: Source,
    vectors: Vectors,
    texts: Texts,
    options: Options,
    jitter: Callable[[], float] = random.random,
) -> Report:
    """Refresh what is due, in a session of its own that is in no transaction.

    Raises:
        HousekeepingError: nothing could be started: a table, the vector store or the embedder.
    """
    connection = run.connection
    queue = Queue(Platform(Catalog(connection), config))
    connection.commit()
    store = vectors.open(lambda: connection.engine)
    try:
        return Sync(
            run=run,
            queue=queue,
            fetcher=DocumentFetcher(source, store, vectors.embedder, texts, run.clock, dry_run=run.dry_run),
            texts=texts,
            store=store,
            options=options,
            jitter=jitter,
        ).execute()
    finally:
        store.close()


@dataclass
class Sync:
    """One run.

    Attributes:
        jitter: 0 to 1, so that what failed together is not asked again together.
    """

    run: Run
    queue: Queue
    fetcher: DocumentFetcher
    texts: Texts
    store: VectorStore
    options: Options
    jitter: Callable[[], float]
    _counts: Counter[str] = field(default_factory=Counter)
    _updated: list[FetchResult] = field(default_factory=list)
    _rows: list[FetchResult] = field(default_factory=list)
    _pruning: list[Future[None]] = field(default_factory=list)
    _failed: dict[str, str] = field(default_factory=dict)
    _sample: list[Candidate] = field(default_factory=list)
    _diffs: list[Diff] = field(default_factory=list)
    _alerts: list[str] = field(default_factory=list)
    _stopped: StoppedReason | None = None
    _ended_by: HousekeepingError | None = None

    def execute(self) -> Report:
        """Refresh what is due.

        Raises:
            HousekeepingError: nothing could be started.
        """
        now = self.run.clock()
        if not self.run.dry_run:
            with self.run.connection.begin():
                self.queue.delete_unknown(self.run.connection)
                adopted = self.queue.enqueue_missing(self.run.connection, now, self.options.stale_after)
            if adopted:
                logger.info("%s: %s watched documents had no place in the queue", self.run.task, f"{adopted:,}")
        with self.run.connection.begin():
            keys = self.queue.due(self.run.connection, now, force=self.options.force, limit=None)
        taken = keys[: self.options.max_documents]
        self.run.observer.planned(self.run.task, "watched documents", len(taken), dry_run=self.run.dry_run)
        self._work(taken)
        return self._report(len(keys), len(taken))

    def _work(self, keys: list[object]) -> None:
        entries = self._entries(keys)
        with (
            ThreadPoolExecutor(self.options.concurrency, thread_name_prefix="watched") as pool,
            ThreadPoolExecutor(_PUBLISHERS, thread_name_prefix="publishing") as publishers,
        ):
            running: set[Future[FetchResult]] = set()
            done = 0
            while True:
                if self._may_go_on():
                    # Twice as many as there are workers: none of them waits while this thread publishes.
                    free = 2 * self.options.concurrency - len(running)
                    running |= {pool.submit(self.fetcher.fetch_and_compare, entry) for entry in islice(entries, free)}
                else:
                    running = {future for future in running if not future.cancel()}
                if not running:
                    break
                patience = _PATIENCE_SECONDS if self._updated else None
                finished, running = wait(running, patience, return_when=FIRST_COMPLETED)
                for future in finished:
                    self._take(future)
                if len(self._updated) >= _PUBLISHED_AT_ONCE or not (finished and running):
                    self._safely(lambda: self._publish_all(publishers))
                done += len(finished)
                self.run.observer.advanced(self.run.task, done, len(keys), self._counts["updated"])
            self._safely(self._write_rows)
        for pruning in self._pruning:
            self._safely(pruning.result)

    def _entries(self, keys: list[object]) -> Iterator[Entry]:
        entries = self.queue.read(self.run.connection, keys)
        while True:
            with (
                self.run.connection.begin_nested()
                if self.run.connection.in_transaction()
                else self.run.connection.begin()
            ):
                entry = next(entries, None)
            if entry is None:
                return
            yield entry

    def _may_go_on(self) -> bool:
        if self._ended_by is not None:
            return False
        if self.run.is_out_of_time(self.options.max_seconds):
            self._stopped = "max_seconds"
            return False
        return True

    def _take(self, future: Future[FetchResult]) -> None:
        try:
            finding = future.result()
        except HousekeepingError as error:
            # The embedder or the vector store: no other document would fare better.
            self._ended_by = self._ended_by or error
            return
        if self._ended_by is not None:
            return
        if self.run.dry_run:
            self._note(finding, self._change(finding))
        elif finding.kind == "updated":
            self._updated.append(finding)
        else:
            self._rows.append(finding)
            if len(self._rows) >= _WRITTEN_AT_ONCE:
                self._safely(self._write_rows)

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except HousekeepingError as error:
            self._ended_by = self._ended_by or error

    def _publish_all(self, publishers: ThreadPoolExecutor) -> None:
        """Publish what is ready; nobody waits for the old generations to be deleted."""
        findings, self._updated = self._updated, []
        if not findings or self._ended_by is not None:
            return
        try:
            published = self._publish(findings, publishers)
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            # The platform does not take what is said of one of them; each by itself shows which.
            published = [each for finding in findings for each in self._publish_alone(finding, publishers)]
        for finding, change in published:
            self._note(finding, change)
            self._pruning.append(publishers.submit(self._prune, finding.entry))

    def _publish_alone(self, finding: FetchResult, publishers: ThreadPoolExecutor) -> list[tuple[FetchResult, Change]]:
        try:
            return self._publish([finding], publishers)
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            self._fail(finding, database_errors.describe(error))
            return []

    def _publish(self, findings: list[FetchResult], publishers: ThreadPoolExecutor) -> list[tuple[FetchResult, Change]]:
        """See the module's text for the order; returns what was published."""
        failed: list[tuple[FetchResult, str]] = []
        done: list[tuple[FetchResult, Change]] = []
        with self.run.connection.begin():
            mine = {each.key for each in self.queue.lease(self.run.connection, [each.entry for each in findings])}
            ours = [each for each in findings if each.entry.key in mine]
            for finding, reason in zip(ours, publishers.map(self._replace, ours), strict=True):
                if reason is None:
                    done.append((finding, self._change(finding)))
                else:
                    failed.append((finding, reason))
            if done:
                self.queue.record(
                    self.run.connection, [(each.entry, change) for each, change in done], self.run.clock()
                )
        self._counts["locked"] += len(findings) - len(mine)
        for finding, reason in failed:
            self._fail(finding, reason)
        return done

    def _replace(self, finding: FetchResult) -> str | None:
        """Switch every copy and put its text in place; returns why that could not be."""
        assert finding.generation is not None and finding.text is not None  # noqa: S101, PT018 - it is updated
        copies = finding.entry.copies
        files = {
            copy.docpath: {**copy.metadata, **_about(finding), "wordCount": len(finding.text.split())}
            for copy in reversed(copies)
        }
        try:
            with ExitStack() as stack:
                drafts = [self.texts.draft(docpath, finding.text, about) for docpath, about in files.items()]
                places = [stack.enter_context(draft) for draft in drafts]
                for copy in copies:
                    self.store.switch(copy.doc_id, finding.generation)
                for put_in_place in places:
                    put_in_place()
        except TextFileError as error:
            return str(error)
        return None

    def _prune(self, entry: Entry) -> None:
        for copy in entry.copies:
            self.store.prune(copy.doc_id)

    def _fail(self, finding: FetchResult, reason: str) -> None:
        self._rows.append(FetchResult(finding.entry, "failed", reason))
        self._write_rows()

    def _write_rows(self) -> None:
        findings, self._rows = self._rows, []
        if not findings:
            return
        try:
            self._record(findings)
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            if len(findings) > 1:
                for finding in findings:
                    self._rows = [finding]
                    self._write_rows()
                return
            # Not even this can be written down; it stays due, and the next run tries it again.
            name, reason = findings[0].entry.name, database_errors.describe(error)
            logger.warning("%s: %s: failed: %s", self.run.task, name, reason)
            self._failed[name] = reason
            self._counts["failed"] += 1

    def _record(self, findings: list[FetchResult]) -> None:
        with self.run.connection.begin():
            mine = {each.key for each in self.queue.lease(self.run.connection, [each.entry for each in findings])}
            kept = [(each, self._change(each)) for each in findings if each.entry.key in mine]
            if kept:
                self.queue.record(
                    self.run.connection, [(each.entry, change) for each, change in kept], self.run.clock()
                )
        self._counts["locked"] += len(findings) - len(kept)
        for finding, change in kept:
            self._note(finding, change)

    def _change(self, finding: FetchResult) -> Change:
        """What becomes of the document."""
        entry, now = finding.entry, self.run.clock()
        known = replace(entry.known, last_error=None)
        result: dict[str, object] = {
            "filename": entry.filename,
            "workspacesModified": [],
            "reason": finding.reason or None,
        }
        if finding.kind in ("updated", "unchanged"):
            known = replace(known, gone_count=0, gone_at=None, held=None)
            if finding.state is not None:
                known = replace(known, fetch_state=finding.state)
            status: RunStatus = "exited"
            if finding.kind == "updated":
                status = "success"
                known = replace(
                    known,
                    content_hash=finding.hash,
                    generation=finding.generation,
                    published=finding.published,
                    fetch_state=finding.state,
                    accepted_hash=None,
                    rejected_hash=None,
                )
                result["workspacesModified"] = [str(copy.workspace) for copy in entry.copies]
            about = _about(finding) if finding.kind == "updated" else {}
            due = now + entry.stale_after
            return Change("active", due, 0, status, result, known, synced=True, metadata=about)
        if finding.kind == "held":
            diff = unified_diff(finding.old or "", finding.text or "")
            known = replace(known, held={"reason": finding.reason, "hash": finding.hash, "diff": diff})
            return Change("held", now, entry.failures, "failed", result, known)
        known = replace(known, last_error=finding.reason)
        if finding.kind == "gone":
            return self._gone(entry, now, result, known)
        failures = entry.failures + 1
        delay = self._delay(failures)
        if finding.failure is not None and finding.failure.retry_after is not None:
            delay = max(delay, finding.failure.retry_after)
        state: State = "error" if failures >= FAILURES_UNTIL_ERROR else "active"
        return Change(state, now + delay, failures, "failed", result, known)

    def _gone(self, entry: Entry, now: datetime, result: dict[str, object], known: Known) -> Change:
        if known.gone_at is None or now - known.gone_at >= DAILY:
            known = replace(known, gone_count=known.gone_count + 1, gone_at=now)
        state: State = "gone" if known.gone_count >= GONE_UNTIL_HELD else entry.state
        # A little more than a day, or the next look would come too early to count.
        again = DAILY * (1 + 0.05 * self.jitter()) + timedelta(minutes=1)
        return Change(state, now + again, entry.failures, "failed", result, known)

    def _delay(self, failures: int) -> timedelta:
        """1, 2, 4, 8 hours, and then a day, give or take a tenth."""
        whole = min(FIRST_DELAY * 2 ** min(failures - 1, 10), DAILY) if failures < FAILURES_UNTIL_ERROR else DAILY
        return whole * (0.9 + 0.2 * self.jitter())

    def _note(self, finding: FetchResult, change: Change) -> None:
        """Count a finding, and tell who has to know."""
        entry, counts = finding.entry, self._counts
        counts[finding.kind] += 1
        counts["bytes"] += finding.bytes
        counts["embedded"] += finding.chunks_embedded
        counts["reused"] += finding.chunks_reused
        if finding.kind == "unchanged":
            return
        if finding.kind == "updated":
            logger.info(
                "%s: %s is updated, %d chunks embedded, %d reused",
                self.run.task, entry.name, finding.chunks_embedded, finding.chunks_reused,
            )  # fmt: skip
            self._preview(finding)
            return
        logger.warning("%s: %s: %s: %s", self.run.task, entry.name, finding.kind, finding.reason)
        if finding.kind == "failed":
            self._failed.setdefault(entry.name, finding.reason)
        if change.state != "active":
            self._alert(entry, change.state, finding.reason)
        if finding.kind == "held":
            self._preview(finding)

    def _alert(self, entry: Entry, state: State, reason: str) -> None:
        text = {
            "held": f"{entry.name} is held for review: {reason}",
            "gone": f"{entry.name} is gone: {reason}",
            "error": f"{entry.name} fails again and again, and is tried once a day: {reason}",
        }[state]
        choice = "--retry" if state == "error" else "--accept or --reject"
        line = f"{text}; `housekeeping watch review {entry.id} {choice}`"
        logger.error("%s: %s", self.run.task, line)
        if len(self._alerts) < MAX_FAILED:
            self._alerts.append(line)

    def _preview(self, finding: FetchResult) -> None:
        size = None if finding.text is None else len(finding.text.encode(errors="replace"))
        if len(self._sample) < MAX_SAMPLE:
            self._sample.append(Candidate(finding.entry.name, size, None, finding.reason or finding.kind))
        if len(self._diffs) < MAX_DIFFS and finding.text is not None and finding.text != finding.old:
            self._diffs.append(Diff(finding.entry.name, unified_diff(finding.old or "", finding.text)))

    def _report(self, due: int, taken: int) -> Report:
        counts, ended = self._counts, self._ended_by
        ending = PARTIAL if counts["failed"] else SUCCEEDED
        if ended is not None:
            ending = Ending.failed(ended)
        dealt_with = sum(counts[kind] for kind in ("updated", "unchanged", "held", "gone", "failed", "locked"))
        updated = counts["updated"]
        with self.run.connection.begin():
            failing = self.queue.failing(self.run.connection, MAX_FAILED)
        return self.run.report(
            ending,
            kind=SyncReport,
            stopped_reason=self._stopped,
            scanned=due,
            candidates=taken,
            skipped=dict.fromkeys(SKIP_REASONS, 0) | {"locked": counts["locked"], "budget": due - dealt_with},
            failed=tuple(FailedItem(name, reason) for name, reason in islice(self._failed.items(), MAX_FAILED)),
            failed_count=counts["failed"],
            sample=tuple(self._sample),
            warnings=tuple(self._alerts),
            updated=0 if self.run.dry_run else updated,
            would_update=updated if self.run.dry_run else 0,
            unchanged=counts["unchanged"],
            gone=counts["gone"],
            held_for_review=counts["held"],
            chunks_embedded=counts["embedded"],
            chunks_reused=counts["reused"],
            fetched_bytes=counts["bytes"],
            in_error=tuple(map(_trouble, failing)),
            diffs=tuple(self._diffs),
        )


def _trouble(entry: Entry) -> FailingDocument:
    again = None if entry.waits else entry.next_sync_at.isoformat(timespec="seconds")
    return FailingDocument(entry.id, entry.name, entry.state, entry.failures, entry.reason or "", again)


def _about(finding: FetchResult) -> dict[str, object]:
    """What the application keeps of a document besides its text; the vectors carry the same stamp."""
    title = {"title": finding.title} if finding.title and not finding.entry.copies[0].metadata.get("title") else {}
    return {"published": finding.published, **title}
