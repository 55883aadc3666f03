"""Upload sessions that are over leave with their documents and files, and come back with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion.drain import count_due
from housekeeping_pipelines.deletion.file_outbox import take
from housekeeping_pipelines.deletion.files import FileRemoval
from housekeeping_pipelines.deletion.holds import add_hold, add_name_hold
from housekeeping_pipelines.deletion.pause import pause
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.sessions.usage import MEGABYTE, quota_warning, storage_statistics
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import column, contents, rows, scalar, sql
from housekeeping_pipelines_tests.storage_server import Fault, StorageServer
from housekeeping_pipelines_tests.world import DAY, HOUR, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(engine: sa.Engine, tmp_path: Path) -> World:
    return World(engine, tmp_path)


@pytest.fixture
def far() -> Iterator[StorageServer]:
    with StorageServer("documents") as server:
        yield server


@pytest.fixture
def remote(engine: sa.Engine, tmp_path: Path, far: StorageServer) -> World:
    """The bucket is a server's, whose clock is the real one."""
    environ = {"SUPABASE_URL": far.url, "SUPABASE_KEY": far.key, "STORAGE_TRASH_PREFIX": ""}
    return World(engine, tmp_path, environ, now=datetime.now(UTC) + timedelta(minutes=1))


def sessions(world: World) -> list[str]:
    return column(world.engine, "SELECT session_key FROM upload_sessions ORDER BY 1")


def waiting(world: World) -> list[str]:
    return column(world.engine, "SELECT name FROM housekeeping.file_outbox ORDER BY 1")


def test_what_is_over_goes_with_its_files_and_comes_back_whole(world: World) -> None:
    world.session("old", "old/a file.pdf", "excel_file_path=old/out.xlsx", idle=61 * timedelta(minutes=1))
    world.session("new", "new/b.pdf", idle=59 * timedelta(minutes=1))
    for name in ("old/a file.pdf", "old/out.xlsx", "new/b.pdf"):
        world.put("bucket", name, content=name)
    before = contents(world.engine)
    dry = world.end_sessions(dry_run=True)
    assert dry.would_delete == {"upload_sessions": 1, "processed_documents": 2, "bucket": 2}
    assert (contents(world.engine), len(world.files("bucket"))) == (before, 3)
    report = world.end_sessions()
    assert (report.status, report.deleted) == (
        "succeeded",
        {"upload_sessions": 1, "processed_documents": 2, "bucket": 2},
    )
    assert report.deleted_bytes == len("old/a file.pdf") + len("old/out.xlsx")
    assert (sessions(world), world.files("bucket"), waiting(world)) == (["new"], ["new/b.pdf"], [])
    undone = world.undo()
    assert (undone.status, undone.restored) == ("succeeded", report.deleted)
    assert contents(world.engine) == before
    assert (world.home / "bucket/old/a file.pdf").read_text() == "old/a file.pdf"


def test_the_newest_document_and_what_is_being_processed_keep_a_session(world: World) -> None:
    world.session("quiet", "quiet/a.pdf", idle=5 * HOUR)
    world.session("busy", "busy/a.pdf", idle=5 * HOUR)
    world.session("at work", "at work/a.pdf", idle=50 * DAY, status="processing")
    sql(world.engine, f"UPDATE processed_documents SET created_at = '{NOW - HOUR / 2}' WHERE session_key = 'busy'")
    assert world.end_sessions().deleted["upload_sessions"] == 1
    assert sessions(world) == ["at work", "busy"]


def test_naming_a_session_replaces_its_age_and_nothing_else(world: World) -> None:
    world.session("fresh", "fresh/a.pdf", idle=timedelta(seconds=5))
    world.session("other", "other/a.pdf", idle=50 * DAY)
    world.session("at work", "at work/a.pdf", idle=50 * DAY, status="processing")
    assert world.end_sessions(session="at work").deleted == {}
    assert world.end_sessions(session="fresh").deleted["upload_sessions"] == 1
    assert sessions(world) == ["at work", "other"]


def test_outputs_that_are_kept_are_no_orphans(world: World) -> None:
    prefix = "https://abc.supabase.co/storage/v1/object/public/documents/"
    world.session("old", "old/in.pdf", "pdf_file_path=old/out.pdf", f"excel_file_path={prefix}old/my%20out.xlsx")
    for name in ("old/in.pdf", "old/out.pdf", "old/my out.xlsx", "old/other.xlsx"):
        world.put("bucket", name)
    world.end_sessions(include_outputs=False)
    assert world.files("bucket") == ["old/my out.xlsx", "old/other.xlsx", "old/out.pdf"]
    world.session("live", "live/a.pdf", idle=timedelta(0))
    world.put("bucket", "live/a.pdf")
    # The rows in the trash keep them no longer.
    world.purge()
    report = world.clean("bucket", run_id="run-2")
    assert report.deleted == {"bucket": 1}
    assert world.files("bucket") == ["live/a.pdf", "old/my out.xlsx", "old/out.pdf"]


