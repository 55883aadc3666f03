"""Watched documents in Dagster: the op, and the sensor that starts it when something is due.

The op imports what does the work, so that importing the definitions stays quick.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import dagster as dg
from pydantic import Field

from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.execution.database import Database
from housekeeping_pipelines.execution.progress import Observer
from housekeeping_pipelines.execution.report import Report
from housekeeping_pipelines.execution.run import Run
from housekeeping_pipelines.resources.vectors import Vectors
from housekeeping_pipelines.settings import Settings
from housekeeping_pipelines.tasks.capability import Capability
from housekeeping_pipelines.tasks.config import TaskConfig
from housekeeping_pipelines.tasks.jobs import Task, due_sensor
from housekeeping_pipelines.tasks.reporting import run_task
from housekeeping_pipelines.tasks.resources import settings_of
from housekeeping_pipelines.watched_documents.checks import check_watched_documents
from housekeeping_pipelines.watched_documents.report import SyncReport
from housekeeping_pipelines.watched_documents.sources.opening import Sources


class SyncWatchedDocuments(TaskConfig):
    dry_run: bool = Field(False, description="Fetch and compare, and write nothing.")
    max_documents: int | None = Field(None, ge=1, description="Documents that one run takes, the longest due first.")
    max_seconds: float | None = Field(None, gt=0, description="Seconds after which no document is begun.")
    force: bool = Field(False, description="Take every watched document, due or not.")


@dg.op
def sync_watched_documents(
    context: dg.OpExecutionContext,
    config: SyncWatchedDocuments,
    database: dg.ResourceParam[Database],
    vectors: dg.ResourceParam[Vectors],
    sources: dg.ResourceParam[Sources],
    observer: dg.ResourceParam[Observer],
) -> None:
    """Fetch the watched documents that are due; where one changed, replace its text and its vectors everywhere."""
    from housekeeping_pipelines.watched_documents.sync import Options, sync_documents
    from housekeeping_pipelines.watched_documents.texts import documents_folder

    settings = database.settings

    def body(run: Run) -> Report:
        options = Options(
            max_documents=config.max_documents,
            max_seconds=config.max_seconds,
            force=config.force,
            concurrency=settings.watch_concurrency,
            stale_after=timedelta(hours=settings.watch_interval_hours),
        )
        return sync_documents(
            run,
            config=database.config,
            source=sources,
            vectors=vectors,
            texts=documents_folder(settings),
            options=options,
        )

    run_task(context, database, body, dry_run=config.dry_run, observer=observer, kind=SyncReport)


class SourcesResource(dg.ConfigurableResource[Sources]):
    """Where watched documents come from; each source is opened when a document first needs it.

    FETCH_ALLOWED_HOSTS, COLLECTOR_URL and each source's credentials say how they are reached.
    """

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Sources]:
        sources = Sources(settings_of(context))
        yield sources
        sources.close()


def _count_due(settings: Settings) -> int:
    from housekeeping_pipelines.watched_documents.administration import probe_due

    return probe_due(settings)


def _describe_due(documents: int) -> str:
    return "1 watched document is due" if documents == 1 else f"{documents:,} watched documents are due"


SYNC_WATCHED_DOCUMENTS = Task(
    sync_watched_documents,
    SyncWatchedDocuments,
    report=SyncReport,
    tables=("documents", "document_sync_queues", "document_sync_runs"),
)


def capability(settings: Settings, config: HousekeepingConfig) -> Capability:
    """The sync, when a document is due."""
    return Capability(
        tasks=(SYNC_WATCHED_DOCUMENTS,),
        sensors=(
            due_sensor(
                "watched_documents_sensor",
                SYNC_WATCHED_DOCUMENTS.job,
                _count_due,
                describe=_describe_due,
                tag="housekeeping/due_documents",
                seconds=settings.sync_watched_documents_interval_seconds,
            ),
        ),
        checks=(check_watched_documents,),
    )
