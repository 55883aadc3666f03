"""Vectors in Qdrant, through its own client.

A generation is written in several requests. Its last point stores the number of points: a generation without it, or
with fewer points, is incomplete and cannot be switched to.
"""

from __future__ import annotations

import threading
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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

    from housekeeping_pipelines.resources.vector_store import Chunk, Vector

COLLECTION = "housekeeping_documents"

_WRITE_BATCH_SIZE = 256
_READ_BATCH_SIZE = 1000
# The payload key of the number of chunks, in a generation's last point.
_TOTAL = "chunks"
TIMEOUT_SECONDS = 60

# Point ids are UUIDs derived from what the points stand for.
_NAMESPACE = uuid.UUID("6f3c7f0e-6f0b-5c0a-9d5e-2f1a3c4b5d6e")
# The point that stores the space; no document has this id.
_ABOUT = str(uuid.uuid5(_NAMESPACE, "\0"))


def connect(url: str, *, api_key: str | None = None) -> Any:
    """Qdrant's client.

    Raises:
        ConfigurationError: its package is not installed.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise ConfigurationError(
            "VECTOR_STORE_URL=qdrant://… needs the package qdrant-client",
            hint="pip install 'housekeeping-pipelines[qdrant]'",
        ) from None
    return QdrantClient(url=url, api_key=api_key, timeout=TIMEOUT_SECONDS, check_compatibility=False)


class QdrantStore:
    """Vectors in a collection, and in a second one which generation of each document is current. See `VectorStore`."""

    def __init__(self, client: Any, space: Space, *, collection: str = COLLECTION, where: str = "Qdrant") -> None:
        self._client, self._space, self._where = client, space, where
        self._collection, self._pointed = collection, f"{collection}_generations"
        self._ready = False
        # A thread must not prune what another is about to switch to; leases keep processes apart.
        self._lock = threading.RLock()

    @property
    def label(self) -> str:
        return f"collection {self._collection} of {self._where}"

    def check(self) -> None:
        """See `VectorStore`; missing collections are created by the first write."""
        self._ready = False
        self._exists()

    def write(self, document: str, generation: str, chunks: Iterable[Chunk]) -> int:
        """See `VectorStore`."""
        check_ids(document, generation)
        self._create_missing()
        count, rest = 0, iter(chunks)
        now = utc_now().timestamp()
        with self._lock:
            if self._pointers({document}).get(document) == generation:
                raise ValueError(f"{generation} is current of {document}")
            with self._errors_translated():
                self._client.delete(self._collection, points_selector=self._of(document, generation), wait=True)
        part = list(islice(rest, _WRITE_BATCH_SIZE))
        while part:
            following = list(islice(rest, _WRITE_BATCH_SIZE))
            count += len(part)
            points = [self._stored(document, generation, sanitized(chunk, self._space), now) for chunk in part]
            if not following:
                points[-1].payload[_TOTAL] = count
            with self._errors_translated():
                self._client.upsert(self._collection, points=points, wait=True)
            part = following
        return count

    @staticmethod
    def _stored(document: str, generation: str, chunk: Chunk, now: float) -> Any:
        from qdrant_client import models

        payload = {
            "document": document,
            "generation": generation,
            "position": chunk.position,
            "hash": chunk.hash,
            "content": chunk.text,
            "metadata": dict(chunk.metadata),
            "written_at": now,
        }
        name = _point(document, generation, str(chunk.position))
        return models.PointStruct(id=name, vector=chunk.vector, payload=payload)

    def switch(self, document: str, generation: str) -> None:
        """See `VectorStore`."""
        from qdrant_client import models

        check_ids(document, generation)
        self._create_missing()
        with self._errors_translated(), self._lock:
            if not self._is_complete(document, generation):
                raise LookupError(f"{generation} was not written, or not completely, for {document}")
            payload = {"document": document, "generation": generation}
            point = models.PointStruct(id=_point(document), vector=[1.0], payload=payload)
            self._client.upsert(self._pointed, points=[point], wait=True)

    def _is_complete(self, document: str, generation: str) -> bool:
        written = self._of(document, generation)
        totals = {
            each.payload[_TOTAL]
            for each in self._points(self._collection, written, fields=[_TOTAL])
            if each.payload.get(_TOTAL) is not None
        }
        with self._errors_translated():
            return self._client.count(self._collection, count_filter=written).count in totals

    def prune(self, document: str) -> int:
        """See `VectorStore`."""
        check_ids(document)
        if not self._exists():
            return 0
        with self._errors_translated(), self._lock:
            others = self._of(document, but=self._pointers({document}).get(document))
            count = self._client.count(self._collection, count_filter=others).count
            if count:
                self._client.delete(self._collection, points_selector=others, wait=True)
            return int(count)

    def delete(self, documents: Sequence[str]) -> int:
        """See `VectorStore`."""
        check_ids(*documents)
        if not self._exists():
            return 0
        gone = 0
        with self._errors_translated(), self._lock:
            for document in dict.fromkeys(documents):
                there = self._client.count(self._collection, count_filter=self._of(document)).count
                self._client.delete(self._pointed, points_selector=[_point(document)], wait=True)
                self._client.delete(self._collection, points_selector=self._of(document), wait=True)
                gone += bool(there)
        return gone

    def current(self, document: str) -> Generation | None:
        """See `VectorStore`."""
        check_ids(document)
        name = self._pointers({document}).get(document)
        if name is None:
            return None
        with self._errors_translated():
            count = self._client.count(self._collection, count_filter=self._of(document, name)).count
        return Generation(document, name, count) if count else None

    def vectors(self, document: str, hashes: Sequence[str]) -> dict[str, Vector]:
        """See `VectorStore`."""
        check_ids(document, *hashes)
        name = self._pointers({document}).get(document)
        if name is None:
            return {}
        wanted = set(hashes)
        points = self._points(self._collection, self._of(document, name), vectors=True)
        return {each.payload["hash"]: list(each.vector) for each in points if each.payload["hash"] in wanted}

    def documents(self) -> Iterator[StoredDocument]:
        """See `VectorStore`; only the ids are held in memory."""
        if not self._exists():
            return
        found: dict[str, tuple[int, float]] = {}
        for each in self._points(self._collection, None, fields=["document", "written_at"]):
            count, newest = found.get(each.payload["document"], (0, 0.0))
            found[each.payload["document"]] = (count + 1, max(newest, each.payload["written_at"]))
        for name in sorted(found, key=str.encode):
            count, newest = found[name]
            yield StoredDocument(name, count, datetime.fromtimestamp(newest, UTC))

    def count(self, document: str | None = None) -> int:
        """See `VectorStore`."""
        if document is not None:
            current = self.current(document)
            return current.chunks if current else 0
        if not self._exists():
            return 0
        pointers = self._points(self._pointed, None)
        names = {(each.payload.get("document"), each.payload.get("generation")) for each in pointers}
        points = self._points(self._collection, None, fields=["document", "generation"])
        return sum((each.payload["document"], each.payload["generation"]) in names for each in points)

    def search(self, vector: Vector, limit: int = 10) -> list[Hit]:
        """See `VectorStore`."""
        check_vector(vector, self._space)
        if not self._exists():
            return []

        def find(count: int) -> list[Candidate]:
            with self._errors_translated():
                points = self._client.query_points(
                    self._collection, query=vector, limit=count, with_payload=True
                ).points
            return [
                Candidate(
                    Hit(
                        p.payload["document"],
                        p.payload["position"],
                        p.payload["content"],
                        p.score,
                        p.payload["metadata"],
                    ),
                    p.payload["generation"],
                )
                for p in points
            ]

        return consistent_search(find, self._pointers, limit)

    def close(self) -> None:
        """See `VectorStore`."""
        self._client.close()

    def _pointers(self, documents: set[str]) -> dict[str, str]:
        if not documents or not self._exists():
            return {}
        with self._errors_translated():
            points = self._client.retrieve(self._pointed, ids=[_point(each) for each in documents])
        return {point.payload["document"]: point.payload["generation"] for point in points}

    def _points(
        self, collection: str, wanted: Any, *, fields: list[str] | bool = True, vectors: bool = False
    ) -> Iterator[Any]:
        offset: Any = None
        while True:
            with self._errors_translated():
                points, offset = self._client.scroll(
                    collection, scroll_filter=wanted, limit=_READ_BATCH_SIZE, offset=offset, with_payload=fields,
                    with_vectors=vectors,
                )  # fmt: skip
            yield from points
            if offset is None:
                return

    def _of(self, document: str, generation: str | None = None, *, but: str | None = None) -> Any:
        from qdrant_client import models

        def matches(name: str, value: str) -> Any:
            return models.FieldCondition(key=name, match=models.MatchValue(value=value))

        must = [matches("document", document)]
        if generation is not None:
            must.append(matches("generation", generation))
        return models.Filter(must=must, must_not=[matches("generation", but)] if but is not None else None)

    def _exists(self) -> bool:
        """Whether the collections exist; if so, they are of our space."""
        if self._ready:
            return True
        with self._errors_translated():
            if not (self._client.collection_exists(self._pointed) and self._client.collection_exists(self._collection)):
                return False
            about = self._client.retrieve(self._pointed, ids=[_ABOUT])
            if not about:
                return False
        found = Space(about[0].payload["model"], about[0].payload["dimension"])
        check_space(self.label, found, self._space, self._how_to_recreate)
        self._ready = True
        return True

    @property
    def _how_to_recreate(self) -> str:
        return f"delete the collections {self._collection} and {self._pointed}"

    def _create_missing(self) -> None:
        """Create missing collections; the point of the space comes last and marks the others as complete."""
        with self._lock:
            if not self._exists():
                self._create()

    def _create(self) -> None:
        from qdrant_client import models

        with self._errors_translated():
            sizes = {self._collection: self._space.dimension, self._pointed: 1}
            for name, size in sizes.items():
                there = self._client.collection_exists(name)
                if there and self._client.get_collection(name).config.params.vectors.size != size:
                    if self._client.count(name).count:
                        what = f"{name} of {self._where} is of another dimension than {size}"
                        raise of_another_space(what, self._how_to_recreate)
                    # Empty: its creator was interrupted before the first write.
                    self._client.delete_collection(name)
                    there = False
                if not there:
                    parameters = models.VectorParams(size=size, distance=models.Distance.COSINE)
                    self._client.create_collection(name, vectors_config=parameters)
                for key in ("document", "generation"):
                    self._client.create_payload_index(name, key, models.PayloadSchemaType.KEYWORD)
            payload = {"model": self._space.model, "dimension": self._space.dimension}
            self._client.upsert(
                self._pointed, points=[models.PointStruct(id=_ABOUT, vector=[1.0], payload=payload)], wait=True
            )
        self._exists()

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            yield
        except UnexpectedResponse as error:
            if error.status_code in (401, 403):
                raise ConfigurationError(
                    f"{self.label} answers {error.status_code}", hint="check VECTOR_STORE_API_KEY"
                ) from None
            raise Unavailable(f"{self.label} answers {error.status_code}") from None
        except ResponseHandlingException:
            raise Unavailable(f"{self.label} does not answer") from None
        except QdrantException as error:
            raise Unavailable(f"{self.label}: {error}"[:300]) from None
        except (AssertionError, AttributeError, TypeError, ValueError):
            # The client assumes that the server is Qdrant.
            raise Unavailable(f"{self.label} answers what cannot be read") from None


def _point(*parts: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, "\0".join(parts)))


def open_qdrant(url: str, space: Space, *, api_key: str | None = None) -> QdrantStore:
    """The store at an address of HTTP."""
    return QdrantStore(connect(url, api_key=api_key), space, where=f"Qdrant at {urlsplit(url).netloc}")
