"""Whether documents can be watched: the embedder, the vector store, the tables, and what waits for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.checking import Check, Stopwatch
from housekeeping_pipelines.postgres import errors as database_errors
from housekeeping_pipelines.resources.vectors import Vectors
from housekeeping_pipelines.watched_documents.sources.opening import Sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.execution.checking import Surroundings

_TASK = "sync_watched_documents"


def check_watched_documents(surroundings: Surroundings) -> Iterator[Check]:
    """Lines for the embedder, the vector store and the task."""
    yield from _check_vectors(surroundings)
    # It brings what reads documents with it, which importing the definitions is not to wait for.
    from housekeeping_pipelines.watched_documents.queue import Queue

    try:
        failing = Queue(surroundings.platform).count_failing(surroundings.connection)
    except HousekeepingError as error:
        yield Check.disabled(_TASK, error)
    except sa.exc.DBAPIError as error:
        yield Check(f"task {_TASK}", "failed", f"disabled: {database_errors.describe(error)}")
    else:
        yield Check(
            f"task {_TASK}",
            "warning" if failing else "ok",
            f"documents that wait for a review, or fail repeatedly: {failing:,}"
            if failing
            else f"from {', '.join(Sources(surroundings.settings).schemes())}",
            "`housekeeping watch list` says why" if failing else None,
        )


def _check_vectors(surroundings: Surroundings) -> Iterator[Check]:
    settings = surroundings.settings
    vectors, watch = Vectors(settings), Stopwatch()
    try:
        space = vectors.embedder.space
        stands_in = "; compares words, stands in while EMBEDDING_BASE_URL is unset"
        text = f"{space.model}, {space.dimension} dimensions{'' if settings.embedding_base_url else stands_in}"
        yield Check("embedder", "ok", text, latency_ms=watch.latency_ms)
        watch = Stopwatch()
        store = vectors.open(lambda: surroundings.connection.engine)
        try:
            text = f"{store.label}, {store.count():,} chunks"
        finally:
            store.close()
        yield Check("vector store", "ok", text, latency_ms=watch.latency_ms)
    except HousekeepingError as error:
        yield Check.of("vector store", error)
