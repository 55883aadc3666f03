"""Vectors of deleted documents: found like orphaned files, with the same guards.

Vectors are derived from texts, so they have no trash. Those of a document in the trash are kept until the document
has left the trash too, so that an undo finds them in place. A hold on a document's row counts if the row's key is the
document's id; once a row is deleted and has left the trash, no other key identifies the document.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.application.sample import sample_tables
from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.holds import HOLDS_LOCK, ActiveHolds
from housekeeping_pipelines.deletion.mirrors import MIRRORS_LOCK, find_mirrors
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.execution.report import Ending
from housekeeping_pipelines.orphans.finding import find_orphans
from housekeeping_pipelines.orphans.listing import Kind
from housekeeping_pipelines.orphans.report import VectorReport
from housekeeping_pipelines.orphans.search import Kept, Scan
from housekeeping_pipelines.orphans.tally import OrphanTally
from housekeeping_pipelines.orphans.values import MAX_MISSING_SAMPLE
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.postgres.locks import lock_for_transaction, shared_lock
from housekeeping_pipelines.resources.object_storage import StoredObject
from housekeeping_pipelines.stores.references import ReferenceSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import timedelta

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.application.platform import MappedTable
    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.execution.report import StoppedReason
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.orphans.candidates import Orphans
    from housekeeping_pipelines.resources.vector_store import VectorStore
    from housekeeping_pipelines.resources.vectors import Vectors

VECTORS = "vectors"

# Watched documents that are fetched from the server at once.
_FETCH_SIZE = 1000


@dataclass(frozen=True)
class DocumentListing:
    """The documents of a vector store, listed like the files of a store."""

    store: VectorStore

    @property
    def label(self) -> str:
        return self.store.label

    def check(self) -> None:
        """As the vector store's."""
        self.store.check()

    def list(self, prefix: str = "", *, details: bool = True) -> Iterator[StoredObject]:
        """Every document that has vectors; size unknown."""
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
    setting: str | None = None,
) -> VectorReport:
    """Find vectors whose document no longer exists and delete them, within the budgets.

    Args:
        setting: the variable by which a user named the store; None: it is ours.

    Raises:
        Refused: a guard.
        HousekeepingError: the store or the documents cannot be read; nothing was deleted.
    """
    connection = run.connection
    guards.check_may_start(run)
    table = Platform(Catalog(connection), config).table("documents")
    if setting is not None:
        guards.check_not_sample(sample_tables(connection, [table.live]), VECTORS, setting)
    connection.commit()
    name = table.names["doc_id"]
    assert name is not None  # noqa: S101 - the mapping requires this column
    documents = _Documents(run, table, name)
    store = vectors.open(lambda: connection.engine)
    try:
        now = run.clock()
        scan = Scan(
            storage=DocumentListing(store),
            sources=[ReferenceSource.of(table.live, name, transform="exact")],
            floor=now - older_than,
            limits=limits,
            kind=Kind(),
            find_kept=documents.find_kept,
            check_sources=guards.check_not_empty,
        )
        orphans = find_orphans(connection, scan)
        tally = OrphanTally.of(orphans.findings, store=VECTORS, permanent=True, now=now, why="no document has this id")
        return VectorCleanup(run, documents, store, limits, orphans, tally).execute()
    finally:
        store.close()


