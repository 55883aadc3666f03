"""Vectors in a folder, with LanceDB.

A generation is added in one commit, so that it is complete or absent even if the process is killed. Lance refuses some
concurrent changes, and creating a table may overwrite one that another process created: every writer therefore holds an
exclusive lock on a file. Lance never modifies its files: deleted rows stay in old versions until `close` removes those.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.atomic_files import make_folder
from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import ConfigurationError, Unavailable
from housekeeping_pipelines.resources.vector_store import Generation, Hit, Space, StoredDocument
from housekeeping_pipelines.resources.vector_store.checking import (
    check_ids,
    check_space,
    check_vector,
    of_another_space,
    sanitized,
)
from housekeeping_pipelines.resources.vector_store.consistent_search import Candidate, consistent_search

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from housekeeping_pipelines.resources.vector_store import Chunk, Vector

LOCK = ".lock"
VECTORS, GENERATIONS, SPACE = "document_vectors", "document_generations", "vector_space"

_WRITE_BATCH_SIZE = 500
_DELETE_BATCH_SIZE = 500
# Longer than any reader uses a version.
KEPT_VERSIONS = timedelta(hours=1)

logger = logging.getLogger(__name__)


class LanceStore:
    """Vectors in tables of a folder. See `VectorStore`."""

    def __init__(self, folder: Path, space: Space, *, kept_versions: timedelta = KEPT_VERSIONS) -> None:
        """
        Args:
            kept_versions: how long an overwritten version stays readable.

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
        self._folder, self._space, self._kept_versions = folder, space, kept_versions
        self._tables: dict[str, Any] = {}
        self._changed: set[str] = set()
        with self._errors_translated():
            # Every read sees the writes of all processes.
            self._database = lancedb.connect(str(folder), read_consistency_interval=timedelta(0))
        self._lock = threading.RLock()

    @property
    def label(self) -> str:
        return f"LanceDB in {self._folder}"

    def check(self) -> None:
        """See `VectorStore`; a missing folder is created by the first write."""
        self._exists()

    def write(self, document: str, generation: str, chunks: Iterable[Chunk]) -> int:
        """See `VectorStore`."""
        import pyarrow as pa

        check_ids(document, generation)
        self._create_missing()
        count, rest = 0, iter(chunks)
        now, schema = utc_now(), self._schema()
        raised: list[Exception] = []

        def batches() -> Iterator[Any]:
            nonlocal count
            try:
                while part := list(islice(rest, _WRITE_BATCH_SIZE)):
                    rows = [self._row(document, generation, sanitized(chunk, self._space), now) for chunk in part]
                    yield pa.RecordBatch.from_pylist(rows, schema=schema)
                    count += len(part)
            except Exception as error:
                # Lance would replace the error by one of its own.
                raised.append(error)
                raise

        try:
            with self._errors_translated(), self._exclusive_lock():
                if self._pointers({document}).get(document) == generation:
                    raise ValueError(f"{generation} is current of {document}")
                self._delete(VECTORS, f"document = {_quoted(document)} AND generation = {_quoted(generation)}")
                self._tables[VECTORS].add(pa.RecordBatchReader.from_batches(schema, batches()))
                self._changed.add(VECTORS)
        except Exception:
            if raised:
                raise raised[0] from None
            raise
        return count

    @staticmethod
    def _row(document: str, generation: str, chunk: Chunk, now: datetime) -> dict[str, Any]:
        return {
            "document": document,
            "generation": generation,
            "position": chunk.position,
            "hash": chunk.hash,
            "content": chunk.text,
            "metadata": json.dumps(dict(chunk.metadata)),
            "written_at": now,
            "vector": chunk.vector,
        }

    def switch(self, document: str, generation: str) -> None:
        """See `VectorStore`."""
        check_ids(document, generation)
        self._create_missing()
        with self._errors_translated(), self._exclusive_lock():
            where = f"document = {_quoted(document)} AND generation = {_quoted(generation)}"
            if not self._tables[VECTORS].count_rows(where):
                raise LookupError(f"nothing of {generation} was written for {document}")
            merge = self._tables[GENERATIONS].merge_insert("document")
            merge.when_matched_update_all().when_not_matched_insert_all().execute(
                [{"document": document, "generation": generation}]
            )
            self._changed.add(GENERATIONS)

    def prune(self, document: str) -> int:
        """See `VectorStore`."""
        check_ids(document)
        if not self._exists():
            return 0
        with self._errors_translated(), self._exclusive_lock():
            where = f"document = {_quoted(document)}"
            current = self._pointers({document}).get(document)
            if current is not None:
                where += f" AND generation != {_quoted(current)}"
            return self._delete(VECTORS, where)

    def delete(self, documents: Sequence[str]) -> int:
        """See `VectorStore`."""
        check_ids(*documents)
        if not self._exists():
            return 0
        ids = sorted(set(documents))
        return sum(self._delete_all(ids[at : at + _DELETE_BATCH_SIZE]) for at in range(0, len(ids), _DELETE_BATCH_SIZE))

    def _delete_all(self, documents: list[str]) -> int:
        with self._errors_translated(), self._exclusive_lock():
            where = f"document IN ({', '.join(map(_quoted, documents))})"
            there = self._tables[VECTORS].search().where(where).select(["document"]).limit(_ALL).to_arrow()
            self._delete(GENERATIONS, where)
            self._delete(VECTORS, where)
            return len(set(there["document"].to_pylist()))

    def _delete(self, table: str, where: str) -> int:
        """Delete rows, if there are any: an empty deletion would create a version too."""
        count = int(self._tables[table].count_rows(where))
        if count:
            self._tables[table].delete(where)
            self._changed.add(table)
        return count

    def current(self, document: str) -> Generation | None:
        """See `VectorStore`."""
        check_ids(document)
        name = self._pointers({document}).get(document)
        if name is None:
            return None
        with self._errors_translated():
            where = f"document = {_quoted(document)} AND generation = {_quoted(name)}"
            count = self._tables[VECTORS].count_rows(where)
        return Generation(document, name, count) if count else None

    def vectors(self, document: str, hashes: Sequence[str]) -> dict[str, Vector]:
        """See `VectorStore`."""
        check_ids(document, *hashes)
        name = self._pointers({document}).get(document)
        if name is None:
            return {}
        with self._errors_translated():
            where = f"document = {_quoted(document)} AND generation = {_quoted(name)}"
            rows = self._tables[VECTORS].search().where(where).select(["hash", "vector"]).limit(_ALL).to_list()
        wanted = set(hashes)
        return {row["hash"]: list(row["vector"]) for row in rows if row["hash"] in wanted}

    def documents(self) -> Iterator[StoredDocument]:
        """See `VectorStore`; only the ids are held in memory."""
        if not self._exists():
            return
        found: dict[str, tuple[int, datetime]] = {}
        with self._errors_translated():
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
        if not self._exists():
            return 0
        with self._errors_translated():
            pointers = self._tables[GENERATIONS].search().limit(_ALL).to_list()
            rows = self._tables[VECTORS].search().select(["document", "generation"]).limit(_ALL).to_arrow()
        names = {(row["document"], row["generation"]) for row in pointers}
        pairs = zip(rows["document"].to_pylist(), rows["generation"].to_pylist(), strict=True)
        return sum(pair in names for pair in pairs)

    def search(self, vector: Vector, limit: int = 10) -> list[Hit]:
        """See `VectorStore`."""
        check_vector(vector, self._space)
        if not self._exists():
            return []

        def find(count: int) -> list[Candidate]:
            with self._errors_translated():
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

        return consistent_search(find, self._pointers, limit)

    def close(self) -> None:
        """See `VectorStore`; removes deleted rows from the disk."""
        try:
            if self._changed:
                with self._exclusive_lock():
                    for name in sorted(self._changed):
                        self._tables[name].optimize(cleanup_older_than=self._kept_versions)
        except (OSError, RuntimeError) as error:
            # All data is written; the next `close` tries again.
            logger.debug("%s is not compacted: %s", self.label, error)
        self._changed.clear()
        self._tables.clear()

    def _pointers(self, documents: set[str]) -> dict[str, str]:
        if not documents or not self._exists():
            return {}
        with self._errors_translated():
            where = f"document IN ({', '.join(map(_quoted, sorted(documents)))})"
            rows = self._tables[GENERATIONS].search().where(where).limit(_ALL).to_list()
        return {row["document"]: row["generation"] for row in rows}

    def _exists(self) -> bool:
        """Whether the tables exist; if so, they are of our space."""
        if self._tables:
            return True
        with self._errors_translated(), self._lock:
            if not self._folder.is_dir():
                return False
            try:
                row = self._database.open_table(SPACE).search().limit(1).to_list()[0]
            except (ValueError, FileNotFoundError, IndexError):
                return False
            found = Space(row["model"], row["dimension"])
            check_space(self.label, found, self._space, self._how_to_recreate)
            self._tables = {name: self._database.open_table(name) for name in (VECTORS, GENERATIONS)}
            return True

    @property
    def _how_to_recreate(self) -> str:
        return f"remove the folder {self._folder}"

    def _create_missing(self) -> None:
        """Create missing tables; the table of the space comes last and marks the others as complete."""
        import pyarrow as pa

        if self._exists():
            return
        with self._errors_translated():
            make_folder(self._folder)
            with self._exclusive_lock():
                if self._exists():
                    return
                text = pa.string()
                pointers = pa.schema([("document", text), ("generation", text)])
                try:
                    self._database.create_table(VECTORS, schema=self._schema(), exist_ok=True)
                except ValueError:
                    if self._database.open_table(VECTORS).count_rows():
                        what = f"{self.label} holds vectors of another dimension"
                        raise of_another_space(what, self._how_to_recreate) from None
                    # An empty table of another dimension: its creator was interrupted before the first write.
                    self._database.drop_table(VECTORS)
                    self._database.create_table(VECTORS, schema=self._schema())
                self._database.create_table(GENERATIONS, schema=pointers, exist_ok=True)
                about = [{"model": self._space.model, "dimension": self._space.dimension}]
                self._database.create_table(SPACE, about, exist_ok=True)
                self._exists()

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
    def _errors_translated(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise ConfigurationError(
                f"{self.label} is not accessible: {error}", hint="check its owner and permissions"
            ) from None
        except (OSError, RuntimeError) as error:
            # Its errors end with a line number of its source.
            said = " ".join(_SOURCE.sub("", str(error)).split())
            raise Unavailable(f"{self.label}: {said}"[:300]) from None

    @contextmanager
    def _exclusive_lock(self) -> Iterator[None]:
        """Exclude all other writers, threads and processes; not reentrant."""
        with self._lock, (self._folder / LOCK).open("a") as file:
            # The lock ends when the file is closed, or with the process.
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


_SOURCE = re.compile(r",?\s/\S+\.rs:\d+(:\d+)?")
# LanceDB returns ten rows if no limit is given.
_ALL = 2**31 - 1


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
