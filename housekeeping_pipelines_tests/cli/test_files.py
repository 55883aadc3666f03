"""The commands about files, as a person or a cron job calls them."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.postgres.embedded import embedded_server
from housekeeping_pipelines_tests.deletion.support import column, sql
from housekeeping_pipelines_tests.storage_server import StorageServer
from housekeeping_pipelines_tests.support import Installation
from housekeeping_pipelines_tests.world import DAY, World

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERYTHING = {
    "bucket": ["live/a.pdf", "lost/x.pdf", "old/a b.pdf"],
    "uploads": ["lost file.pdf", "my-file.pdf"],
    "media": ["c.mp4", "d.jpg", "lost.jpg", "notes.txt"],
}


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
    for store, names in EVERYTHING.items():
        for name in names:
            world.put(store, name)
    return world


@pytest.fixture
def far(world: World) -> Iterator[StorageServer]:
    """A server's bucket that holds what the folder does."""
    with StorageServer("documents") as far:
        far.put(EVERYTHING["bucket"], bucket="documents")
        yield far


def remote(far: StorageServer) -> dict[str, str]:
    return {"SUPABASE_URL": far.url, "SUPABASE_KEY": far.key, "STORAGE_TRASH_PREFIX": ""}


def checks(installation: Installation, **environ: str) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in installation.json("check", **environ)["checks"]}


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
    assert "1  file of media" in applied.stdout
    assert "   1 file, until" in applied.stdout
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
    shown = installation.run("trash", "list").stdout
    assert re.search(r"run +task +deleted UTC +until +rows +files +size", shown)
    assert re.search(r"cleanup_files +\d\d-\d\d \d\d:\d\d +\S+ +2 +1 +7 B", shown)
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


def test_a_cleanup_that_is_queued_has_done_nothing_yet(world: World, installation: Installation) -> None:
    installation.run("init")
    silent = installation.run("scheduled-cleanup", "--queue")
    assert (silent.returncode, silent.stdout) == (0, "")
    queued = installation.json("cleanup-files", "--queue")
    assert queued["status"] == "queued"
    wrong = installation.run("cleanup-files", "--queue", "--session", "")
    assert (wrong.returncode, "session" in wrong.stderr) == (2, True)
    assert world.files("bucket") == EVERYTHING["bucket"]


def test_outputs_are_kept_on_demand_and_are_then_no_orphans(world: World, installation: Installation) -> None:
    world.session("done", "done/a.pdf", "excel_file_path=done/a.xlsx", idle=2 * DAY)
    for name in ("done/a.pdf", "done/a.xlsx"):
        world.put("bucket", name)
    report = installation.json("cleanup-files", "--session", "done", "--keep-outputs")
    assert report["deleted"] == {"upload_sessions": 1, "processed_documents": 2, "bucket": 1}
    assert (report["storage_bytes"], report["quota_used"]) == (None, None)
    assert installation.json("cleanup-orphan-objects", "--apply")["deleted"] == {"bucket": 1}
    assert world.files("bucket") == ["done/a.xlsx", "live/a.pdf", "old/a b.pdf"]


def test_what_no_undo_brings_back_is_said(world: World, installation: Installation, far: StorageServer) -> None:
    done = installation.run("cleanup-files", **remote(far))
    assert "deleted         1  file of bucket" in done.stdout
    (run_id,) = re.findall(r"undo (\w{8})   2 rows, until", done.stdout)
    assert "1 file deleted permanently: STORAGE_TRASH_PREFIX is empty" in done.stdout
    assert far.names("documents") == ["live/a.pdf", "lost/x.pdf"]
    back = installation.run("undo", run_id, **remote(far))
    assert (back.returncode, "1 of bucket were deleted permanently and cannot be restored" in back.stdout) == (0, True)

    world.session("done", idle=2 * DAY)
    kept = installation.run("cleanup-files", "--session", "done", **remote(far) | {"STORAGE_TRASH_PREFIX": "trash"})
    assert "for good" not in kept.stdout
    off = installation.run("orphan-cleanup", "--apply", TRASH_RETENTION_DAYS="0")
    assert "1 file deleted permanently: TRASH_RETENTION_DAYS is 0" in off.stdout
    assert "undo" not in off.stdout
    assert installation.json("trash", "list", TRASH_RETENTION_DAYS="7")["runs"][-1]["files"] == 0


