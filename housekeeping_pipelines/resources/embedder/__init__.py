"""From texts to vectors: one protocol, an OpenAI-compatible server, and an offline stand-in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from housekeeping_pipelines.errors import HousekeepingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from housekeeping_pipelines.resources.vector_store import Space, Vector


class TextRefused(HousekeepingError):
    """The server refuses these texts; it may accept others."""


class Embedder(Protocol):
    """It may be used by many threads at once."""

    @property
    def space(self) -> Space:
        """The model and its dimension; a server is asked once for the dimension.

        Raises:
            Unavailable, ConfigurationError: as `embed`.
        """

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector of length 1 for each text, in their order.

        Raises:
            TextRefused: the server refuses these texts.
            Unavailable: the server does not answer in time.
            ConfigurationError: the server refuses the key, does not know the model, or answers in another dimension.
        """
