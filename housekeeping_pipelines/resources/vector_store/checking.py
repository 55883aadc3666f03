"""Checks and replacements that all stores share, so that moving to another store changes nothing.

PostgreSQL cannot store NUL, and UTF-8 cannot encode a lone surrogate. An id that contains one is refused, since a
different id would be a different document; in texts and metadata U+FFFD replaces them.
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
        ValueError: one of them cannot be stored.
    """
    for each in ids:
        if _UNSTORABLE.search(each):
            raise ValueError(f"{each!r} is not a valid id: it contains NUL or a lone surrogate")


def check_vector(vector: Vector, space: Space) -> None:
    """
    Raises:
        ValueError: it is of another dimension, or has a value that is not finite.
    """
    if len(vector) != space.dimension:
        raise ValueError(f"a vector of {len(vector):,} dimensions, where {space.model} has {space.dimension:,}")
    if not math.isfinite(math.fsum(vector)):
        raise ValueError("a vector with a value that is not finite")


def check_space(label: str, found: Space, wanted: Space, recreate: str) -> None:
    """
    Args:
        label: the store's.
        recreate: how to recreate the store, as a part of a sentence.

    Raises:
        ConfigurationError: the store holds vectors of another model or dimension.
    """
    if found != wanted:
        raise of_another_space(
            f"{label} holds vectors of {found.model} ({found.dimension} dimensions), not of"
            f" {wanted.model} ({wanted.dimension})",
            recreate,
        )


def of_another_space(what: str, recreate: str) -> ConfigurationError:
    """The error; its hint says how to go back and how to recreate the store."""
    return ConfigurationError(
        what, hint=f"set EMBEDDING_MODEL back; or {recreate} and run `housekeeping sync-watched-documents --force`"
    )


def sanitized(chunk: Chunk, space: Space) -> Chunk:
    """The chunk with what no store can hold replaced.

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
