"""The commands about files, as a person or a cron job calls them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines_tests.deletion.support import column, sql
from housekeeping_pipelines_tests.stores import DAY, World

if TYPE_CHECKING:
    import sqlalchemy as sa

    from housekeeping_pipelines_tests.support import Installation


@pytest.fixture
def world(engine: sa.Engine, installation: Installation) -> World:
    """The installation's own folders; an old session with a file, a live one, and an orphan in each store."""
    world = World(engine, installation.directory / ".housekeeping", now=datetime.now(UTC))
    world.session("old", "old/a b.pdf", idle=2 * DAY)
    world.session("live", "live/a.pdf", idle=0 * DAY)
    sql(
        engine,
        "INSERT INTO parsed_files (filename) VALUES ('my file.pdf')",
        "INSERT INTO security_events (risk_level, risk_score, started_at, clip_path) VALUES ('low', 1, now(), 'c.mp4')",
        "INSERT INTO detections (event_id, file_path, detected_at) VALUES (1, 'd.jpg', now())",
    )
    for store, names in {
        "bucket": ["old/a b.pdf", "live/a.pdf", "lost/x.pdf"],
        "uploads": ["my-file.pdf", "lost file.pdf"],
        "media": ["c.mp4", "d.jpg", "lost.jpg", "notes.txt"],
    }.items():
        for name in names:
            world.put(store, name)
    return world


def test_the_whole_tour(world: World, installation: Installation) -> None:
    stats = installation.run("cleanup-files", "--stats")
    assert (stats.returncode, stats.stderr) == (0, "")
    lines = {line.split(":")[0].strip(): line for line in stats.stdout.splitlines()}
    assert "21 B" in lines["Total size"]
    assert " 1 not used" in lines["Old sessions"]
    assert all(len(line) <= 80 for line in stats.stdout.splitlines()[1:])
    assert installation.json("cleanup-files", "--stats")["total_files"] == 3

    dry = installation.run("cleanup-files", "--dry-run")
    assert "would delete upload_sessions/old" in dry.stdout
    assert world.files("bucket") == ["live/a.pdf", "lost/x.pdf", "old/a b.pdf"]
    done = installation.json("cleanup-files")
    assert done["deleted"] == {"upload_sessions": 1, "processed_documents": 1, "bucket": 1}

    assert installation.json("orphan-cleanup")["would_delete"] == {"media": 1}
    applied = installation.run("orphan-cleanup", "--apply")
    assert "files of media" in applied.stdout
    assert "1 files, until" in applied.stdout
    assert world.files("media") == ["c.mp4", "d.jpg", "notes.txt"]
    assert installation.json("cleanup-orphan-documents")["deleted"] == {"uploads": 1}
    assert world.files("uploads") == ["my-file.pdf"]
    assert installation.json("cleanup-orphan-objects")["would_delete"] == {"bucket": 1}
    assert installation.json("cleanup-orphan-objects", "--apply")["deleted"] == {"bucket": 1}

    trash = installation.json("trash", "list")["runs"]
    assert sorted((run["task"], run["rows"], run["files"]) for run in trash) == [
        ("cleanup_files", 2, 1),
        ("cleanup_orphan_documents", 0, 1),
        ("cleanup_orphan_objects", 0, 1),
        ("orphan_cleanup", 0, 1),
    ]
    for run in trash:
        assert installation.json("undo", run["run_id"])["conflicts"] == []
    assert world.files("bucket") == ["live/a.pdf", "lost/x.pdf", "old/a b.pdf"]
    assert column(world.engine, "SELECT session_key FROM upload_sessions ORDER BY 1") == ["live", "old"]


