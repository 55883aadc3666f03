"""What every store refuses or mends alike, so that whoever changes the store finds what was there before.

PostgreSQL holds no NUL and UTF-8 no lone surrogate. In an id they are refused, since another id would be another
document; in what is only shown, U+FFFD takes their place.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from housekeeping_pipelines.resources.vector_store import Chunk, Space, Vector

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def check_ids(*ids: str) -> None:
    """
    Raises:
        ValueError: one cannot be stored.
    """
    for each in ids:
        if _UNSTORABLE.search(each):
            raise ValueError(f"{each!r} cannot be an id: it holds NUL or half a surrogate pair")


def check_vector(vector: Vector, space: Space) -> None:
    """
    Raises:
        ValueError: it is of another dimension, or holds what is no number.
    """
    if len(vector) != space.dimension:
        raise ValueError(f"a vector of {len(vector):,} dimensions, where {space.model} has {space.dimension:,}")
    if not math.isfinite(math.fsum(vector)):
        raise ValueError("a vector with something that is no number")


def check_space(label: str, found: Space, wanted: Space, anew: str) -> None:
    """
    Args:
        label: the store's.
        anew: what to do to begin anew, as the middle of a sentence.

    Raises:
        ConfigurationError: the store holds vectors of another model or dimension.
    """
    if found != wanted:
        raise of_another_space(
            f"{label} holds vectors of {found.model} ({found.dimension} dimensions), not of"
            f" {wanted.model} ({wanted.dimension})",
            anew,
        )


def of_another_space(what: str, anew: str) -> ConfigurationError:
    """The error, with how to go back and how to begin anew."""
    return ConfigurationError(
        what, hint=f"set EMBEDDING_MODEL back; or {anew} and run `housekeeping sync-watched-documents --force`"
    )


def sanitized(chunk: Chunk, space: Space) -> Chunk:
    """The chunk as every store can hold it.

    Raises:
        ValueError: its vector or its hash cannot be stored.
    """
    check_vector(chunk.vector, space)
    check_ids(chunk.hash)
    text, metadata = _replace_surrogates(chunk.text), _replace_surrogates(dict(chunk.metadata))
    return chunk if text == chunk.text and metadata == chunk.metadata else replace(chunk, text=text, metadata=metadata)


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_replace_surrogates(name): _replace_surrogates(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_surrogates(each) for each in value]
    return value