def test_a_dry_run_says_what_it_would_free_and_what_is_missing(world: World, installation: Installation) -> None:
    world.put("media", "big.mp4", content="x" * 2048)
    world.put("media", "lost.jpg", age=40 * DAY)
    sql(world.engine, "INSERT INTO detections (event_id, file_path, detected_at) VALUES (1, 'nowhere.jpg', now())")
    lines = [line.strip() for line in installation.run("orphan-cleanup").stdout.splitlines()]
    assert "✓ would delete         2  files of media" in lines
    assert "· would free 2.0 kB" in lines
    assert [line.split() for line in lines if "largest" in line] == [
        ["·", "largest", "2.0", "kB", "media/big.mp4"],
        ["·", "largest", "7", "B", "media/lost.jpg"],
    ]
    assert "· 1 name in rows has no file" in lines
    world.put("media", "also.jpg", age=39 * DAY)
    limited = installation.json("orphan-cleanup", "--max-gb", "0.00000001", "--min-age-hours", "720", "--apply")
    assert (limited["deleted_files"], limited["skipped_size_limit"], limited["stopped_reason"]) == (
        1,
        2,
        "max_gigabytes",
    )


def test_statistics_are_one_document(world: World, installation: Installation, far: StorageServer) -> None:
    found = installation.json("cleanup-files", "--stats", "--hours", "24", MAX_STORAGE_SIZE_MB="1")
    assert found == {
        "storage": str(installation.directory / ".housekeeping" / "bucket"),
        "hours": 24,
        "total_files": 3,
        "total_size_bytes": 21,
        "trash_files": 0,
        "trash_bytes": 0,
        "total_size_mb": 0.0,
        "file_types": {"pdf": 3},
        "old_files": 3,
        "old_sessions": 1,
        "waiting_files": 0,
        "stuck_files": 0,
        "quota_bytes": 1024 * 1024,
        "quota_used": 0.0,
        "cleanup_recommended": True,
        "recommendation": "clean up: housekeeping cleanup-files",
        "error": None,
    }
    far.stop()
    down = installation.run("cleanup-files", "--stats", **remote(far))
    assert down.returncode == 1
    assert "Unknown" in down.stdout
    assert "Old sessions:  1" in down.stdout
    far.start()


def test_the_self_test_touches_only_its_own_session(world: World, installation: Installation) -> None:
    missing = installation.run("test-cleanup")
    assert (missing.returncode, "--create-test-data" in missing.stderr) == (2, True)
    made = installation.json("test-cleanup", "--create-test-data")
    assert made["session"] == "test_cleanup_session_123"
    assert set(made["files"]) < set(world.files("bucket"))
    tried = installation.json("test-cleanup")
    assert (tried["passed"], len(tried["checks"])) == (True, 3)
    assert world.files("bucket") == ["live/a.pdf", "lost/x.pdf", "old/a b.pdf"]
    assert column(world.engine, "SELECT session_key FROM upload_sessions ORDER BY 1") == ["live", "old"]
    # Once more, and made twice: what the first left is made anew.
    for _ in range(2):
        assert installation.run("test-cleanup", "--create-test-data").returncode == 0
    again = installation.run("test-cleanup")
    assert (again.returncode, again.stdout.count("  ✓ ")) == (0, 6)


@pytest.mark.parametrize("document", ["somebody/elses.pdf", None])
def test_the_self_test_leaves_a_session_of_its_name_that_is_not_its_own(
    world: World, installation: Installation, document: str | None
) -> None:
    key = "test_cleanup_session_123"
    world.session(key, *([document] if document else []), idle=2 * DAY)
    world.put("bucket", f"{key}/theirs.pdf")
    for arguments in ([], ["--create-test-data"]):
        refused = installation.run("test-cleanup", *arguments)
        assert refused.returncode == 3
        assert "did not create" in refused.stderr
    assert key in column(world.engine, "SELECT session_key FROM upload_sessions")
    assert column(world.engine, "SELECT source_file_path FROM processed_documents ORDER BY 1")[2:] == (
        [document] if document else []
    )
    assert f"{key}/theirs.pdf" in world.files("bucket")


