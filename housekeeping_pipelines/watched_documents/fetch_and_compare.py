"""Fetches a watched document, compares it, and writes a generation of vectors that no search sees yet.

This runs in many threads at the same time: it changes nothing that a reader sees. `publishing` publishes the result.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.resources.embedder import TextRefused
from housekeeping_pipelines.resources.vector_store import Chunk
from housekeeping_pipelines.watched_documents.chunking import content_hash, split
from housekeeping_pipelines.watched_documents.review import reject_reason
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Unchanged
from housekeeping_pipelines.watched_documents.sources.references import parse_reference
from housekeeping_pipelines.watched_documents.texts import TextFileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from housekeeping_pipelines.resources.embedder import Embedder
    from housekeeping_pipelines.resources.vector_store import Vector, VectorStore
    from housekeeping_pipelines.watched_documents.queue import Entry
    from housekeeping_pipelines.watched_documents.sources import Outcome, Source, State
    from housekeeping_pipelines.watched_documents.texts import Texts

logger = logging.getLogger(__name__)

# About 4,000 chunks; a longer page is not made to be read, and would fill the store.
MAX_TEXT_CHARACTERS = 5_000_000

Kind = Literal["updated", "unchanged", "held", "gone", "failed"]


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The result of fetching and comparing a document.

    Attributes:
        hash: of the new text; None if there is no new text.
        old, text: the current text and the new one, if they differ.
        state: of the source; replaces the stored one.
        generation, published: of the vectors that were written and are not current yet.
        reason: why the document is held, gone or failed; or a note about an update.
    """

    entry: Entry
    kind: Kind
    reason: str = ""
    hash: str | None = None
    text: str | None = None
    old: str | None = None
    title: str | None = None
    state: State | None = None
    generation: str | None = None
    published: str | None = None
    bytes: int = 0
    chunks_embedded: int = 0
    chunks_reused: int = 0
    failure: Failed | None = None


