"""Vectors of documents that are no more: found as orphaned files are, with the same guards.

They are derived from texts, so that no trash is kept of them: the vectors of a document that is itself in the trash
stay until it has left that too, and an undo finds them in their place. A hold on a document's row counts where its key
is the document's id; of a row that is gone, and in no trash, no other key says which document it was.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.holds import HOLDS_LOCK, ActiveHolds
from housekeeping_pipelines.deletion.mirrors import MIRRORS_LOCK, find_mirrors
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.report import MAX_SAMPLE, SKIP_REASONS, SUCCEEDED, Candidate, Ending, Report
from housekeeping_pipelines.orphans.finding import MAX_MISSING_SAMPLE, find_orphans
from housekeeping_pipelines.orphans.report import VectorReport
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.postgres.locks import lock_for_transaction, shared_lock
from housekeeping_pipelines.resources.object_storage import StoredObject
from housekeeping_pipelines.stores.references import ReferenceSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime, timedelta

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.application.platform import MappedTable
    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.execution.report import StoppedReason
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.orphans.finding import Orphans
    from housekeeping_pipelines.resources.vector_store import VectorStore
    from housekeeping_pipelines.resources.vectors import Vectors

VECTORS = "vectors"

# Watched documents that are read from the server at once.
_STREAMED_AT_ONCE = 1000


@dataclass(frozen=True)
class DocumentListing:
    """The documents of a vector store, as a store of files would list them."""

    store: VectorStore

    @property
    def label(self) -> str:
        return self.store.label

    def check(self) -> None:
        """As the vector store's."""
        self.store.check()

    def list(self, prefix: str = "", *, details: bool = True) -> Iterator[StoredObject]:
        """Every document that has vectors; what it takes is not known."""
        for found in self.store.documents():
            if found.document.startswith(prefix):
                yield StoredObject(found.document, None, found.written_at if details else None)


def clean_vectors(
    run: Run,
    *,
    config: HousekeepingConfig,
    vectors: Vectors,
    older_than: timedelta,
    limits: Limits,
) -> Report:
    """Find vectors whose document is gone and delete them, within the budgets.

    Raises:
        Refused: a guard.
        HousekeepingError: the store or the documents cannot be read: nothing went.
    """
    connection = run.connection
    guards.check_not_paused(connection, by_setting=run.paused_by_setting)
    documents = Platform(Catalog(connection), config).table("documents")
    connection.commit()
    store = vectors.open(lambda: connection.engine)
    try:
        return VectorCleanup(run, documents, store, older_than, limits).execute()
    finally:
        store.close()


