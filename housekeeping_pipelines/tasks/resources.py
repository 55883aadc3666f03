"""The resources of the ops: the platform's database, its stores and vectors, and the observer."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field

from housekeeping_pipelines import logs
from housekeeping_pipelines.execution.database import Database
from housekeeping_pipelines.execution.progress import LogObserver, Observer
from housekeeping_pipelines.resources.vectors import Vectors
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.stores.stores import Stores


class DatabaseResource(dg.ConfigurableResource[Database]):
    """The platform's database: DATABASE_URL, or an embedded PostgreSQL where it is unset.

    The address is read in the process that uses it, so that the code location holds no secret.
    """

    variable: str = Field(default="DATABASE_URL", description="The environment variable that holds the address.")

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Database]:
        settings = load_settings()
        logs.configure(settings, to_stderr=False)
        database = Database(settings)
        yield database
        database.close()


class ObjectStorageResource(dg.ConfigurableResource[Stores]):
    """The folders of uploads and media, and the bucket: Supabase, or a folder where SUPABASE_URL is unset.

    Addresses and keys are read in the process that uses them, so that the code location holds no secret.
    """

    variables: str = Field(
        default="DIRECT_UPLOADS_PATH, MEDIA_PATH, SUPABASE_URL, SUPABASE_KEY, SUPABASE_BUCKET",
        description="The environment variables that say where they are.",
    )

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Stores]:
        stores = Stores(load_settings())
        yield stores
        stores.close()


class VectorStoreResource(dg.ConfigurableResource[Vectors]):
    """The vector store, pgvector in the platform's database where VECTOR_STORE_URL is unset, and the embedder.

    Addresses and keys are read in the process that uses them, so that the code location holds no secret.
    """

    variables: str = Field(
        default="VECTOR_STORE_URL, EMBEDDING_BASE_URL, EMBEDDING_API_KEY, EMBEDDING_MODEL",
        description="The environment variables that say where they are.",
    )

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Vectors]:
        yield Vectors(load_settings())


class ObserverResource(dg.ConfigurableResource[Observer]):
    """Who is told how a run goes on: the log. The command puts its progress bar here."""

    def create_resource(self, context: dg.InitResourceContext) -> Observer:
        return LogObserver()
