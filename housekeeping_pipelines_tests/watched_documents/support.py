"""A platform with watched documents, sources whose answers are written down, and everything else real."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from housekeeping_pipelines.application import tables
from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.execution.run import Run
from housekeeping_pipelines.execution.runner import TaskRunner
from housekeeping_pipelines.maintenance import trash
from housekeeping_pipelines.postgres.engine import make_engine
from housekeeping_pipelines.resources.embedder.lexical import LexicalEmbedder
from housekeeping_pipelines.resources.vector_store.pgvector import PgVectorStore
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.stores.stores import Stores
from housekeeping_pipelines.watched_documents import administration
from housekeeping_pipelines.watched_documents.administration import WatchAdministration
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Unchanged
from housekeeping_pipelines.watched_documents.sync import Options, sync_documents
from housekeeping_pipelines.watched_documents.texts import Texts
from housekeeping_pipelines_tests.deletion.support import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from housekeeping_pipelines.execution.report import Report
    from housekeeping_pipelines.resources.embedder import Embedder
    from housekeeping_pipelines.resources.vector_store import Space, Vector, VectorStore
    from housekeeping_pipelines.watched_documents.queue import Entry
    from housekeeping_pipelines.watched_documents.removal import Removal
    from housekeeping_pipelines.watched_documents.report import SyncReport
    from housekeeping_pipelines.watched_documents.sources import Outcome
    from housekeeping_pipelines.watched_documents.sources.references import Reference

START = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
WEEK = timedelta(days=7)

OLD = (
    "# Opening hours\n\nThe office opens at nine and closes at five."
    "\n\n# Address\n\nIt is in the harbour, by the lighthouse."
)
NEW = OLD.replace("nine", "eight")


@dataclass
class Answers:
    """A source that answers what it is told to; a text with its version is only sent to who does not have it."""

    by_address: dict[str, Outcome | str | Exception] = field(default_factory=dict)
    asked: list[tuple[str, bool]] = field(default_factory=list)
    before: Callable[[str], None] = lambda address: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        self.before(reference.address)
        with self._lock:
            self.asked.append((reference.address, previous is not None))
        answer = self.by_address.get(reference.address, Failed("nobody is there"))
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            version = {"version": hash(answer)}
            return Unchanged(version, 10) if previous == version else Content(answer, "A title", version, len(answer))
        return answer


@dataclass
class CountingEmbedder:
    """The lexical embedder; it says what it was asked for, and can be down."""

    texts: list[str] = field(default_factory=list)
    broken: Exception | None = None
    _inner: LexicalEmbedder = field(default_factory=LexicalEmbedder)

    @property
    def space(self) -> Space:
        return self._inner.space

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        if self.broken is not None:
            raise self.broken
        self.texts += texts
        return self._inner.embed(texts)


@dataclass
class OneStore:
    """What `Vectors` is to a run, over a store that the test may break."""

    embedder: Embedder
    engine: sa.Engine
    wrap: Callable[[VectorStore], VectorStore] = lambda store: store

    def open(self, database: Callable[[], sa.Engine]) -> VectorStore:
        store = self.wrap(self.store())
        store.check()
        return store

    def store(self) -> PgVectorStore:
        return PgVectorStore(make_engine(self.engine.url, pooled=8), self.embedder.space)


@dataclass
class World:
    """One platform, and the parts of a sync over it."""

    engine: sa.Engine
    folder: Path
    now: datetime = START
    source: Any = field(default_factory=Answers)
    embedder: CountingEmbedder = field(default_factory=CountingEmbedder)
    jitter: float = 0.5
    observer: Watcher = field(default_factory=Watcher)

    def __post_init__(self) -> None:
        self.vectors = OneStore(self.embedder, self.engine)
        self.texts = Texts(self.folder)
        self.runner = TaskRunner(self.engine, clock=lambda: self.now, observer=self.observer)

    def make(self) -> World:
        with self.engine.begin() as connection:
            tables.metadata.create_all(connection)
            connection.execute(sa.insert(tables.workspaces), [{"slug": s, "name": s} for s in ("one", "two", "three")])
        return self

    def document(
        self, address: str, *, workspace: int = 1, text: str | None = OLD, filename: str | None = None,
        watched: bool = True, about: Any = None, docpath: str | None = None,
    ) -> str:  # fmt: skip
        """A document with its file; returns its doc_id."""
        filename = filename or f"{address.replace('/', '-')}.json"
        doc_id = f"{filename}@{workspace}"
        docpath = docpath or f"custom-documents/{filename}"
        metadata = about if about is not None else {"title": "", "chunkSource": f"link://{address}"}
        with self.engine.begin() as connection:
            connection.execute(
                sa.insert(tables.documents).values(
                    doc_id=doc_id, filename=filename, docpath=docpath, workspace_id=workspace, metadata=metadata,
                    watched=watched,
                )
            )  # fmt: skip
        if text is not None:
            path = self.folder / docpath
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"pageContent": text, "published": "long ago", "author": "A. Writer"}))
        return doc_id

    def sync(self, *, run_id: str = "run", dry_run: bool = False, **options: Any) -> SyncReport:
        """A sync and its report; of one that was skipped or could not start, only the fields of every report."""

        def body(run: Run) -> Report:
            return sync_documents(
                run,
                config=HousekeepingConfig(),
                source=self.source,
                vectors=self.vectors,  # type: ignore[arg-type]
                texts=self.texts,
                options=Options(**options),
                jitter=lambda: self.jitter,
            )

        return cast("SyncReport", self.runner.run("sync_watched_documents", run_id, body, dry_run=dry_run))

    def remove(self, address: str) -> Removal:
        """End the watch of a document."""
        return administration.remove(self.runner, HousekeepingConfig(), self.entry(address).id)

    def undo(self, run_id: str) -> Report:
        """Bring back what a run deleted; none of it is a file."""
        return self.runner.run("undo", "undo", lambda run: trash.undo(run, run_id, self.stores))

    @property
    def stores(self) -> Stores:
        return Stores(load_settings(self.folder, {}))

    def purge(self) -> Report:
        """Empty the trash."""
        later = replace(self.runner, clock=lambda: self.now + 365 * DAY)
        return later.run(
            "purge_trash",
            "purge",
            lambda run: trash.purge_trash(run, store_of=self.stores.__getitem__, retention_days=0, run_id=None),
        )

    def entries(self) -> dict[str, Entry]:
        """What is watched, by the address of its reference."""
        with self.engine.begin() as connection:
            found = WatchAdministration.on(connection, HousekeepingConfig()).entries()
        return {(entry.reference or entry.filename).removeprefix("link://"): entry for entry in found}

    def entry(self, address: str) -> Entry:
        return self.entries()[address]

    def watching(self) -> Iterator[WatchAdministration]:
        with self.engine.begin() as connection:
            yield WatchAdministration.on(connection, HousekeepingConfig())

    def text(self, doc_id: str) -> dict[str, Any]:
        with self.engine.connect() as connection:
            docpath = connection.scalar(
                sa.select(tables.documents.c.docpath).where(tables.documents.c.doc_id == doc_id)
            )
        document: dict[str, Any] = json.loads((self.folder / str(docpath)).read_text())
        return document

    def runs(self, address: str) -> list[tuple[str, dict[str, Any]]]:
        runs = tables.document_sync_runs
        with self.engine.connect() as connection:
            statement = sa.select(runs.c.status, runs.c.result).where(runs.c.queue_id == self.entry(address).key)
            return [(status, result) for status, result in connection.execute(statement.order_by(runs.c.id))]

    def found(self, sentence: str, limit: int = 50) -> dict[str, str]:
        """The text that a search finds of each document, put together."""
        store = self.vectors.store()
        hits = store.search(LexicalEmbedder().embed([sentence])[0], limit)
        store.close()
        texts: dict[str, dict[int, str]] = {}
        for hit in hits:
            texts.setdefault(hit.document, {})[hit.position] = hit.text
        return {name: "\n\n".join(text for _, text in sorted(parts.items())) for name, parts in texts.items()}
