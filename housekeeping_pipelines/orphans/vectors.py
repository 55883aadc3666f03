"""Vectors of documents that are no more: found as orphaned files are, with the same guards.

They are derived from texts, so that nothing is kept of them: a document that is brought back out of the trash and is
watched gets its vectors again by the next sync.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.catalog import Catalog
from housekeeping_pipelines.deletion.report import MAX_SAMPLE, SKIP_REASONS, Candidate, Report
from housekeeping_pipelines.orphans.finding import MAX_MISSING_SAMPLE, find_orphans
from housekeeping_pipelines.orphans.references import ReferenceSource
from housekeeping_pipelines.resources.object_storage import StoredObject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime, timedelta

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.application.platform import MappedTable
    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.deletion.report import StoppedReason
    from housekeeping_pipelines.deletion.run import Housekeeper, Run
    from housekeeping_pipelines.orphans.finding import Orphans
    from housekeeping_pipelines.resources.vector_store import VectorStore
    from housekeeping_pipelines.resources.vectors import Vectors

VECTORS = "vectors"

# Watched documents that are read from the server at once.
_STREAMED_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class VectorReport(Report):
    """A report on the vectors of documents; counts are of documents, not of their chunks.

    Attributes:
        missing_count, missing: watched documents that have been synced and have no vectors, up to 50 of them by their
            ids: the next sync makes them again.
    """

    missing_count: int = 0
    missing: tuple[str, ...] = ()


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
    connection: sa.Connection,
    *,
    keeper: Housekeeper,
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
    guards.check_not_paused(connection, by_setting=keeper.paused_by_setting)
    now = keeper.clock()
    documents = Platform(Catalog(connection), config).table("documents")
    connection.commit()
    name = documents.names["doc_id"]
    assert name is not None  # noqa: S101 - a platform without it has no such task
    store = vectors.open(lambda: keeper.engine)
    try:
        orphans = find_orphans(
            connection,
            DocumentListing(store),
            [ReferenceSource(documents.live, name)],
            older_than=older_than,
            now=now,
            limits=limits,
        )
        missing_count, missing = _missing(connection, documents, store)
        return _take(run, connection, keeper, store, orphans, limits, now, missing_count, missing)
    finally:
        store.close()


def _take(
    run: Run, connection: sa.Connection, keeper: Housekeeper, store: VectorStore, orphans: Orphans, limits: Limits,
    now: datetime, missing_count: int, missing: tuple[str, ...],
) -> Report:  # fmt: skip
    found = orphans.findings
    planned = min(found.orphaned, found.orphaned if limits.max_rows is None else limits.max_rows)
    stopped: StoppedReason | None = "max_rows" if planned < found.orphaned else None
    keeper.observer.planned(run.task, f"documents of {store.label}", planned, dry_run=run.dry_run)
    sample: list[Candidate] = []
    gone = done = in_use = 0
    for batch in orphans.candidates(limits.batch_size):
        names = [each.name for each in batch[: planned - done]]
        if not names:
            break
        if run.dry_run:
            for each in names:
                keeper.observer.took(f"{VECTORS}/{each}")
        else:
            if limits.max_seconds is not None and keeper.monotonic() - run.started >= limits.max_seconds:
                stopped = "max_seconds"
                break
            if guards.is_paused(connection):
                stopped = "paused"
                break
            connection.rollback()
            with connection.begin():
                still = orphans.still_orphans(names)
            in_use += len(names) - len(still)
            gone += store.delete([each for each in names if each in still])
        done += len(names)
        sample += [_candidate(each, now) for each in batch[: min(len(names), MAX_SAMPLE - len(sample))]]
        keeper.observer.advanced(run.task, done, planned, gone)
    deleted = {VECTORS: gone} if gone else {}
    return run.report(
        "succeeded",
        kind=VectorReport,
        table=VECTORS,
        stopped_reason=stopped,
        scanned=found.scanned,
        candidates=found.orphaned,
        deleted=deleted,
        for_good=deleted,
        would_delete={VECTORS: planned} if run.dry_run and planned else {},
        skipped=dict.fromkeys(SKIP_REASONS, 0)
        | {"young": found.young, "in_use": in_use, "budget": found.orphaned - done},
        sample=tuple(sample),
        warnings=found.warnings,
        missing_count=missing_count,
        missing=missing,
    )


def _candidate(found: StoredObject, now: datetime) -> Candidate:
    age = None if found.modified is None else (now - found.modified).total_seconds()
    return Candidate(f"{VECTORS}/{found.name}", None, age, "no document has this id")


def _missing(connection: sa.Connection, documents: MappedTable, store: VectorStore) -> tuple[int, tuple[str, ...]]:
    """Watched documents without vectors: two lists in the order of their ids' bytes, read side by side."""
    id_ = sa.collate(sa.cast(documents["doc_id"], sa.Text), "C")
    watched = sa.select(id_).where(documents["watched"]).order_by(id_)
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
