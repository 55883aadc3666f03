"""Embeddings of any server with OpenAI's `/embeddings` interface, through OpenAI's client."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from housekeeping_pipelines.errors import ConfigurationError, Unavailable
from housekeeping_pipelines.resources.embedder import TextRefused
from housekeeping_pipelines.resources.vector_store import Space

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from housekeeping_pipelines.resources.vector_store import Vector

# OpenAI accepts 2,048 texts and 300,000 tokens a request (its API reference); smaller servers accept fewer.
BATCH = 64
BATCH_CHARACTERS = 200_000
TIMEOUT_SECONDS = 60.0
# Of the client, with backoff and Retry-After, for transient errors.
RETRIES = 2


class OpenAIEmbedder:
    """A model of a server. See `Embedder`."""

    def __init__(
        self, base_url: str, api_key: str | None, model: str, *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        """
        Raises:
            ConfigurationError: the package openai is not installed.
        """
        try:
            import openai
        except ImportError:
            raise ConfigurationError(
                "EMBEDDING_BASE_URL needs the package openai", hint="pip install 'housekeeping-pipelines[openai]'"
            ) from None
        # Without the user and password that an address may have.
        self._host, self._model, self._key = urlsplit(base_url).netloc.rpartition("@")[2], model, api_key
        # Servers without keys require the header all the same.
        self._client = openai.OpenAI(
            base_url=base_url, api_key=api_key or "none", timeout=timeout_seconds, max_retries=RETRIES
        )
        self._space: Space | None = None
        self._lock = threading.Lock()

    @property
    def space(self) -> Space:
        """See `Embedder`."""
        with self._lock:
            if self._space is None:
                self._space = Space(self._model, len(self._request(["dimension"])[0]))
            return self._space

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """See `Embedder`."""
        dimension = self.space.dimension
        vectors = [vector for batch in _batches(texts) for vector in self._request(batch)]
        if any(len(vector) != dimension for vector in vectors):
            raise ConfigurationError(
                f"{self._model} at {self._host} answers in another dimension than {dimension}",
                hint="check EMBEDDING_MODEL and its server",
            )
        return vectors

    def _request(self, texts: list[str]) -> list[Vector]:
        import openai

        try:
            answer = self._client.embeddings.create(input=texts, model=self._model, encoding_format="float")
            found = sorted(answer.data, key=lambda each: each.index)
            vectors = [_normalised(each.embedding) for each in found]
        except openai.APIStatusError as error:
            raise self._as_error(error) from None
        except openai.APIConnectionError as error:
            late = isinstance(error, openai.APITimeoutError)
            raise Unavailable(f"embeddings: {self._host} {'is too slow' if late else 'does not answer'}") from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            raise Unavailable(self._safe_message(f"{self._host} answers what cannot be read: {error}")) from None
        if len(vectors) != len(texts) or [each.index for each in found] != list(range(len(texts))):
            raise Unavailable(f"embeddings: {self._host} answers {len(vectors)} vectors for {len(texts)} texts")
        return vectors

    def _as_error(self, error: Any) -> Exception:
        status = error.status_code
        said = f"embeddings: {self._host} answers {status}"
        if status in (401, 403):
            return ConfigurationError(said, hint="check EMBEDDING_API_KEY")
        if status == 404:
            return ConfigurationError(said, hint=f"check EMBEDDING_BASE_URL and EMBEDDING_MODEL ({self._model})")
        if status in (400, 413, 422):
            return TextRefused(self._safe_message(f"{self._host} answers {status}: {error.message}"))
        return Unavailable(said)

    def _safe_message(self, text: str) -> str:
        """One line without the key, which a server may repeat."""
        line = " ".join(f"embeddings: {text}".split())
        return (line.replace(self._key, "***") if self._key else line)[:300]


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and (len(batch) == BATCH or size + len(text) > BATCH_CHARACTERS):
            yield batch
            batch, size = [], 0
        # Models refuse empty texts.
        batch.append(text or " ")
        size += len(text)
    if batch:
        yield batch


def _normalised(vector: Sequence[float]) -> Vector:
    length = math.hypot(*vector)
    if not math.isfinite(length) or length == 0:
        raise ValueError("a vector without a direction")
    return [value / length for value in vector]
