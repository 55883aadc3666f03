"""Vectors in a folder, with LanceDB."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.errors import ConfigurationError, Unavailable
from housekeeping_pipelines.resources.vector_store import Generation, Hit, Space, StoredDocument
from housekeeping_pipelines.resources.vector_store.settling import Candidate, settled_search

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from housekeeping_pipelines.resources.vector_store import Chunk, Vector

VECTORS, GENERATIONS, SPACE = "document_vectors", "document_generations", "vector_space"

_WRITTEN_AT_ONCE = 2000


class LanceStore:
    """Vectors in tables of a folder. See `VectorStore`."""

    def __init__(self, folder: Path, space: Space) -> None:
        """
        Raises:
            ConfigurationError: the package lancedb is not installed.
        """
        try:
            import lancedb
        except ImportError:
            raise ConfigurationError(
                "VECTOR_STORE_URL=lancedb:///… needs the package lancedb",
                hint="pip install 'housekeeping-pipelines[lancedb]'",
            ) from None
        self._folder, self._space = folder, space
        # Every read sees what any process has written.
        self._database = lancedb.connect(str(folder), read_consistency_interval=timedelta(0))
        self._tables: dict[str, Any] = {}
        # Lance merges appends of several writers, and refuses some deletions beside them.
        self._lock = threading.RLock()

    @property
    def label(self) -> str:
        return f"LanceDB in {self._folder}"

    def check(self) -> None:
        """See `VectorStore`; a folder that is not made yet is no fault."""
        self._made()

    def write(self, document: str, generation: str, chunks: Iterable[Chunk]) -> int:
        """See `VectorStore`."""
        import pyarrow as pa

        self._prepare()
        if self._pointers({document}).get(document) == generation:
            raise ValueError(f"{generation} is current of {document}")
        count, rest = 0, iter(chunks)
        now = datetime.now(UTC)
        with self._explained(), self._lock:
            table = self._tables[VECTORS]
            table.delete(f"document = {_quoted(document)} AND generation = {_quoted(generation)}")
            while part := list(islice(rest, _WRITTEN_AT_ONCE)):
                rows = [
                    {
                        "document": document,
                        "generation": generation,
                        "position": chunk.position,
                        "hash": chunk.hash,
                        "content": chunk.text,
                        "metadata": json.dumps(dict(chunk.metadata)),
                        "written_at": now,
                        "vector": chunk.vector,
                    }
                    for chunk in part
                ]
                table.add(pa.Table.from_pylist(rows, schema=self._schema()))
                count += len(part)
        return count

    def switch(self, document: str, generation: str) -> None:
        """See `VectorStore`."""
        self._prepare()
        with self._explained(), self._lock:
            where = f"document = {_quoted(document)} AND generation = {_quoted(generation)}"
            if not self._tables[VECTORS].count_rows(where):
                raise LookupError(f"nothing of {generation} was written for {document}")
            merge = self._tables[GENERATIONS].merge_insert("document")
            merge.when_matched_update_all().when_not_matched_insert_all().execute(
                [{"document": document, "generation": generation}]
            )

    def prune(self, document: str) -> int:
        """See `VectorStore`."""
        if not self._made():
            return 0
        with self._explained(), self._lock:
            where = f"document = {_quoted(document)}"
            current = self._pointers({document}).get(document)
            if current is not None:
                where += f" AND generation != {_quoted(current)}"
            count = self._tables[VECTORS].count_rows(where)
            if count:
                self._tables[VECTORS].delete(where)
            return int(count)

    def delete(self, documents: Sequence[str]) -> int:
        """See `VectorStore`."""
        if not self._made() or not documents:
            return 0
        with self._explained(), self._lock:
            where = f"document IN ({', '.join(map(_quoted, documents))})"
            there = self._tables[VECTORS].search().where(where).select(["document"]).limit(_ALL).to_arrow()
            self._tables[GENERATIONS].delete(where)
            self._tables[VECTORS].delete(where)
            return len(set(there["document"].to_pylist()))

    def current(self, document: str) -> Generation | None:
        """See `VectorStore`."""
        name = self._pointers({document}).get(document) if self._made() else None
        if name is None:
            return None
        with self._explained():
            where = f"document = {_quoted(document)} AND generation = {_quoted(name)}"
            count = self._tables[VECTORS].count_rows(where)
        return Generation(document, name, count) if count else None

    def vectors(self, document: str, hashes: Sequence[str]) -> dict[str, Vector]:
        """See `VectorStore`."""
        name = self._pointers({document}).get(document) if self._made() else None
        if name is None:
            return {}
        with self._explained():
            where = f"document = {_quoted(document)} AND generation = {_quoted(name)}"
            rows = self._tables[VECTORS].search().where(where).select(["hash", "vector"]).limit(_ALL).to_list()
        wanted = set(hashes)
        return {row["hash"]: list(row["vector"]) for row in rows if row["hash"] in wanted}

    def documents(self) -> Iterator[StoredDocument]:
        """See `VectorStore`; the ids are in memory, the rest is not."""
        if not self._made():
            return
        found: dict[str, tuple[int, datetime]] = {}
        with self._explained():
            columns = ["document", "written_at"]
            for batch in self._tables[VECTORS].search().select(columns).limit(_ALL).to_batches():
                for name, moment in zip(batch["document"].to_pylist(), batch["written_at"].to_pylist(), strict=True):
                    count, newest = found.get(name, (0, moment))
                    found[name] = (count + 1, max(newest, moment))
        for name in sorted(found, key=str.encode):
            yield StoredDocument(name, *found[name])

    def count(self, document: str | None = None) -> int:
        """See `VectorStore`."""
        if document is not None:
            current = self.current(document)
            return current.chunks if current else 0
        if not self._made():
            return 0
        with self._explained():
            pointers = self._tables[GENERATIONS].search().limit(_ALL).to_list()
            rows = self._tables[VECTORS].search().select(["document", "generation"]).limit(_ALL).to_arrow()
        names = {(row["document"], row["generation"]) for row in pointers}
        pairs = zip(rows["document"].to_pylist(), rows["generation"].to_pylist(), strict=True)
        return sum(pair in names for pair in pairs)

    def search(self, vector: Vector, limit: int = 10) -> list[Hit]:
        """See `VectorStore`."""
        if not self._made():
            return []

        def find(count: int) -> list[Candidate]:
            with self._explained():
                rows = self._tables[VECTORS].search(vector).distance_type("cosine").limit(count).to_list()
            return [
                Candidate(
                    Hit(
                        row["document"],
                        row["position"],
                        row["content"],
                        1 - row["_distance"],
                        json.loads(row["metadata"]),
                    ),
                    row["generation"],
                )
                for row in rows
            ]

        return settled_search(find, self._pointers, limit)

    def close(self) -> None:
        """See `VectorStore`."""
        self._tables.clear()

    def _pointers(self, documents: set[str]) -> dict[str, str]:
        if not documents or not self._made():
            return {}
        with self._explained():
            where = f"document IN ({', '.join(map(_quoted, sorted(documents)))})"
            rows = self._tables[GENERATIONS].search().where(where).limit(_ALL).to_list()
        return {row["document"]: row["generation"] for row in rows}

    def _made(self) -> bool:
        """Whether the tables are there; if so, they are of our space."""
        if self._tables:
            return True
        with self._explained(), self._lock:
            names = set(self._database.list_tables().tables)
            if not {VECTORS, GENERATIONS, SPACE} <= names:
                return False
            row = self._database.open_table(SPACE).search().limit(1).to_list()[0]
            found = Space(row["model"], row["dimension"])
            if found != self._space:
                raise ConfigurationError(
                    f"{self.label} holds vectors of {found.model} ({found.dimension} dimensions), not of"
                    f" {self._space.model} ({self._space.dimension})",
                    hint="set EMBEDDING_MODEL back; or remove the folder and run"
                    " `housekeeping sync-watched-documents --force`",
                )
            self._tables = {name: self._database.open_table(name) for name in (VECTORS, GENERATIONS)}
            return True

    def _prepare(self) -> None:
        """Make what is not there; the table of the space last, so that it says that all is there."""
        import pyarrow as pa

        with self._lock:
            if self._made():
                return
            with self._explained():
                text = pa.string()
                pointers = pa.schema([("document", text), ("generation", text)])
                self._database.create_table(VECTORS, schema=self._schema(), exist_ok=True)
                self._database.create_table(GENERATIONS, schema=pointers, exist_ok=True)
                about = [{"model": self._space.model, "dimension": self._space.dimension}]
                self._database.create_table(SPACE, about, exist_ok=True)
            self._made()

    def _schema(self) -> Any:
        import pyarrow as pa

        text = pa.string()
        return pa.schema(
            [
                ("document", text),
                ("generation", text),
                ("position", pa.int32()),
                ("hash", text),
                ("content", text),
                ("metadata", text),
                ("written_at", pa.timestamp("us", tz="UTC")),
                ("vector", pa.list_(pa.float32(), self._space.dimension)),
            ]
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise ConfigurationError(f"{self.label} may not be used: {error}", hint="look at its owner") from None
        except (OSError, RuntimeError) as error:
            raise Unavailable(f"{self.label}: {error}"[:300]) from None


# LanceDB's own limit is ten rows where none is said.
_ALL = 2**31 - 1


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
