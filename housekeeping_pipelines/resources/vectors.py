"""The vector store and the embedder that the settings name; each is opened on first use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from housekeeping_pipelines.settings import reveal

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from housekeeping_pipelines.resources.embedder import Embedder
    from housekeeping_pipelines.resources.vector_store import VectorStore
    from housekeeping_pipelines.settings import Settings


@dataclass(frozen=True)
class Vectors:
    """Opens the embedder and the vector store."""

    settings: Settings

    @cached_property
    def embedder(self) -> Embedder:
        """
        Raises:
            ConfigurationError: the settings contradict each other.
        """
        from housekeeping_pipelines.resources.embedder.opening import open_embedder

        settings = self.settings
        key = reveal(settings.embedding_api_key)
        return open_embedder(settings.embedding_base_url, key, settings.embedding_model)

    def open(self, database: Callable[[], sa.Engine]) -> VectorStore:
        """The store, checked and unchanged; the caller closes it.

        Args:
            database: the platform's, which contains the default store.

        Raises:
            ConfigurationError: the store is missing, not accessible, or contains vectors of another model.
            Unavailable: the store or the embedding server does not answer.
        """
        from housekeeping_pipelines.resources.vector_store.opening import open_vector_store

        settings = self.settings
        store = open_vector_store(
            settings.vector_store_url,
            self.embedder.space,
            database=database,
            home=settings.housekeeping_home,
            api_key=reveal(settings.vector_store_api_key),
        )
        try:
            store.check()
        except BaseException:
            store.close()
            raise
        return store
