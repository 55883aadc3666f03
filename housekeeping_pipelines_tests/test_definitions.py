"""The public surface: what is relied on from outside by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_DESCRIBE = """
import json, socket, sys

def refuse(*args, **kwargs):
    raise AssertionError(f"the import opened a connection: {args}")

socket.socket.connect = refuse
import psycopg
psycopg.connect = psycopg.Connection.connect = refuse
import dagster as dg
from housekeeping_pipelines.definitions import defs

# The in-process executor takes the steps that are ready by this tag.
def steps(job):
    return [node.name for node in sorted(job.nodes, key=lambda node: -int(node.tags.get("dagster/priority", 0)))]

dg.Definitions.validate_loadable(defs)
repository = defs.get_repository_def()
jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
json.dump({
    "jobs": {job.name: steps(job) for job in jobs},
    "executors": sorted({job.executor_def.name for job in jobs}),
    "tags": {job.name: dict(job.tags) for job in jobs},
    "schedules": {s.name: [s.cron_schedule, s.execution_timezone, s.default_status.value, s.job_name]
                  for s in repository.schedule_defs},
    "sensors": {s.name: [s.minimum_interval_seconds, s.default_status.value, s.job_name]
                for s in repository.sensor_defs},
    "assets": sorted(key.to_user_string() for key in defs.resolve_all_asset_keys()),
    "heavy": sorted(name for name in ("alembic", "django", "httpx", "lancedb", "openai", "rich", "trafilatura",
                                               "typer") if name in sys.modules),
}, sys.stdout)
"""


def describe(directory: Path, **environ: str) -> dict[str, Any]:
    kept = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    done = subprocess.run(
        [sys.executable, "-c", _DESCRIBE],
        cwd=directory,
        env=kept | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_jobs_ops_and_schedules_have_their_public_names(tmp_path: Path) -> None:
    found = describe(tmp_path)
    assert found["jobs"] == {
        "daily_housekeeping_job": [
            "delete_old_conversations",
            "cleanup_orphaned_messages",
            "cleanup_inactive_users",
            "generate_statistics",
        ],
        "weekly_cleanup_job": ["delete_old_conversations", "verify_no_orphans"],
        "delete_old_conversations_job": ["delete_old_conversations"],
        "cleanup_orphaned_messages_job": ["cleanup_orphaned_messages"],
        "cleanup_inactive_users_job": ["cleanup_inactive_users"],
        "generate_statistics_job": ["generate_statistics"],
        "verify_no_orphans_job": ["verify_no_orphans"],
        "cleanup_orphan_documents_job": ["cleanup_orphan_documents"],
        "orphan_cleanup_job": ["orphan_cleanup"],
        "cleanup_orphan_objects_job": ["cleanup_orphan_objects"],
        "cleanup_files_job": ["cleanup_files"],
        "drain_file_outbox_job": ["drain_file_outbox"],
        "sync_watched_documents_job": ["sync_watched_documents"],
        "cleanup_orphan_vectors_job": ["cleanup_orphan_vectors"],
        "undo_job": ["undo"],
        "purge_trash_job": ["purge_trash"],
    }
    assert found["schedules"] == {
        "daily_housekeeping_schedule": ["0 2 * * *", "UTC", "RUNNING", "daily_housekeeping_job"],
        "weekly_cleanup_schedule": ["0 3 * * 0", "UTC", "RUNNING", "weekly_cleanup_job"],
        "generate_statistics_schedule": ["0 */6 * * *", "UTC", "RUNNING", "generate_statistics_job"],
        "purge_trash_schedule": ["30 4 * * *", "UTC", "RUNNING", "purge_trash_job"],
        "cleanup_orphan_documents_schedule": ["0 2 * * *", "UTC", "RUNNING", "cleanup_orphan_documents_job"],
        "cleanup_orphan_objects_schedule": ["30 3 * * *", "UTC", "RUNNING", "cleanup_orphan_objects_job"],
        "cleanup_orphan_vectors_schedule": ["0 4 * * *", "UTC", "RUNNING", "cleanup_orphan_vectors_job"],
        "cleanup_files_schedule": ["0 * * * *", "UTC", "RUNNING", "cleanup_files_job"],
        "orphan_cleanup_schedule": ["0 0 * * *", "UTC", "RUNNING", "orphan_cleanup_job"],
        "test_housekeeping_schedule": ["*/5 * * * *", "UTC", "STOPPED", "daily_housekeeping_job"],
    }
    assert found["sensors"] == {
        "drain_file_outbox_sensor": [60, "RUNNING", "drain_file_outbox_job"],
        "watched_documents_sensor": [300, "RUNNING", "sync_watched_documents_job"],
    }
    assert found["assets"] == sorted(
        f"housekeeping/{task}"
        for task in (
            "delete_old_conversations",
            "cleanup_orphaned_messages",
            "cleanup_inactive_users",
            "generate_statistics",
            "verify_no_orphans",
            "cleanup_orphan_documents",
            "orphan_cleanup",
            "cleanup_orphan_objects",
            "cleanup_files",
            "drain_file_outbox",
            "sync_watched_documents",
            "cleanup_orphan_vectors",
            "undo",
            "purge_trash",
        )
    )
    assert found["executors"] == ["in_process"]
    assert all(tags["owner"] == "housekeeping" and int(tags["dagster/max_runtime"]) for tags in found["tags"].values())
    assert found["heavy"] == []


def test_settings_shape_the_schedules(tmp_path: Path) -> None:
    found = describe(tmp_path, TIME_ZONE="America/New_York", PURGE_TRASH_CRON="15 5 * * 1")
    assert found["schedules"]["purge_trash_schedule"] == [
        "15 5 * * 1",
        "America/New_York",
        "RUNNING",
        "purge_trash_job",
    ]


def test_a_rule_becomes_a_task_with_a_job_and_a_place_before_the_statistics(tmp_path: Path) -> None:
    (tmp_path / "housekeeping.yaml").write_text(
        "retention:\n"
        "  - {table: django_session, age_column: expire_date, older_than_days: 1}\n"
        "  - {table: audit.log, name: trim_audit, age_column: at, older_than_days: 9, where: {severity: info}}\n"
    )
    found = describe(tmp_path)
    assert found["jobs"]["daily_housekeeping_job"][3:] == [
        "delete_old_django_session",
        "trim_audit",
        "generate_statistics",
    ]
    assert found["jobs"]["trim_audit_job"] == ["trim_audit"]
    assert "housekeeping/delete_old_django_session" in found["assets"]