def test_the_self_test_fails_line_by_line_where_files_stay(
    world: World, installation: Installation, far: StorageServer
) -> None:
    assert installation.run("test-cleanup", "--create-test-data", **remote(far)).returncode == 0
    sql(
        world.engine,
        "INSERT INTO housekeeping.holds (type, source_table, key, subject, until, reason, created_at)"
        " VALUES ('object', 'bucket', '{test_cleanup_session_123/document 2.txt}', 's', now() + '1 day', 'r', now())",
    )
    failed = installation.run("test-cleanup", **remote(far))
    assert failed.returncode == 1
    assert [line.strip()[0] for line in failed.stdout.splitlines() if " gone" in line and "good" not in line] == list(
        "✗✗✗"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["cleanup-files", "--hours", "2", "--session", "old"], 2, "exclude each other"),
        (["cleanup-files", "--hours", "0"], 2, "greater than or equal to 1"),
        (["cleanup-orphan-documents", "--batch-size", "-1"], 2, "greater than or equal to 1"),
        (["orphan-cleanup", "--max-gb", "0"], 2, "max_gigabytes"),
        (["orphan-cleanup", "--min-age-hours", "0"], 2, "greater than or equal to 1"),
        (["orphan-cleanup", "--base-path", "../elsewhere"], 2, "is not within"),
        (["cleanup-orphan-objects", "--min-age-hours", "-3"], 2, "greater than or equal to 1"),
        (["scheduled-cleanup", "--hours", "none"], 2, "a valid integer"),
        (["hold", "add", "file:media/../c.mp4", "--until", "2099-01-01", "--reason", "r"], 2, "not a file in uploads"),
        (["hold", "add", "file:media", "--until", "2099-01-01", "--reason", "r"], 2, "not a file in uploads"),
        (["hold", "add", "object:/", "--until", "2099-01-01", "--reason", "r"], 2, "not a valid subject of a hold"),
        (["hold", "add", "file:elsewhere/x", "--until", "2099-01-01", "--reason", "r"], 2, "not a file in uploads"),
        (["hold", "add", "file:media/nosuch.jpg", "--until", "2099-01-01", "--reason", "r"], 2, "there is no file or"),
        (["hold", "add", "object:no/such.pdf", "--until", "2099-01-01", "--reason", "r"], 2, "there is no file or"),
        (["hold", "add", "thing:x", "--until", "2099-01-01", "--reason", "r"], 2, "not a valid subject of a hold"),
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
    for subject in (
        f"file:{folder}/lost.jpg", "file:uploads/./lost file.pdf", "object:lost/x.pdf", "session:old",
    ):  # fmt: skip
        done = installation.run("hold", "add", subject, "--until", "2099-01-01", "--reason", "case")
        assert done.returncode == 0, done.stderr
    assert installation.json("orphan-cleanup", "--apply")["skipped"]["held"] == 1
    assert installation.json("cleanup-orphan-objects", "--apply")["skipped"]["held"] == 1
    assert installation.json("cleanup-orphan-documents")["skipped"]["held"] == 1
    assert installation.json("cleanup-files")["skipped"]["held"] == 1
    assert {store: world.files(store) for store in EVERYTHING} == EVERYTHING


def test_a_wrong_key_is_one_line_and_a_configuration_error(world: World, installation: Installation) -> None:
    done = installation.run("cleanup-orphan-objects", "--json", SUPABASE_URL="http://127.0.0.1:1")
    assert done.returncode == 2
    assert "SUPABASE_KEY" in json.loads(done.stdout)["message"]
    secret = installation.run("check", SUPABASE_KEY="s3cr3t-key")
    assert "s3cr3t" not in secret.stdout