@dataclass(frozen=True)
class DocumentFetcher:
    """Fetches and compares watched documents; it may be used by many threads at once."""

    source: Source
    store: VectorStore
    embedder: Embedder
    texts: Texts
    clock: Callable[[], datetime]
    dry_run: bool = False

    def fetch_and_compare(self, entry: Entry) -> FetchResult:
        """Fetch and compare a document; where it changed, embed what is new and write a generation for every copy.

        Raises:
            HousekeepingError: the embedder or the vector store is not usable, which is not the document's fault.
        """
        try:
            return self._examine(entry)
        except (TextRefused, TextFileError) as error:
            return _failed(entry, str(error))

    def _examine(self, entry: Entry) -> FetchResult:
        known = entry.known
        for copy in entry.copies:
            self.texts.check_path(copy.docpath)
        outcome = self._fetch(entry, known.fetch_state if known.content_hash is not None else None)
        in_place = self._in_place(entry) if isinstance(outcome, Content | Unchanged) else False
        fetched = getattr(outcome, "bytes", 0)
        if isinstance(outcome, Unchanged):
            if in_place:
                return FetchResult(entry, "unchanged", hash=known.content_hash, state=outcome.state, bytes=fetched)
            # A run was interrupted, or a copy is new: fetch the whole to complete it.
            outcome = self._fetch(entry, None)
            fetched += getattr(outcome, "bytes", 0)
        if isinstance(outcome, Gone):
            return FetchResult(entry, "gone", outcome.reason)
        if isinstance(outcome, Unchanged):
            outcome = Failed("the source answers that nothing changed to an unconditional request")
        if isinstance(outcome, Failed):
            return _failed(entry, outcome.reason, outcome)
        return self._compare(entry, outcome, fetched, in_place=in_place)

    def _fetch(self, entry: Entry, previous: State | None) -> Outcome:
        if not entry.reference:
            return Failed("its metadata has no chunkSource, which says where it comes from")
        try:
            return self.source.fetch(parse_reference(entry.reference), previous)
        except ConfigurationError as error:
            return Failed(error.one_line)
        except Exception as error:
            # A third-party source must not end the run for the other documents.
            logger.exception("%s: its source failed", entry.name)
            return Failed(f"its source failed: {type(error).__name__}: {error}"[:500])

    def _in_place(self, entry: Entry) -> bool:
        """Whether every copy has the vectors of the last sync."""
        if entry.known.generation is None:
            return False
        for copy in entry.copies:
            found = self.store.current(copy.doc_id)
            if found is None or found.name != entry.known.generation:
                return False
        return True

    def _compare(self, entry: Entry, content: Content, fetched: int, *, in_place: bool) -> FetchResult:
        known, text = entry.known, _clean(content.text)
        if not text.strip() and known.content_hash is None:
            return _failed(entry, "the source has no text")
        if len(text) > MAX_TEXT_CHARACTERS:
            return _failed(entry, f"its text has {len(text):,} characters, more than {MAX_TEXT_CHARACTERS:,}")
        digest = content_hash(text)
        if digest == known.rejected_hash:
            # The stored state remains the one of the stored text.
            return FetchResult(entry, "unchanged", "the text that was rejected", hash=known.content_hash, bytes=fetched)
        if digest == known.content_hash and in_place:
            return FetchResult(entry, "unchanged", hash=digest, state=content.state, bytes=fetched)
        old = self._old_text(entry)
        same = old is not None and old == text
        reason = None if same or digest in (known.accepted_hash, known.content_hash) else reject_reason(text, old)
        if not text.strip() and reason is None:
            return _failed(entry, "the source has no text")
        if reason is not None:
            return FetchResult(entry, "held", reason, hash=digest, text=text, old=old, bytes=fetched)
        published = known.published if digest == known.content_hash else None
        published = published or self.clock().isoformat(timespec="milliseconds")
        generation = f"{digest[:32]}@{published}"
        embedded, reused = (0, 0) if self.dry_run else self._write(entry, generation, published, content.title, text)
        return FetchResult(
            entry,
            "updated",
            "its vectors were created" if same else "",
            hash=digest,
            text=text,
            old=old,
            title=content.title,
            state=content.state,
            generation=generation,
            published=published,
            bytes=fetched,
            chunks_embedded=embedded,
            chunks_reused=reused,
        )

    def _old_text(self, entry: Entry) -> str | None:
        try:
            return self.texts.read(entry.copies[0].docpath)
        except TextFileError as error:
            # An unreadable text is lost; the new one replaces it.
            logger.warning("%s: %s", entry.name, error)
            return None

    def _write(self, entry: Entry, generation: str, published: str, title: str | None, text: str) -> tuple[int, int]:
        """Write a generation for every copy from the same vectors; returns the embedded and the reused chunks."""
        parts = split(text)
        vectors: dict[str, Vector] = {}
        current = {copy.doc_id: self.store.current(copy.doc_id) for copy in entry.copies}
        for doc_id in (name for name, generation in current.items() if generation is not None):
            if missing := list({part.hash for part in parts} - vectors.keys()):
                vectors |= self.store.vectors(doc_id, missing)
        fresh = {part.hash: part.text for part in parts if part.hash not in vectors}
        if fresh:
            vectors |= dict(zip(fresh, self.embedder.embed(list(fresh.values())), strict=True))
        about = {"published": published, "title": title or entry.filename, "chunkSource": entry.reference}
        written = 0
        for doc_id, there in current.items():
            chunks = (
                Chunk(position, part.text, part.hash, vectors[part.hash], {**about, "filename": entry.filename})
                for position, part in enumerate(parts)
            )
            if there is None or there.name != generation:
                written += self.store.write(doc_id, generation, chunks)
        return len(fresh), max(written - len(fresh), 0)


def _clean(text: str) -> str:
    """The text without characters that PostgreSQL and UTF-8 cannot store, with `\\n` as line ends."""
    plain = text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    return plain.encode(errors="replace").decode()


def _failed(entry: Entry, reason: str, failure: Failed | None = None) -> FetchResult:
    return FetchResult(entry, "failed", reason, failure=failure or Failed(reason))