@dataclass
class VectorCleanup:
    """One run over one store."""

    run: Run
    documents: MappedTable
    store: VectorStore
    older_than: timedelta
    limits: Limits
    _trashed: set[str] = field(default_factory=set)
    _gone: int = 0
    _done: int = 0
    _in_use: int = 0
    _held: int = 0
    _sample: list[Candidate] = field(default_factory=list)

    def execute(self) -> Report:
        """See `clean_vectors`."""
        run, limits = self.run, self.limits
        connection = run.connection
        self._now = self.run.clock()
        name = self.documents.names["doc_id"]
        assert name is not None  # noqa: S101 - a platform without it has no such task
        self._name = name
        orphans = find_orphans(
            connection,
            DocumentListing(self.store),
            [ReferenceSource(self.documents.live, name)],
            older_than=self.older_than,
            now=self._now,
            limits=limits,
            held=self._kept,
        )
        missing_count, missing = _missing(connection, self.documents, self.store)
        found = orphans.findings
        self._planned = found.orphaned if limits.max_rows is None else min(found.orphaned, limits.max_rows)
        stopped: StoppedReason | None = "max_rows" if self._planned < found.orphaned else None
        self.run.observer.planned(run.task, f"documents of {self.store.label}", self._planned, dry_run=run.dry_run)
        ending = SUCCEEDED
        try:
            stopped = self._take(orphans) or stopped
        except HousekeepingError as error:
            if not self._gone:
                raise
            # What went is to be told.
            ending = Ending.failed(error)
        deleted = {VECTORS: self._gone} if self._gone else {}
        return run.report(
            ending,
            kind=VectorReport,
            table=VECTORS,
            stopped_reason=stopped,
            scanned=found.scanned,
            candidates=found.orphaned,
            deleted=deleted,
            for_good=deleted,
            would_delete={VECTORS: self._planned} if run.dry_run and self._planned else {},
            skipped=dict.fromkeys(SKIP_REASONS, 0)
            | {
                "young": found.young,
                "held": found.held - len(self._trashed) + self._held,
                "in_use": len(self._trashed) + self._in_use,
                "budget": found.orphaned - self._done,
            },
            sample=tuple(self._sample),
            warnings=found.warnings,
            missing_count=missing_count,
            missing=missing,
        )

    def _take(self, orphans: Orphans) -> StoppedReason | None:
        """Returns what ended it early."""
        run, limits = self.run, self.limits
        for batch in orphans.candidates(limits.batch_size):
            chosen = batch[: self._planned - self._done]
            if not chosen:
                return None
            if run.dry_run:
                for each in chosen:
                    self.run.observer.took(f"{VECTORS}/{each.name}")
            else:
                if run.is_out_of_time(limits.max_seconds):
                    return "max_seconds"
                if guards.is_paused(self.run.connection):
                    return "paused"
                self.run.connection.rollback()
                self._delete(orphans, [each.name for each in chosen])
            self._done += len(chosen)
            self._sample += [_candidate(each, self._now) for each in chosen[: MAX_SAMPLE - len(self._sample)]]
            self.run.observer.advanced(run.task, self._done, self._planned, self._gone)
        return None

    def _delete(self, orphans: Orphans, names: list[str]) -> None:
        connection = self.run.connection
        # Whoever adds a hold waits until the batch is through.
        with shared_lock(connection, HOLDS_LOCK), shared_lock(connection, MIRRORS_LOCK):
            with connection.begin():
                # One view of rows and trash, or a document could be in neither while it goes from one to the other.
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                still = orphans.still_orphans(names)
                still -= self._in_trash(sorted(still))
                held = self._held_now(still)
            self._in_use += len(names) - len(still)
            self._held += len(held)
            self._gone += self.store.delete([each for each in names if each in still - held])

    def _kept(self, names: list[str]) -> set[str]:
        """What stays although no row has this id."""
        connection = self.run.connection
        with connection.begin_nested() if connection.in_transaction() else connection.begin():
            connection.execute(lock_for_transaction(MIRRORS_LOCK, shared=True))
            held, trashed = self._held_now(names), self._in_trash(names)
        self._trashed |= trashed
        return held | trashed

    def _held_now(self, names: Iterable[str]) -> set[str]:
        live = self.documents.live
        if live.key != (self._name,):
            return set()
        rows = ActiveHolds.read(self.run.connection, self.run.clock()).rows.get((live.schema, live.name), [])
        return set(names) & {key[0] for key in rows}

    def _in_trash(self, names: Sequence[str]) -> set[str]:
        live = self.documents.live
        found: set[str] = set()
        for mirror in find_mirrors(self.run.connection):
            if (mirror.source_schema, mirror.source_table) != (live.schema, live.name):
                continue
            if self._name in mirror.selectable.c:
                name = sa.cast(mirror.selectable.c[self._name], sa.Text)
                wanted = sa.bindparam("names", list(names), ARRAY(sa.Text))
                found.update(self.run.connection.scalars(sa.select(name).where(name == sa.any_(wanted))))
        return found


def _candidate(found: StoredObject, now: datetime) -> Candidate:
    age = None if found.modified is None else (now - found.modified).total_seconds()
    return Candidate(f"{VECTORS}/{found.name}", None, age, "no document has this id")


def _missing(connection: sa.Connection, documents: MappedTable, store: VectorStore) -> tuple[int, tuple[str, ...]]:
    """Watched documents without vectors: two lists in the order of their ids' bytes, read side by side."""
    id_ = sa.collate(sa.cast(documents["doc_id"], sa.Text), "C")
    watched = sa.select(id_).where(documents["watched"], id_.is_not(None)).order_by(id_)
    count = 0
    shown: list[str] = []
    with connection.begin():
        ids = connection.scalars(watched.execution_options(yield_per=_STREAMED_AT_ONCE))
        for name in _without(ids, (each.document for each in store.documents())):
            count += 1
            if len(shown) < MAX_MISSING_SAMPLE:
                shown.append(name)
    return count, tuple(shown)


def _without(wanted: Iterable[str], there: Iterable[str]) -> Iterator[str]:
    """Those of the first ascending list that the second has not."""
    rest = iter(there)
    at = next(rest, None)
    for name in (name for name, _ in itertools.groupby(wanted)):
        while at is not None and at.encode() < name.encode():
            at = next(rest, None)
        if at != name:
            yield name
