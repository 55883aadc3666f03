"""The vectors of documents: one protocol, one file a store.

A document's vectors are written as a *generation* that no search sees, and then switched to: a search finds the old
generation or the new one of a document, never both and never neither. The next `prune` deletes what an interrupted run
left behind.

    VectorStore     what every store does
    Chunk           what is written
    Hit             what is found
    Generation      the current one of a document
    StoredDocument  what `documents` lists
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

Vector = list[float]


@dataclass(frozen=True, slots=True)
class Space:
    """The model and the dimension of vectors; only vectors of one space can be compared."""

    model: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document.

    Attributes:
        hash: SHA-256 of the text, in hexadecimal.
    """

    position: int
    text: str
    hash: str
    vector: Vector
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that a search found; `score` is the cosine similarity, -1 to 1."""

    document: str
    position: int
    text: str
    score: float
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Generation:
    """The current generation of a document, which searches find."""

    document: str
    name: str
    chunks: int


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document that has vectors, current or not; `written_at` is of the newest."""

    document: str
    chunks: int
    written_at: datetime


class VectorStore(Protocol):
    """The vectors of all documents of one space. It may be used by many threads at once.

    Every method raises `Unavailable` if the store does not answer, and `ConfigurationError` if it is of another space,
    missing, or not accessible. It raises `ValueError` for an id that contains NUL or a lone surrogate, and for a vector
    of another dimension or with a value that is not finite. In texts and metadata, U+FFFD replaces such characters.
    """

    @property
    def label(self) -> str:
        """The store as messages name it, without secrets."""

    def check(self) -> None:
        """Check the store without changing it.

        Raises:
            ConfigurationError: it holds vectors of another model or dimension; the hint says what to do.
        """

    def write(self, document: str, generation: str, chunks: Iterable[Chunk]) -> int:
        """Write a whole generation, which no search finds yet; returns the number of chunks.

        The chunks are read as they are written. An error of the iterator is raised, and the incomplete generation can
        neither be found nor switched to.
        A generation of the same name that is not current is replaced. Writing to the current one raises `ValueError`.
        """

    def switch(self, document: str, generation: str) -> None:
        """Make a generation the current one, which searches find; idempotent.

        Raises:
            LookupError: nothing of this generation was written, or only a part (a document of no chunks is deleted, not
                switched).
        """

    def prune(self, document: str) -> int:
        """Delete every generation of the document but the current one; returns the number of deleted chunks."""

    def delete(self, documents: Sequence[str]) -> int:
        """Delete every generation of these documents; returns how many documents had one."""

    def current(self, document: str) -> Generation | None:
        """The current generation of a document; None if it has none."""

    def vectors(self, document: str, hashes: Sequence[str]) -> dict[str, Vector]:
        """The vectors of the current generation's chunks with these hashes, by hash; unknown hashes are left out."""

    def documents(self) -> Iterator[StoredDocument]:
        """Every document that has a generation, current or not, in the order of the ids' bytes.

        At most the ids are held in memory.
        """

    def count(self, document: str | None = None) -> int:
        """The number of chunks in current generations, of one document or of all."""

    def search(self, vector: Vector, limit: int = 10) -> list[Hit]:
        """The nearest chunks, the nearest first."""

    def close(self) -> None:
        """Close the connections."""