def test_check_tries_the_stores_and_what_refers_to_them(
    world: World, installation: Installation, far: StorageServer
) -> None:
    found = checks(installation)
    home = installation.directory / ".housekeeping"
    for store, variable in (("uploads", "DIRECT_UPLOADS_PATH"), ("media", "MEDIA_PATH"), ("bucket", "SUPABASE_URL")):
        check = found[f"store {store}"]
        assert (check["status"], check["message"]) == ("ok", f"{home / store}; stands in while {variable} is unset")
        assert check["latency_ms"] is not None
    assert found["task cleanup_files"]["message"] == "takes upload_sessions with processed_documents"
    tasks = ("cleanup_files", "cleanup_orphan_documents", "orphan_cleanup", "cleanup_orphan_objects")
    assert {found[f"task {task}"]["status"] for task in tasks} == {"ok"}
    assert "outbox" not in found

    sql(
        world.engine,
        "ALTER TABLE upload_sessions RENAME TO sessions",
        "DROP TABLE parsed_files",
        "INSERT INTO housekeeping.file_outbox"
        " (run_id, task, store, name, queued_at, next_attempt_at, attempts, last_error)"
        " VALUES ('r', 't', 'bucket', 'stuck.pdf', now(), now() + '1 hour', 5, 'no permission'),"
        " ('r', 't', 'bucket', 'young.pdf', now(), now() + '1 hour', 1, 'no permission')",
    )
    found = checks(installation, MEDIA_PATH=str(home / "nowhere"), **remote(far))
    for task in ("cleanup_files", "cleanup_orphan_documents", "cleanup_orphan_objects"):
        assert (found[f"task {task}"]["status"], found[f"task {task}"]["message"][:9]) == ("warning", "disabled:"), task
    assert found["task orphan_cleanup"]["status"] == "ok"
    assert found["outbox"]["status"] == "warning"
    assert found["outbox"]["message"].startswith(
        "1 of the files to be removed failed again and again, such as bucket/stuck"
    )
    assert found["store media"]["status"] == "failed"
    assert "MEDIA_PATH" in found["store media"]["message"] + found["store media"]["hint"]
    assert found["store bucket"]["status"] == "ok"
    assert "removal from it is final" in found["store bucket"]["message"]
    assert "stands in" not in found["store bucket"]["message"]
    wrong = checks(installation, SUPABASE_BUCKET="elsewhere", **remote(far))["store bucket"]
    assert (wrong["status"], "elsewhere" in wrong["message"]) == ("failed", True)


def test_a_demo_that_is_repeated_replaces_its_own_files_only(world: World, installation: Installation) -> None:
    # Root's embedded server runs as another account; pytest's own folders are closed to it.
    directory = Path(tempfile.mkdtemp(prefix="housekeeping-demo-"))
    directory.chmod(0o755)
    theirs = Installation(directory, installation.command, {"LOG_LEVEL": "ERROR"})
    try:
        first = theirs.json("demo", "--conversations", "100")
        assert (first["status"], list(first["files"])) == ("succeeded", ["uploads", "media", "bucket"])
        assert (first["watched"]["status"], first["watched"]["updated"]) == ("succeeded", 1)
        assert theirs.json("watch", "list") == {"items": []}
        home = directory / ".housekeeping"
        assert sum(path.is_file() for path in (home / "media").rglob("*")) == first["files"]["media"]
        assert theirs.json("orphan-cleanup", "--apply")["deleted_files"] > 0
        (home / "uploads" / "mine.pdf").write_text("mine")
        text = theirs.run("demo", "--conversations", "100")
        assert text.returncode == 0, text.stderr
        for command in ("housekeeping cleanup-files --stats", "housekeeping orphan-cleanup"):
            assert command in text.stdout.partition("What next?")[2]
        assert (home / "uploads" / "mine.pdf").read_text() == "mine"
        assert not (home / "media" / ".housekeeping-trash").exists()
        assert {run["files"] for run in theirs.json("trash", "list")["runs"]} == {0}
        # Rows that others wrote into it are not the demo's.
        socket = embedded_server(home)
        mine = sa.create_engine(socket.url("platform").set(drivername="postgresql+psycopg"))
        with mine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO users (username, email, date_joined) VALUES ('me', 'm', now())")
        refused = theirs.run("demo", "--conversations", "100")
        assert refused.returncode == 3
        assert "has data that no demo made: 1 rows of users" in " ".join(refused.stderr.split())
        with mine.begin() as connection:
            assert connection.execute(sa.text("DELETE FROM users WHERE username = 'me'")).rowcount == 1
        mine.dispose()
        # What is in the trash of a folder that is configured is not the demo's.
        taken = theirs.json("orphan-cleanup", "--apply")["deleted_files"]
        third = theirs.json("demo", "--conversations", "100", MEDIA_PATH=str(home / "media"))
        assert list(third["files"]) == ["uploads", "bucket"]
        assert taken in {run["files"] for run in theirs.json("trash", "list")["runs"]}
    finally:
        shutil.rmtree(directory, ignore_errors=True)