@dataclass
class VectorCleanup:
    """The deletion of what one search found."""

    run: Run
    documents: _Documents
    store: VectorStore
    limits: Limits
    orphans: Orphans
    tally: OrphanTally

    def execute(self) -> VectorReport:
        """See `clean_vectors`."""
        run, tally = self.run, self.tally
        missing_count, missing = _missing(run.connection, self.documents.table, self.store)
        found, most = self.orphans.findings.orphaned, self.limits.max_rows
        planned = found if most is None else min(found, most)
        tally.plan(planned, "max_rows" if planned < found else None, dry_run=run.dry_run)
        run.observer.on_start(run.task, f"documents of {self.store.label}", planned, dry_run=run.dry_run)
        ending = None
        try:
            tally.stopped_reason = self._delete_all() or tally.stopped_reason
        except HousekeepingError as error:
            if not tally.deleted_count:
                raise
            # The report has to say what was deleted.
            ending = Ending.failed(error)
        return tally.report(run, ending, kind=VectorReport, table=VECTORS, missing_count=missing_count, missing=missing)

    def _delete_all(self) -> StoppedReason | None:
        """Returns what ended it early."""
        run, tally = self.run, self.tally
        for batch in self.orphans.candidates(self.limits.batch_size):
            chosen = batch[: tally.planned - tally.dealt_with]
            if not chosen:
                return None
            if run.dry_run:
                for each in chosen:
                    run.observer.on_item(f"{VECTORS}/{each.name}")
            else:
                if (reason := guards.reason_to_stop(run, self.limits.max_seconds)) is not None:
                    return reason
                with INTERRUPTION.step():
                    self._delete([each.name for each in chosen])
            tally.deal_with(chosen)
            run.observer.on_progress(run.task, tally.dealt_with, tally.planned, tally.deleted_count)
        return None

    def _delete(self, names: list[str]) -> None:
        connection, tally = self.run.connection, self.tally
        # The locks make concurrent hold writers wait for the batch.
        with shared_lock(connection, HOLDS_LOCK), shared_lock(connection, MIRRORS_LOCK):
            with connection.begin():
                # One snapshot of rows and trash, or a document that moves between them could appear in neither.
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                still = self.orphans.still_orphans(names)
                still -= self.documents.in_trash(sorted(still))
                held = self.documents.held(still)
            tally.skipped["in_use"] += len(names) - len(still)
            tally.skipped["held"] += len(held)
            tally.delete(self.store.delete([each for each in names if each in still - held]))


@dataclass(frozen=True)
class _Documents:
    """The platform's documents, with their ids in the column `id_column`."""

    run: Run
    table: MappedTable
    id_column: str

    def find_kept(self, ids: list[str]) -> Kept:
        """Those of the ids that are kept although no row has them."""
        connection = self.run.connection
        with connection.begin_nested() if connection.in_transaction() else connection.begin():
            connection.execute(lock_for_transaction(MIRRORS_LOCK, shared=True))
            held, trashed = self.held(ids), self.in_trash(ids)
        return Kept(held - trashed, trashed)

    def held(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that an active hold on a document names."""
        live = self.table.live
        if live.key != (self.id_column,):
            return set()
        rows = ActiveHolds.read(self.run.connection, self.run.clock()).rows.get((live.schema, live.name), [])
        return set(ids) & {key[0] for key in rows}

    def in_trash(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids whose document is in the trash."""
        live, connection = self.table.live, self.run.connection
        found: set[str] = set()
        for mirror in find_mirrors(connection):
            if (mirror.source_schema, mirror.source_table) != (live.schema, live.name):
                continue
            if self.id_column in mirror.selectable.c:
                id_ = sa.cast(mirror.selectable.c[self.id_column], sa.Text)
                wanted = sa.bindparam("ids", list(ids), ARRAY(sa.Text))
                found.update(connection.scalars(sa.select(id_).where(id_ == sa.any_(wanted))))
        return found


def _missing(connection: sa.Connection, documents: MappedTable, store: VectorStore) -> tuple[int, tuple[str, ...]]:
    """Count and sample of watched documents without vectors: a merge of two lists ordered by the bytes of their ids."""
    id_ = sa.collate(sa.cast(documents["doc_id"], sa.Text), "C")
    watched = sa.select(id_).where(documents["watched"], id_.is_not(None)).order_by(id_)
    count = 0
    shown: list[str] = []
    with connection.begin(), connection.scalars(watched.execution_options(yield_per=_FETCH_SIZE)) as ids:
        for name in _without(ids, (each.document for each in store.documents())):
            count += 1
            if len(shown) < MAX_MISSING_SAMPLE:
                shown.append(name)
    return count, tuple(shown)


def _without(wanted: Iterable[str], there: Iterable[str]) -> Iterator[str]:
    """Those of the first ascending list that are not in the second."""
    rest = iter(there)
    at = next(rest, None)
    for name in (name for name, _ in itertools.groupby(wanted)):
        while at is not None and at.encode() < name.encode():
            at = next(rest, None)
        if at != name:
            yield name
