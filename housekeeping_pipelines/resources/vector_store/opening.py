"""The vector store that VECTOR_STORE_URL names."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import sqlalchemy as sa

from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from housekeeping_pipelines.resources.vector_store import Space, VectorStore

ACCEPTED = "accepted: postgresql://USER:PASSWORD@HOST/DATABASE, lancedb:///FOLDER, qdrant://HOST:PORT or qdrants://HOST"

# The threads of one run that use the store at the same time, and a spare one.
_CONNECTIONS = 17


def open_vector_store(
    url: str | None, space: Space, *, database: Callable[[], sa.Engine], home: Path, api_key: str | None = None
) -> VectorStore:
    """The store of an address; no request is sent yet.

    Args:
        url: None stands for pgvector in the platform's database.
        home: the base of a relative folder (`lancedb://vectors`).

    Raises:
        ConfigurationError: the address has none of the accepted forms, or the store's package is not installed.
    """
    if url is None or url.startswith(("postgresql:", "postgres:")):
        from housekeeping_pipelines.postgres.engine import make_engine
        from housekeeping_pipelines.resources.vector_store.pgvector import PgVectorStore

        try:
            address = database().url if url is None else sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):
            raise _unknown() from None
        return PgVectorStore(make_engine(address, pooled=_CONNECTIONS), space)
    try:
        parts = urlsplit(url)
        port = parts.port or 6333
    except ValueError:
        raise _unknown() from None
    if parts.scheme == "lancedb" and (folder := parts.netloc + parts.path):
        from housekeeping_pipelines.resources.vector_store.lance import LanceStore

        return LanceStore(home / folder, space)
    if parts.scheme in ("qdrant", "qdrants") and parts.hostname and not parts.username:
        from housekeeping_pipelines.resources.vector_store.qdrant import open_qdrant

        scheme = "https" if parts.scheme == "qdrants" else "http"
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return open_qdrant(f"{scheme}://{host}:{port}", space, api_key=api_key)
    raise _unknown()


def _unknown() -> ConfigurationError:
    return ConfigurationError("VECTOR_STORE_URL is not the address of a vector store", hint=ACCEPTED)
