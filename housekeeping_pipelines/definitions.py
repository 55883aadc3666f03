"""The code location: what every capability hands over, the jobs that chain several, and the resources.

Importing this module reads the environment, `.env` and `housekeeping.yaml`, and touches no network and no database.
"""

import dagster as dg

from housekeeping_pipelines.application.config import load_config
from housekeeping_pipelines.capabilities import assemble
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.tasks.jobs import schedule
from housekeeping_pipelines.tasks.resources import (
    DatabaseResource,
    ObjectStorageResource,
    ObserverResource,
    VectorStoreResource,
)
from housekeeping_pipelines.watched_documents.definitions import SourcesResource

_settings = load_settings()
REGISTRY = assemble(_settings, load_config(_settings))
_daily, _weekly = (REGISTRY.chains[name].job for name in ("daily_housekeeping", "weekly_cleanup"))

# The first two keep the ids and names of the system that this project replaces.
_schedules = (
    schedule(
        _daily,
        _settings.daily_housekeeping_cron,
        _settings,
        known_as=("daily_housekeeping", "Daily Housekeeping Tasks"),
    ),
    schedule(
        _weekly, _settings.weekly_cleanup_cron, _settings, known_as=("weekly_cleanup", "Weekly Conversation Cleanup")
    ),
    schedule(_daily, _settings.test_housekeeping_cron, _settings, name="test_housekeeping_schedule", running=False),
)

defs = dg.Definitions(
    assets=[task.asset for task in REGISTRY.tasks.values()],
    jobs=[*(task.job for task in REGISTRY.tasks.values()), *(chain.job for chain in REGISTRY.chains.values())],
    schedules=[*_schedules, *(each for capability in REGISTRY.capabilities for each in capability.schedules)],
    sensors=[each for capability in REGISTRY.capabilities for each in capability.sensors],
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
