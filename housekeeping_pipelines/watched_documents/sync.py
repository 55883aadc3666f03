"""Refreshes the watched documents that are due, many at the same time; a failure never affects another document.

Worker threads fetch and compare documents, and write generations of vectors that no search sees (`fetch_and_compare`).
This thread hands out the documents and publishes the results (`publishing`).
"""

from __future__ import annotations

import logging
import random
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.execution.report import MAX_FAILED, Ending
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.watched_documents import publishing
from housekeeping_pipelines.watched_documents.fetch_and_compare import DocumentFetcher, FetchResult
from housekeeping_pipelines.watched_documents.outcomes import Outcomes
from housekeeping_pipelines.watched_documents.publishing import Publisher
from housekeeping_pipelines.watched_documents.queue import Queue
from housekeeping_pipelines.watched_documents.tally import SyncTally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.resources.vector_store import VectorStore
    from housekeeping_pipelines.resources.vectors import Vectors
    from housekeeping_pipelines.watched_documents.queue import Entry
    from housekeeping_pipelines.watched_documents.report import SyncReport
    from housekeeping_pipelines.watched_documents.sources import Source
    from housekeeping_pipelines.watched_documents.texts import Texts

logger = logging.getLogger(__name__)

# How long a ready update waits for others, to be published with them.
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Options:
    """The options of one run.

    Attributes:
        force: take every watched document, due or not.
        concurrency: documents that are fetched at the same time.
        stale_after: the interval of a document that gets a queue entry in this run.
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
) -> SyncReport:
    """Refresh the due documents; the session must not be in a transaction.

    Raises:
        HousekeepingError: a table is missing, or the vector store or the embedder is not usable; nothing was started.
    """
    connection = run.connection
    queue = Queue(Platform(Catalog(connection), config))
    connection.commit()
    store = vectors.open(lambda: connection.engine)
    fetcher = DocumentFetcher(source, store, vectors.embedder, texts, run.clock, dry_run=run.dry_run)
    try:
        return Sync(run, queue, fetcher, texts, store, options, Outcomes(run.clock, jitter)).execute()
    finally:
        store.close()


@dataclass
class Sync:
    """One run."""

    run: Run
    queue: Queue
    fetcher: DocumentFetcher
    texts: Texts
    store: VectorStore
    options: Options
    outcomes: Outcomes
    _tally: SyncTally = field(default_factory=SyncTally)
    _ended_by: HousekeepingError | None = None

    def execute(self) -> SyncReport:
        """Refresh the due documents.

        Raises:
            HousekeepingError: nothing was started.
        """
        run, now = self.run, self.run.clock()
        if not run.dry_run:
            with run.connection.begin():
                self.queue.delete_unknown(run.connection)
                enqueued = self.queue.enqueue_missing(run.connection, now, self.options.stale_after)
            if enqueued:
                logger.info("%s: %s watched documents had no queue entry", run.task, f"{enqueued:,}")
        with run.connection.begin():
            due = self.queue.due(run.connection, now, force=self.options.force, limit=None)
        taken = due[: self.options.max_documents]
        self._tally.scanned, self._tally.candidates = len(due), len(taken)
        run.observer.on_start(run.task, "watched documents", len(taken), dry_run=run.dry_run)
        with INTERRUPTION.step():
            self._work(taken)
        with run.connection.begin():
            failing = self.queue.failing(run.connection, MAX_FAILED)
        ending = None if self._ended_by is None else Ending.failed(self._ended_by)
        return self._tally.report_on(run, ending, failing)

    def _work(self, keys: list[object]) -> None:
        entries = self._entries(keys)
        with (
            ThreadPoolExecutor(self.options.concurrency, thread_name_prefix="watched") as workers,
            ThreadPoolExecutor(publishing.WORKERS, thread_name_prefix="publishing") as publishers,
        ):
            publisher = Publisher(self.run, self.queue, self.texts, self.store, self.outcomes, self._tally, publishers)
            running: set[Future[FetchResult]] = set()
            done = 0
            while True:
                if self._may_continue():
                    # Twice as many as workers, so that none is idle while this thread publishes.
                    free = 2 * self.options.concurrency - len(running)
                    running |= {workers.submit(self.fetcher.fetch_and_compare, each) for each in islice(entries, free)}
                else:
                    running = {future for future in running if not future.cancel()}
                if not running:
                    break
                timeout = _POLL_SECONDS if publisher.updates else None
                finished, running = wait(running, timeout, return_when=FIRST_COMPLETED)
                for future in finished:
                    self._take(future, publisher)
                if len(publisher.updates) >= publishing.UPDATES_BATCH_SIZE or not (finished and running):
                    self._publish(publisher)
                done += len(finished)
                self.run.observer.on_progress(self.run.task, done, len(keys), self._tally.updated)
            self._safely(publisher.record_rows)
        for pruning in publisher.pruning():
            self._safely(pruning.result)

    def _entries(self, keys: list[object]) -> Iterator[Entry]:
        connection = self.run.connection
        entries = self.queue.read(connection, keys)
        while True:
            with connection.begin_nested() if connection.in_transaction() else connection.begin():
                entry = next(entries, None)
            if entry is None:
                return
            yield entry

    def _may_continue(self) -> bool:
        if self._ended_by is not None:
            return False
        self._tally.stopped_reason = self.run.has_to_stop(self.options.max_seconds)
        return self._tally.stopped_reason is None

    def _take(self, future: Future[FetchResult], publisher: Publisher) -> None:
        try:
            result = future.result()
        except HousekeepingError as error:
            # The embedder or the vector store failed: it would fail for every document.
            self._ended_by = self._ended_by or error
            return
        if self._ended_by is not None:
            return
        if self.run.dry_run:
            self._tally.count(self.run.task, result, self.outcomes.change(result))
        else:
            self._safely(lambda: publisher.add(result))

    def _publish(self, publisher: Publisher) -> None:
        if self._ended_by is None:
            self._safely(publisher.publish_updates)
        else:
            publisher.updates.clear()

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except HousekeepingError as error:
            self._ended_by = self._ended_by or error
