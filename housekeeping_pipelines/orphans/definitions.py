"""Orphans in Dagster: one op, job and asset a store, with their schedules."""

from datetime import timedelta

import dagster as dg
from pydantic import Field

from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.execution.database import Database
from housekeeping_pipelines.execution.progress import Observer
from housekeeping_pipelines.execution.report import Report
from housekeeping_pipelines.execution.run import Run
from housekeeping_pipelines.orphans.checks import check_orphans
from housekeeping_pipelines.orphans.report import OrphanReport, VectorReport
from housekeeping_pipelines.orphans.search import Search
from housekeeping_pipelines.resources.vectors import Vectors
from housekeeping_pipelines.settings import Settings
from housekeeping_pipelines.stores.folders import BUCKET, MEDIA, UPLOADS
from housekeeping_pipelines.stores.stores import Stores
from housekeeping_pipelines.tasks.capability import Capability
from housekeeping_pipelines.tasks.config import DeletionConfig, FileDeletionConfig
from housekeeping_pipelines.tasks.jobs import Task, every_hours, schedule
from housekeeping_pipelines.tasks.reporting import run_task

# What a camera or its software writes. Anything else may be a person's, and is kept.
MEDIA_EXTENSIONS = ("jpg", "jpeg", "png", "gif", "bmp", "webp", "mp4", "webm", "mkv", "avi", "mov", "m4v")

UPLOADS_FLOOR = timedelta(hours=1)

DEFAULT_MAX_GIGABYTES = 10.0


class CleanupOrphanDocuments(FileDeletionConfig):
    pass


class OrphanCleanupConfig(FileDeletionConfig):
    # Each look reads every reference, which takes a second or so where there are millions.
    batch_size: int = Field(
        5000, ge=1, le=10_000, description="Files at a time, after one look at what refers to them."
    )
    min_age_hours: int | None = Field(
        None, ge=1, le=720, description="Default: ORPHAN_CLEANUP_AGE_THRESHOLD_HOURS (24)."
    )
    dry_run: bool = Field(True, description="Select and report, and delete nothing; the schedule says false.")
    max_gigabytes: float | None = Field(None, gt=0, description="Room that one run may free, in GB; default: 10.")
    max_delete_gb: float | None = Field(None, gt=0, description="Another name of max_gigabytes.")
    base_path: str | None = Field(None, description="A folder within MEDIA_PATH, to which the run is limited.")

    def limits(self) -> Limits:
        """
        Raises:
            ConfigurationError: the two names of the budget say different things.
        """
        given = {value for value in (self.max_gigabytes, self.max_delete_gb) if value is not None}
        if len(given) > 1:
            raise ConfigurationError(
                f"max_gigabytes is {self.max_gigabytes} and max_delete_gb, its other name, is {self.max_delete_gb}",
                hint="give one of them",
            )
        budget = self.model_copy(update={"max_gigabytes": given.pop() if given else DEFAULT_MAX_GIGABYTES})
        return FileDeletionConfig.limits(budget)


class CleanupOrphanObjects(FileDeletionConfig):
    batch_size: int = Field(2000, ge=1, le=10_000, description="Objects at a time, after one look at them.")
    min_age_hours: int = Field(24, ge=1, le=8760, description="Age from which an object is taken.")


class CleanupOrphanVectors(DeletionConfig):
    batch_size: int = Field(500, ge=1, le=10_000, description="Documents at a time, after one look at them.")
    min_age_hours: int = Field(1, ge=1, le=8760, description="Age from which vectors are taken.")
    max_rows: int | None = Field(None, ge=1, description="Documents whose vectors one run may delete.")
    allow_empty_reference: bool = Field(False, description="Run although the table of documents is empty.")


def _clean(
    context: dg.OpExecutionContext, config: FileDeletionConfig, database: Database, stores: Stores, observer: Observer,
    search: Search,
) -> None:  # fmt: skip
    # Imported here, so that importing the definitions stays quick.
    from housekeeping_pipelines.orphans.cleanup import clean_store

    def body(run: Run) -> Report:
        return clean_store(run, stores=stores, search=search, limits=config.limits())

    run_task(context, database, body, dry_run=config.dry_run, observer=observer, kind=OrphanReport)


