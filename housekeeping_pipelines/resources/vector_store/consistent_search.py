"""A consistent search over stores that cannot read pointers and vectors in one snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from housekeeping_pipelines.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from housekeeping_pipelines.resources.vector_store import Hit

# An attempt fails only if a document was switched during it; that many in a row are not chance.
ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk that was found, with the generation that it belongs to."""

    hit: Hit
    generation: str


def consistent_search(
    find: Callable[[int], list[Candidate]], pointers: Callable[[set[str]], dict[str, str]], limit: int
) -> list[Hit]:
    """The nearest chunks of current generations.

    A generation that is current both before and after a search was complete during it. The search is therefore repeated
    until the pointers of all documents that it found are the same before and after.

    Args:
        find: returns the nearest chunks of any generation, at most as many as it is given.
        pointers: returns the current generation of each document that has one.

    Raises:
        Unavailable: the vectors changed during every attempt.
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
            # Chunks of generations that are not current took up the result.
            wanted *= 4
        asked, known = documents, now
    raise Unavailable("the vectors changed during every attempt; search again")