def test_the_scheduled_cleanup_is_silent_unless_it_fails(world: World, installation: Installation) -> None:
    off = installation.run("scheduled-cleanup", AUTO_CLEANUP_ENABLED="false")
    assert (off.returncode, off.stdout) == (0, "AUTO_CLEANUP_ENABLED is false: nothing was cleaned up.\n")
    done = installation.run("scheduled-cleanup", "--hours", "24")
    assert (done.returncode, done.stdout) == (0, "")
    assert column(world.engine, "SELECT session_key FROM upload_sessions") == ["live"]
    told = installation.run("scheduled-cleanup", "--verbose")
    assert "cleanup_files  succeeded" in told.stdout
    sql(world.engine, "ALTER TABLE upload_sessions RENAME TO sessions")
    failed = installation.run("scheduled-cleanup")
    assert failed.returncode == 2
    assert "there is no table upload_sessions" in failed.stdout


def test_the_trial_touches_only_its_own_session(world: World, installation: Installation) -> None:
    missing = installation.run("test-cleanup")
    assert (missing.returncode, "--create-test-data" in missing.stderr) == (2, True)
    made = installation.json("test-cleanup", "--create-test-data")
    assert made["session"] == "test_cleanup_session_123"
    assert set(made["files"]) < set(world.files("bucket"))
    tried = installation.json("test-cleanup")
    assert (tried["passed"], len(tried["checks"])) == (True, 3)
    assert world.files("bucket") == ["live/a.pdf", "lost/x.pdf", "old/a b.pdf"]
    assert column(world.engine, "SELECT session_key FROM upload_sessions ORDER BY 1") == ["live", "old"]
    world.session("test_cleanup_session_123", "somebody/elses.pdf")
    refused = installation.run("test-cleanup")
    assert refused.returncode == 3
    assert "did not make" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["cleanup-files", "--hours", "2", "--session", "old"], 2, "exclude each other"),
        (["cleanup-files", "--hours", "0"], 2, "greater than or equal to 1"),
        (["cleanup-orphan-documents", "--batch-size", "-1"], 2, "greater than or equal to 1"),
        (["orphan-cleanup", "--max-gb", "0"], 2, "max_gigabytes"),
        (["orphan-cleanup", "--base-path", "../elsewhere"], 2, "is not within"),
        (["hold", "add", "file:elsewhere/x", "--until", "2099-01-01", "--reason", "r"], 2, "no file of uploads"),
        (["hold", "add", "thing:x", "--until", "2099-01-01", "--reason", "r"], 2, "no subject of a hold"),
    ],
)
def test_a_mistake_is_one_clear_line(
    world: World, installation: Installation, arguments: list[str], code: int, said: str
) -> None:
    done = installation.run(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert said in done.stdout + done.stderr
    assert world.files("media") == ["c.mp4", "d.jpg", "lost.jpg", "notes.txt"]


def test_holds_on_files_objects_and_sessions_are_honoured(world: World, installation: Installation) -> None:
    folder = installation.directory / ".housekeeping" / "media"
    for subject in (f"file:{folder}/lost.jpg", "object:lost/x.pdf", "session:old"):
        done = installation.run("hold", "add", subject, "--until", "2099-01-01", "--reason", "case")
        assert done.returncode == 0, done.stderr
    assert installation.json("orphan-cleanup", "--apply")["skipped"]["held"] == 1
    assert installation.json("cleanup-orphan-objects", "--apply")["skipped"]["held"] == 1
    assert installation.json("cleanup-files")["skipped"]["held"] == 1
    assert world.files("bucket") == ["live/a.pdf", "lost/x.pdf", "old/a b.pdf"]


def test_a_wrong_key_is_one_line_and_a_configuration_error(world: World, installation: Installation) -> None:
    done = installation.run("cleanup-orphan-objects", "--json", SUPABASE_URL="http://127.0.0.1:1")
    assert done.returncode == 2
    assert "SUPABASE_KEY" in json.loads(done.stdout)["message"]
    secret = installation.run("check", SUPABASE_KEY="s3cr3t-key")
    assert "s3cr3t" not in secret.stdout
