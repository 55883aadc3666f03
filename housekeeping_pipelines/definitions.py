"""The code location: every capability's tasks, the jobs that chain them, the schedules and the resources.

Importing this module reads the environment, `.env` and `housekeeping.yaml`, and touches no network and no database.
"""

import dagster as dg

from housekeeping_pipelines.application.config import load_config
from housekeeping_pipelines.maintenance.definitions import (
    DRAIN_FILE_OUTBOX,
    PURGE_TRASH,
    UNDO,
    drain_file_outbox_sensor,
)
from housekeeping_pipelines.orphans.definitions import (
    ORPHAN_DOCUMENTS,
    ORPHAN_MEDIA,
    ORPHAN_OBJECTS,
    ORPHAN_VECTORS,
)
from housekeeping_pipelines.retention import definitions as retention
from housekeeping_pipelines.sessions.definitions import CLEANUP_FILES
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.statistics.definitions import GENERATE_STATISTICS
from housekeeping_pipelines.tasks.jobs import Task, every_hours, schedule, sequence
from housekeeping_pipelines.tasks.resources import (
    DatabaseResource,
    ObjectStorageResource,
    ObserverResource,
    VectorStoreResource,
)
from housekeeping_pipelines.watched_documents.definitions import (
    SYNC_WATCHED_DOCUMENTS,
    SourcesResource,
    watched_documents_sensor,
)

_settings = load_settings()
_own_rules = retention.own_rules(load_config(_settings.housekeeping_config))

_file_tasks = (ORPHAN_DOCUMENTS, ORPHAN_MEDIA, ORPHAN_OBJECTS, CLEANUP_FILES, DRAIN_FILE_OUTBOX)
_document_tasks = (SYNC_WATCHED_DOCUMENTS, ORPHAN_VECTORS)
_tasks = (*retention.BUILT_IN, *_own_rules, GENERATE_STATISTICS, *_file_tasks, *_document_tasks, UNDO, PURGE_TRASH)
TASKS: dict[str, Task] = {task.name: task for task in _tasks}

# A user's own rules go before the statistics, so that these are of the platform as the run leaves it.
DAILY_TASKS = [
    retention.CONVERSATIONS,
    retention.ORPHANED_MESSAGES,
    retention.INACTIVE_USERS,
    *_own_rules,
    GENERATE_STATISTICS,
]

WEEKLY_TASKS = [retention.CONVERSATIONS, retention.VERIFY_NO_ORPHANS]

# Which ops the jobs of several have, in their order.
CHAINS: dict[str, list[str]] = {
    "daily_housekeeping": [task.name for task in DAILY_TASKS],
    "weekly_cleanup": [task.name for task in WEEKLY_TASKS],
}

_jobs = {task.name: task.job() for task in TASKS.values()}
daily_housekeeping_job = sequence(
    "daily_housekeeping_job",
    DAILY_TASKS,
    "Old conversations, orphaned messages, unused accounts, your own rules; counts.",
)
weekly_cleanup_job = sequence(
    "weekly_cleanup_job",
    WEEKLY_TASKS,
    "Old conversations, then a deep check that nothing refers to one that is gone.",
)

_schedules = [
    schedule(daily_housekeeping_job, _settings.daily_housekeeping_cron, _settings),
    schedule(weekly_cleanup_job, _settings.weekly_cleanup_cron, _settings),
    schedule(_jobs["generate_statistics"], _settings.generate_statistics_cron, _settings),
    schedule(_jobs["purge_trash"], _settings.purge_trash_cron, _settings),
    schedule(_jobs["cleanup_orphan_documents"], _settings.cleanup_orphan_documents_cron, _settings),
    schedule(_jobs["cleanup_orphan_objects"], _settings.cleanup_orphan_objects_cron, _settings),
    schedule(_jobs["cleanup_orphan_vectors"], _settings.cleanup_orphan_vectors_cron, _settings),
    schedule(
        daily_housekeeping_job,
        _settings.test_housekeeping_cron,
        _settings,
        name="test_housekeeping_schedule",
        running=False,
    ),
]

# A period that no cron expression has is a sensor's.
_by_the_hour = [
    every_hours(
        _jobs["cleanup_files"],
        _settings.cleanup_interval_hours,
        _settings,
        off=None if _settings.auto_cleanup_enabled else "AUTO_CLEANUP_ENABLED is false",
    ),
    every_hours(
        _jobs["orphan_cleanup"],
        _settings.orphan_cleanup_scan_interval_hours,
        _settings,
        run_config={"ops": {"orphan_cleanup": {"config": {"dry_run": False}}}},
        off=None if _settings.orphan_cleanup_enabled else "ORPHAN_CLEANUP_ENABLED is false",
    ),
]
_schedules += [each for each in _by_the_hour if isinstance(each, dg.ScheduleDefinition)]
_sensors = [each for each in _by_the_hour if isinstance(each, dg.SensorDefinition)]
_sensors.append(drain_file_outbox_sensor(_jobs["drain_file_outbox"], _settings.drain_file_outbox_interval_seconds))
_sensors.append(
    watched_documents_sensor(_jobs["sync_watched_documents"], _settings.sync_watched_documents_interval_seconds)
)

defs = dg.Definitions(
    assets=[task.asset for task in TASKS.values()],
    jobs=[*_jobs.values(), daily_housekeeping_job, weekly_cleanup_job],
    schedules=_schedules,
    sensors=_sensors,
    resources={
        "database": DatabaseResource(),
        "stores": ObjectStorageResource(),
        "vectors": VectorStoreResource(),
        "sources": SourcesResource(),
        "observer": ObserverResource(),
        # A step's output is nothing, and nothing of it is to be left on disk.
        "io_manager": dg.mem_io_manager,
    },
    # A process a step would cost three seconds of start-up each.
    executor=dg.in_process_executor,
)
