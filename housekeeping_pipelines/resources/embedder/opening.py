"""Opens the embedder that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from housekeeping_pipelines.resources.embedder import Embedder


def open_embedder(base_url: str | None, api_key: str | None, model: str | None) -> Embedder:
    """The embedder of a server, or the lexical one if neither a server nor a model is set.

    Raises:
        ConfigurationError: only one of them is set, or the package is not installed.
    """
    if base_url is None and model is None:
        from housekeeping_pipelines.resources.embedder.lexical import LexicalEmbedder

        return LexicalEmbedder()
    if base_url is None or model is None:
        missing = "EMBEDDING_BASE_URL" if base_url is None else "EMBEDDING_MODEL"
        raise ConfigurationError(f"{missing} is not set, and the other is", hint="set both, or neither")
    from housekeeping_pipelines.resources.embedder.openai_compatible import OpenAIEmbedder

    return OpenAIEmbedder(base_url, api_key, model)
