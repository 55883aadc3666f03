"""Publishes the results of a sync, in the one thread that owns the run's session.

A run that lost its session, and with it its lock, publishes nothing. The order lets the next run repair a crash at any
point, since it compares the record with the store:

    write a generation for every copy, invisible -> write the text beside the old one -> switch every copy and replace
    its text -> update the queue, the knowledge and the run's record in one transaction -> delete the old generations
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.postgres import errors as database_errors
from housekeeping_pipelines.watched_documents.fetch_and_compare import FetchResult
from housekeeping_pipelines.watched_documents.outcomes import Outcomes, published_metadata
from housekeeping_pipelines.watched_documents.texts import TextFileError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.resources.vector_store import VectorStore
    from housekeeping_pipelines.watched_documents.queue import Change, Entry, Queue
    from housekeeping_pipelines.watched_documents.tally import SyncTally
    from housekeeping_pipelines.watched_documents.texts import Texts

# Results that change only rows are recorded in batches of this size.
ROWS_BATCH_SIZE = 50
# Updates are published in batches of this size, to save statements.
UPDATES_BATCH_SIZE = 16
# Publishing mostly waits for disks.
WORKERS = 8


@dataclass
class Publisher:
    """Publishes the results of one run in batches; each result is counted once it is recorded.

    Attributes:
        pool: of WORKERS threads, in which texts and generations are replaced.
    """

    run: Run
    queue: Queue
    texts: Texts
    store: VectorStore
    outcomes: Outcomes
    tally: SyncTally
    pool: ThreadPoolExecutor
    updates: list[FetchResult] = field(default_factory=list)
    _rows: list[FetchResult] = field(default_factory=list)
    _pruning: list[Future[None]] = field(default_factory=list)

    def add(self, result: FetchResult) -> None:
        """Queue a result: updates until `publish_updates`, the others until their batch is full."""
        if result.kind == "updated":
            self.updates.append(result)
            return
        self._rows.append(result)
        if len(self._rows) >= ROWS_BATCH_SIZE:
            self.record_rows()

    def publish_updates(self) -> None:
        """Publish the queued updates; their old generations are deleted in the background."""
        results, self.updates = self.updates, []
        if not results:
            return
        try:
            published = self._publish(results)
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            # The platform refuses the record of one of them: publish each alone to find out which.
            published = [each for result in results for each in self._publish_alone(result)]
        for result, change in published:
            self.tally.count(self.run.task, result, change)
            self._pruning.append(self.pool.submit(self._prune, result.entry))

    def record_rows(self) -> None:
        """Record the queued results that change only rows."""
        results, self._rows = self._rows, []
        if results:
            self._record(results)

    def pruning(self) -> list[Future[None]]:
        """The deletions of old generations that were started."""
        return self._pruning

    def _publish_alone(self, result: FetchResult) -> list[tuple[FetchResult, Change]]:
        try:
            return self._publish([result])
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            self._fail(result, database_errors.describe(error))
            return []

    def _publish(self, results: list[FetchResult]) -> list[tuple[FetchResult, Change]]:
        """Publish in the order of the module's docstring; returns what was published."""
        failed: list[tuple[FetchResult, str]] = []
        done: list[tuple[FetchResult, Change]] = []
        with self.run.connection.begin():
            leased = self._lease(results)
            for result, reason in zip(leased, self.pool.map(self._replace, leased), strict=True):
                if reason is None:
                    done.append((result, self.outcomes.change(result)))
                else:
                    failed.append((result, reason))
            self._write(done)
        self.tally.count_locked(len(results) - len(leased))
        for result, reason in failed:
            self._fail(result, reason)
        return done

    def _replace(self, result: FetchResult) -> str | None:
        """Switch every copy and replace its text; returns why it failed, or None."""
        assert result.generation is not None and result.text is not None  # noqa: S101, PT018 - it is updated
        copies = result.entry.copies
        files = {
            copy.docpath: {**copy.metadata, **published_metadata(result), "wordCount": len(result.text.split())}
            for copy in reversed(copies)
        }
        try:
            with ExitStack() as stack:
                drafts = [self.texts.draft(docpath, result.text, about) for docpath, about in files.items()]
                replacements = [stack.enter_context(draft) for draft in drafts]
                for copy in copies:
                    self.store.switch(copy.doc_id, result.generation)
                for put_in_place in replacements:
                    put_in_place()
        except TextFileError as error:
            return str(error)
        return None

    def _prune(self, entry: Entry) -> None:
        for copy in entry.copies:
            self.store.prune(copy.doc_id)

    def _fail(self, result: FetchResult, reason: str) -> None:
        self._rows.append(FetchResult(result.entry, "failed", reason))
        self.record_rows()

    def _record(self, results: list[FetchResult]) -> None:
        try:
            with self.run.connection.begin():
                recorded = [(each, self.outcomes.change(each)) for each in self._lease(results)]
                self._write(recorded)
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            if len(results) == 1:
                # The platform refuses even this record: the document stays due, and the next run tries again.
                self.tally.count_unrecorded(self.run.task, results[0].entry, database_errors.describe(error))
                return
            for result in results:
                self._record([result])
            return
        self.tally.count_locked(len(results) - len(recorded))
        for result, change in recorded:
            self.tally.count(self.run.task, result, change)

    def _lease(self, results: list[FetchResult]) -> list[FetchResult]:
        """Lock the documents for the transaction; those that others locked or changed are left out."""
        leased = {each.key for each in self.queue.lease(self.run.connection, [each.entry for each in results])}
        return [each for each in results if each.entry.key in leased]

    def _write(self, changes: list[tuple[FetchResult, Change]]) -> None:
        if changes:
            entries = [(result.entry, change) for result, change in changes]
            self.queue.record(self.run.connection, entries, self.run.clock())