def test_without_storage_cleanup_neither_files_nor_the_rows_that_own_them_go(world: World) -> None:
    world.session("with file", "with file/a.pdf")
    world.session("empty")
    world.put("bucket", "with file/a.pdf")
    assert world.end_sessions(with_files=False).deleted == {"upload_sessions": 1}
    assert (sessions(world), world.files("bucket")) == (["with file"], ["with file/a.pdf"])


def test_without_storage_cleanup_nothing_is_removed_from_the_bucket_by_any_task(world: World) -> None:
    world.session("old", "old/a.pdf")
    world.session("live", "live/b.pdf", idle=timedelta(0))
    for name in ("old/a.pdf", "live/b.pdf", "lost.pdf", "older.pdf"):
        world.put("bucket", name)
    world.put("media", "lost.jpg")
    world.clean("bucket", run_id="run-0", max_files=1)
    (left,) = {"lost.pdf", "older.pdf"} & {*world.files("bucket")}
    sql(
        world.engine,
        "INSERT INTO housekeeping.file_outbox (run_id, task, store, name, queued_at, next_attempt_at)"
        f" VALUES ('run-1', 'task', 'bucket', '{left}', '{NOW}', '{NOW}')",
    )
    world.environ["STORAGE_CLEANUP_ENABLED"] = "false"
    before = sorted(str(path) for path in (world.home / "bucket").rglob("*"))
    refused = world.clean("bucket", run_id="run-2")
    assert (refused.status, refused.error_type) == ("refused", "Refused")
    assert "STORAGE_CLEANUP_ENABLED is false: nothing is removed from bucket" in refused.message
    assert world.clean("bucket", run_id="run-2", dry_run=True).status == "succeeded"
    drained = world.drain()
    assert (drained.deleted, drained.warnings) == (
        {},
        ("bucket: STORAGE_CLEANUP_ENABLED is false; its files wait in the outbox",),
    )
    purged = world.purge()
    assert "STORAGE_CLEANUP_ENABLED is false: the trash of bucket stays" in purged.warnings
    assert sorted(str(path) for path in (world.home / "bucket").rglob("*")) == before
    # It is about the bucket alone.
    assert "STORAGE_CLEANUP_ENABLED" not in world.clean("media", run_id="run-3").message
    with world.engine.connect() as connection:
        assert count_due(connection, world.now, without=world.stores.disabled) == 0
    del world.environ["STORAGE_CLEANUP_ENABLED"]
    assert world.drain().deleted == {"bucket": 1}


def test_a_file_that_another_session_names_too_stays(world: World) -> None:
    world.session("old", "shared/a.pdf", "/old/b.pdf")
    world.session("new", "/shared/a.pdf", idle=timedelta(0))
    for name in ("shared/a.pdf", "old/b.pdf"):
        world.put("bucket", name)
    assert world.end_sessions().deleted["bucket"] == 1
    assert (world.files("bucket"), waiting(world)) == (["shared/a.pdf"], [])


@pytest.mark.parametrize("subject", ["session", "object"])
def test_a_hold_keeps_a_session_or_one_of_its_objects(world: World, subject: str) -> None:
    world.session("old", "old/a.pdf", "old/b.pdf")
    for name in ("old/a.pdf", "old/b.pdf"):
        world.put("bucket", name)
    with world.engine.begin() as connection:
        given: dict[str, Any] = {"subject": subject, "until": NOW + DAY, "reason": "case", "now": NOW}
        if subject == "session":
            table = Catalog(connection).find("upload_sessions")
            assert table is not None
            add_hold(connection, type="session", table=table, key=("old",), **given)
        else:
            add_name_hold(connection, type="object", store="bucket", names=["old/a.pdf"], **given)
    world.end_sessions()
    # The rows say what a held object is, and whose.
    assert world.end_sessions(dry_run=True).would_delete == {}
    report = world.end_sessions()
    assert (report.skipped["held"], report.deleted) == (1, {})
    assert (sessions(world), world.files("bucket"), waiting(world)) == (["old"], ["old/a.pdf", "old/b.pdf"], [])
    world.now += 2 * DAY
    assert world.end_sessions(run_id="run-2").deleted["bucket"] == 2


