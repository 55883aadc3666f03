"""The vectors of documents: one protocol, one file a store.

A document's vectors are written as a *generation* that no search sees, and then switched to: whoever searches finds the
old generation or the new one of a document, never both and never neither. What an interrupted run left behind is taken
away by the next `prune`.

    VectorStore     what every store does
    Chunk           what is written
    Hit             what is found
    Generation      what is current of a document
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
    """What two vectors must have in common to be compared."""

    model: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document.

    Attributes:
        hash: of the text, in hexadecimal.
    """

    position: int
    text: str
    hash: str
    vector: Vector
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found; `score` is the cosine similarity, -1 to 1."""

    document: str
    position: int
    text: str
    score: float
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Generation:
    """What a search finds of a document."""

    document: str
    name: str
    chunks: int


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document that has vectors, switched to or not; `written_at` is of the newest."""

    document: str
    chunks: int
    written_at: datetime


class VectorStore(Protocol):
    """The vectors of all documents of one space. It may be used by many threads at once.

    Every method raises `Unavailable` if the store does not answer and `ConfigurationError` if it is of another space,
    not there, or may not be used; and `ValueError` where it is given an id that holds NUL or half a surrogate pair, or
    a vector of another dimension or with what is no number. In texts and metadata U+FFFD takes the place of such
    characters.
    """

    @property
    def label(self) -> str:
        """What a person calls it; without secrets."""

    def check(self) -> None:
        """Look at the store without changing it.

        Raises:
            ConfigurationError: it holds vectors of another model or dimension; the hint says what to do.
        """

    def write(self, document: str, generation: str, chunks: Iterable[Chunk]) -> int:
        """Write a whole generation, which no search finds yet; returns the number of chunks.

        The chunks are read as they are written. If they end in an error, it is raised, and what is left of the
        generation can neither be found nor switched to.
        What is there of the same document and generation, and is not current, is replaced. Writing to the generation
        that is current raises `ValueError`.
        """

    def switch(self, document: str, generation: str) -> None:
        """Make a generation the one that searches find; it stays so if it is it already.

        Raises:
            LookupError: nothing of this generation was written, or only a part (a document of no chunks is deleted, not
                switched).
        """

    def prune(self, document: str) -> int:
        """Delete every generation of the document but the current one; returns the number of chunks that went."""

    def delete(self, documents: Sequence[str]) -> int:
        """Delete all that there is of these documents; returns how many of them had anything."""

    def current(self, document: str) -> Generation | None:
        """What searches find of a document; None if that is nothing."""

    def vectors(self, document: str, hashes: Sequence[str]) -> dict[str, Vector]:
        """The current generation's vectors of chunks with these hashes, as far as there are such."""

    def documents(self) -> Iterator[StoredDocument]:
        """Every document that has anything, switched to or not, in the order of the ids' bytes.

        At most the ids are in memory.
        """

    def count(self, document: str | None = None) -> int:
        """How many chunks searches can find, of one document or all."""

    def search(self, vector: Vector, limit: int = 10) -> list[Hit]:
        """The nearest chunks, the nearest first."""

    def close(self) -> None:
        """Let go of connections."""
