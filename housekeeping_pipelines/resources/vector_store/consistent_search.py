"""A search that sees one state of every document, where pointers and vectors are not read in one snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from housekeeping_pipelines.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from housekeeping_pipelines.resources.vector_store import Hit

# Every attempt that fails saw a document being switched; so many in a row are no chance.
ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk of any generation."""

    hit: Hit
    generation: str


def consistent_search(
    find: Callable[[int], list[Candidate]], pointers: Callable[[set[str]], dict[str, str]], limit: int
) -> list[Hit]:
    """The nearest chunks of current generations.

    A generation that is current before a search and after it was there, whole, while it ran: so it is searched until
    what the pointers say of all that was found is the same twice.

    Args:
        find: the nearest chunks of any generation, at most so many.
        pointers: the current generation of those of these documents that have one.

    Raises:
        Unavailable: it changed all the time.
    """
    wanted = 2 * limit + 10
    asked: set[str] = set()
    known: dict[str, str] = {}
    for _ in range(ATTEMPTS):
        found = find(wanted)
        documents = {each.hit.document for each in found}
        now = pointers(documents)
        if documents <= asked and all(now.get(each) == known.get(each) for each in documents):
            hits = [each.hit for each in found if now.get(each.hit.document) == each.generation]
            if len(hits) >= limit or len(found) < wanted:
                return hits[:limit]
            # Generations that are not current took the places.
            wanted *= 4
        asked, known = documents, now
    raise Unavailable("the vectors changed all the time; search again")