@pytest.mark.parametrize("held", ["old/", "old/my file.pdf"])
def test_a_held_object_keeps_its_session_however_the_row_names_it(world: World, held: str) -> None:
    world.session("old", "https://abc.supabase.co/storage/v1/object/public/documents/old/my%20file.pdf")
    world.session("gone", "gone/b.pdf")
    for name in ("old/my file.pdf", "gone/b.pdf"):
        world.put("bucket", name)
    with world.engine.begin() as connection:
        add_name_hold(
            connection, type="object", store="bucket", names=[held], subject=held, until=NOW + DAY, reason="case",
            now=NOW,
        )  # fmt: skip
    assert world.end_sessions().skipped["held"] == 1
    assert (sessions(world), world.files("bucket")) == (["old"], ["old/my file.pdf"])


def test_storage_that_is_down_is_a_warning_and_the_files_follow(remote: World, far: StorageServer) -> None:
    remote.session("old", "old/a.pdf", "old/b.pdf")
    far.put(["old/a.pdf", "old/b.pdf"], bucket="documents")
    far.stop()
    try:
        report = remote.end_sessions()
    finally:
        far.start()
    assert (report.status, report.deleted) == ("succeeded", {"upload_sessions": 1, "processed_documents": 2})
    assert any(warning.startswith("storage is unavailable") for warning in report.warnings)
    assert waiting(remote) == ["old/a.pdf", "old/b.pdf"]
    # The circuit stays open for a minute.
    sql(remote.engine, "DELETE FROM housekeeping.circuit_breakers")
    remote.now += HOUR
    drained = remote.drain()
    assert (drained.status, drained.deleted, drained.for_good) == ("succeeded", {"bucket": 2}, {"bucket": 2})
    assert (far.names("documents"), waiting(remote)) == ([], [])


def test_storage_that_refuses_makes_it_partial(remote: World, far: StorageServer) -> None:
    remote.session("old", "old/a.pdf")
    far.put(["old/a.pdf"], bucket="documents", undeletable=True)
    remote.environ["SUPABASE_KEY"] = far.key_for("service_role", secret="another")
    report = remote.end_sessions()
    assert (report.status, report.failed_count) == ("partial", 1)
    assert (sessions(remote), waiting(remote)) == ([], ["old/a.pdf"])


def test_an_undo_while_files_wait_cancels_their_removal(remote: World, far: StorageServer) -> None:
    remote.session("old", "old/a.pdf")
    far.put(["old/a.pdf"], bucket="documents")
    far.stop()
    remote.end_sessions()
    far.start()
    sql(remote.engine, "DELETE FROM housekeeping.circuit_breakers")
    assert remote.undo().status == "succeeded"
    remote.now += HOUR
    assert remote.drain().deleted == {}
    assert (sessions(remote), far.names("documents")) == (["old"], ["old/a.pdf"])


def test_with_a_trash_in_the_bucket_rows_and_objects_come_back_together(remote: World, far: StorageServer) -> None:
    remote.environ["STORAGE_TRASH_PREFIX"] = "kept"
    remote.session("old", "old/a file.pdf")
    far.put(["old/a file.pdf"], bucket="documents", content=b"bytes")
    report = remote.end_sessions()
    assert (report.deleted["bucket"], report.for_good) == (1, {})
    assert far.names("documents") == ["kept/run-1/old/a file.pdf"]
    # What is in the trash is neither counted nor an orphan.
    remote.session("live", "live/a.pdf", idle=timedelta(0))
    assert remote.clean("bucket", run_id="run-2", older_than=timedelta(0)).scanned == 0
    assert remote.undo().restored == {"bucket": 1, "upload_sessions": 1, "processed_documents": 1}
    assert far.names("documents") == ["old/a file.pdf"]


def test_an_answer_that_is_lost_is_looked_up_and_not_believed(remote: World, far: StorageServer) -> None:
    remote.session("old", "old/a.pdf", "old/b.pdf")
    far.put(["old/a.pdf", "old/b.pdf"], bucket="documents")
    far.faults.append(Fault("reset_after", "remove"))
    report = remote.end_sessions()
    assert report.status == "succeeded"
    assert (far.names("documents"), waiting(remote)) == ([], [])


@pytest.mark.parametrize(
    ("used", "said"), [(79, None), (80, "80% of MAX_STORAGE_SIZE_MB"), (100, "more than MAX_STORAGE_SIZE_MB")]
)
def test_how_full_storage_is_is_said_from_eighty_percent_on(used: int, said: str | None) -> None:
    warning = quota_warning(used * MEGABYTE, 100 * MEGABYTE)
    assert warning is None if said is None else said in str(warning)