@dg.op
def cleanup_orphan_documents(
    context: dg.OpExecutionContext,
    config: CleanupOrphanDocuments,
    database: dg.ResourceParam[Database],
    stores: dg.ResourceParam[Stores],
    observer: dg.ResourceParam[Observer],
) -> None:
    """Remove direct uploads that no parsed file names, after an hour."""
    search = Search(UPLOADS, UPLOADS_FLOOR, recursive=False)
    _clean(context, config, database, stores, observer, search)


@dg.op
def orphan_cleanup(
    context: dg.OpExecutionContext,
    config: OrphanCleanupConfig,
    database: dg.ResourceParam[Database],
    stores: dg.ResourceParam[Stores],
    observer: dg.ResourceParam[Observer],
) -> None:
    """Remove pictures and clips that no detection and no event names, after ORPHAN_CLEANUP_AGE_THRESHOLD_HOURS."""
    hours = config.min_age_hours or database.settings.orphan_cleanup_age_threshold_hours
    search = Search(MEDIA, timedelta(hours=hours), pattern=MEDIA_EXTENSIONS, base_path=config.base_path)
    _clean(context, config, database, stores, observer, search)


@dg.op
def cleanup_orphan_objects(
    context: dg.OpExecutionContext,
    config: CleanupOrphanObjects,
    database: dg.ResourceParam[Database],
    stores: dg.ResourceParam[Stores],
    observer: dg.ResourceParam[Observer],
) -> None:
    """Remove objects of the bucket that no processed document names and that are in no session's folder."""
    _clean(context, config, database, stores, observer, Search(BUCKET, timedelta(hours=config.min_age_hours)))


@dg.op
def cleanup_orphan_vectors(
    context: dg.OpExecutionContext,
    config: CleanupOrphanVectors,
    database: dg.ResourceParam[Database],
    vectors: dg.ResourceParam[Vectors],
    observer: dg.ResourceParam[Observer],
) -> None:
    """Delete the vectors of documents that no longer exist, after an hour; name watched documents without vectors."""
    from housekeeping_pipelines.orphans.vectors import clean_vectors

    def body(run: Run) -> Report:
        return clean_vectors(
            run,
            config=database.config,
            vectors=vectors,
            older_than=timedelta(hours=config.min_age_hours),
            limits=config.limits(),
            setting="VECTOR_STORE_URL" if database.settings.vector_store_url else None,
        )

    run_task(context, database, body, dry_run=config.dry_run, observer=observer, kind=VectorReport)


ORPHAN_DOCUMENTS = Task(cleanup_orphan_documents, CleanupOrphanDocuments, report=OrphanReport, tables=("parsed_files",))
ORPHAN_MEDIA = Task(orphan_cleanup, OrphanCleanupConfig, report=OrphanReport, tables=("detections", "security_events"))
ORPHAN_OBJECTS = Task(
    cleanup_orphan_objects, CleanupOrphanObjects, report=OrphanReport, tables=("processed_documents", "upload_sessions")
)
# Vectors are made of texts, which are still there: a sync makes them again.
ORPHAN_VECTORS = Task(
    cleanup_orphan_vectors, CleanupOrphanVectors, report=VectorReport, tables=("documents",), undoable=False
)


def capability(settings: Settings, config: HousekeepingConfig) -> Capability:
    """A task for each store, daily; that of media every ORPHAN_CLEANUP_SCAN_INTERVAL_HOURS."""
    media = every_hours(
        ORPHAN_MEDIA.job,
        settings.orphan_cleanup_scan_interval_hours,
        settings,
        run_config={"ops": {ORPHAN_MEDIA.name: {"config": {"dry_run": False}}}},
        disabled_reason=None if settings.orphan_cleanup_enabled else "ORPHAN_CLEANUP_ENABLED is false",
    )
    daily = {
        ORPHAN_DOCUMENTS: settings.cleanup_orphan_documents_cron,
        ORPHAN_OBJECTS: settings.cleanup_orphan_objects_cron,
        ORPHAN_VECTORS: settings.cleanup_orphan_vectors_cron,
    }
    disabled = Stores(settings).disabled.get(BUCKET)
    return Capability(
        tasks=(ORPHAN_DOCUMENTS, ORPHAN_MEDIA, ORPHAN_OBJECTS, ORPHAN_VECTORS),
        schedules=(
            *(
                schedule(task.job, cron, settings, disabled_reason=disabled if task is ORPHAN_OBJECTS else None)
                for task, cron in daily.items()
            ),
            *media.schedules,
        ),
        sensors=media.sensors,
        checks=(check_orphans,),
    )
