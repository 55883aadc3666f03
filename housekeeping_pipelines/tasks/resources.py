"""The resources of the ops: the platform's database, its stores and vectors, and the observer."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from housekeeping_pipelines import logs
from housekeeping_pipelines.execution.database import Database
from housekeeping_pipelines.execution.progress import LogObserver, Observer
from housekeeping_pipelines.resources.vectors import Vectors
from housekeeping_pipelines.settings import Settings, load_settings
from housekeeping_pipelines.stores.stores import Stores

# The settings with which a run was queued, as JSON: they hold for it, whatever the process that does it has.
SETTINGS_TAG = "housekeeping/settings"


def settings_of(context: dg.InitResourceContext) -> Settings:
    """The settings of a run: those of this process, and what travels with the run."""
    tags = context.run.tags if context.run is not None else {}
    return load_settings(overrides=json.loads(tags.get(SETTINGS_TAG, "{}")))


class DatabaseResource(dg.ConfigurableResource[Database]):
    """The platform's database: DATABASE_URL, or an embedded PostgreSQL where it is unset.

    The address is read in the process that uses it, so that the code location holds no secret. Nothing of it is run
    configuration: a run acts on the database that the installation names, and on no other.
    """

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Database]:
        settings = settings_of(context)
        logs.configure(settings, to_stderr=False)
        database = Database(settings)
        yield database
        database.close()


class ObjectStorageResource(dg.ConfigurableResource[Stores]):
    """The folders of uploads and media, and the bucket: Supabase, or a folder where SUPABASE_URL is unset.

    DIRECT_UPLOADS_PATH, MEDIA_PATH, SUPABASE_URL, SUPABASE_KEY and SUPABASE_BUCKET say where they are, and are read in
    the process that uses them, so that the code location holds no secret.
    """

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Stores]:
        stores = Stores(settings_of(context))
        yield stores
        stores.close()


class VectorStoreResource(dg.ConfigurableResource[Vectors]):
    """The vector store, pgvector in the platform's database where VECTOR_STORE_URL is unset, and the embedder.

    VECTOR_STORE_URL, EMBEDDING_BASE_URL, EMBEDDING_API_KEY and EMBEDDING_MODEL say where they are, and are read in the
    process that uses them, so that the code location holds no secret.
    """

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Vectors]:
        yield Vectors(settings_of(context))


class ObserverResource(dg.ConfigurableResource[Observer]):
    """Who is told how a run goes on: the log. The command puts its progress bar here."""

    def create_resource(self, context: dg.InitResourceContext) -> Observer:
        return LogObserver()