def test_the_quota_is_reported_and_warned_of(world: World) -> None:
    world.session("live", "live/a.pdf", idle=timedelta(0))
    world.put("bucket", "live/a.pdf", content="x" * 90)
    report = world.end_sessions(quota=100)
    assert (report.storage_bytes, report.quota_used) == (90, 0.9)
    assert [warning for warning in report.warnings if "90% of MAX_STORAGE_SIZE_MB" in warning]
    assert sessions(world) == ["live"]


def test_statistics_say_what_there_is_and_what_could_go(world: World) -> None:
    world.session("old", "old/a.pdf")
    world.session("live", "live/b.TXT", idle=timedelta(0))
    world.put("bucket", "old/a.pdf", content="x" * 60)
    world.put("bucket", "live/b.TXT", age=timedelta(0), content="x" * 30)
    world.put("bucket", "live/noextension", age=timedelta(0), content="")
    with world.engine.connect() as connection:
        platform = Platform(Catalog(connection), world.stores.config)
        found = storage_statistics(
            connection, platform, world.stores["bucket"], now=NOW, hours=1, quota_bytes=100
        ).to_dict()
    assert (found["total_files"], found["total_size_bytes"], found["old_files"], found["old_sessions"]) == (3, 90, 1, 1)
    assert found["file_types"] == {"": 1, "pdf": 1, "txt": 1}
    assert (found["quota_used"], found["cleanup_recommended"], found["error"]) == (0.9, True, None)
    assert scalar(world.engine, "SELECT count(*) FROM upload_sessions") == 2
    assert rows(world.engine, "SELECT * FROM housekeeping.file_outbox") == []


class TestStopping:
    """A run of which the sessions are gone stops before its next batch of files; these wait in the outbox."""

    @pytest.fixture
    def many(self, world: World, monkeypatch: pytest.MonkeyPatch) -> World:
        monkeypatch.setattr("housekeeping_pipelines.deletion.drain.take", partial(take, limit=2))
        for number in range(6):
            world.session(f"s{number}", f"s{number}/a.pdf")
            world.put("bucket", f"s{number}/a.pdf")
        return world

    def test_a_pause(self, many: World, monkeypatch: pytest.MonkeyPatch) -> None:
        removed = FileRemoval.execute

        def then_pause(self: FileRemoval) -> Any:
            outcome = removed(self)
            with many.engine.begin() as connection:
                pause(connection, reason="stop", now=NOW)
            return outcome

        monkeypatch.setattr(FileRemoval, "execute", then_pause)
        report = many.end_sessions()
        assert (report.status, report.stopped_reason) == ("succeeded", "paused")
        assert report.deleted == {"upload_sessions": 6, "processed_documents": 6, "bucket": 2}
        assert len(waiting(many)) == len(many.files("bucket")) == 4

    def test_the_time_that_it_may_take(self, many: World, monkeypatch: pytest.MonkeyPatch) -> None:
        removed, seconds = FileRemoval.execute, [0.0]

        def for_a_while(self: FileRemoval) -> Any:
            seconds[0] += 20
            return removed(self)

        monkeypatch.setattr(FileRemoval, "execute", for_a_while)
        report = many.end_sessions(max_seconds=30, monotonic=lambda: seconds[0])
        assert (report.status, report.stopped_reason) == ("succeeded", "max_seconds")
        assert report.deleted == {"upload_sessions": 6, "processed_documents": 6, "bucket": 4}
        assert len(waiting(many)) == 2

    def test_a_lost_connection_takes_no_count_away(self, many: World, monkeypatch: pytest.MonkeyPatch) -> None:
        removed = FileRemoval.execute

        def then_end(self: FileRemoval) -> Any:
            outcome = removed(self)
            self.connection.rollback()
            pid = self.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            self.connection.rollback()
            sql(many.engine, f"SELECT pg_terminate_backend({pid}, 5000)")
            return outcome

        monkeypatch.setattr(FileRemoval, "execute", then_end)
        report = many.end_sessions()
        assert (report.status, report.error_type) == ("failed", "Unavailable")
        assert report.deleted == {"upload_sessions": 6, "processed_documents": 6, "bucket": 2}
        report = many.drain()
        assert (report.status, report.deleted) == ("failed", {"bucket": 2})
        monkeypatch.undo()
        assert many.drain().deleted == {"bucket": 2}
