"""What lies beside a store's files: other stores, mounted file systems, and the sample's tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from housekeeping_pipelines.demo.platform import create_sample, reset_sample
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines_tests.deletion.support import column, sql
from housekeeping_pipelines_tests.mounts import mounted, needs_root
from housekeeping_pipelines_tests.storage_server import StorageServer
from housekeeping_pipelines_tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

ALL: dict[str, Any] = {"allow_large_deletion": True}


@pytest.fixture
def world(engine: sa.Engine, tmp_path: Path) -> World:
    world = World(engine, tmp_path)
    sql(
        engine,
        f"INSERT INTO security_events (risk_level, risk_score, started_at) VALUES ('low', 1, '{world.now}')",
        "INSERT INTO parsed_files (filename) VALUES ('a.txt')",
    )
    refer(world, "a.jpg")
    world.put("media", "a.jpg")
    world.put("media", "lost.jpg")
    return world


def refer(world: World, *paths: str) -> None:
    values = ", ".join(f"(1, '{path}', '{world.now}')" for path in paths)
    sql(world.engine, f"INSERT INTO detections (event_id, file_path, detected_at) VALUES {values}")


class TestOverlappingStores:
    def test_a_store_within_another_is_left_alone_by_it(self, world: World) -> None:
        world.environ["DIRECT_UPLOADS_PATH"] = str(world.home / "media/uploads")
        world.put("media", "uploads/a.txt")
        world.put("media", "uploads/lost.txt")
        world.put("media", "uploads/deep/lost.jpg")
        report = world.clean("media", **ALL)
        assert (report.scanned, report.deleted) == (2, {"media": 1})
        assert world.files("media") == ["a.jpg", "uploads/a.txt", "uploads/deep/lost.jpg", "uploads/lost.txt"]
        # And the inner one cleans up its own.
        assert world.clean("uploads", run_id="run-2", **ALL).deleted == {"uploads": 2}
        assert column(
            world.engine, "SELECT trash_name FROM housekeeping.trashed_files WHERE store = 'uploads' ORDER BY 1"
        ) == [
            ".housekeeping-trash/run-2/deep/lost.jpg",
            ".housekeeping-trash/run-2/lost.txt",
        ]
        assert world.clean("media", run_id="run-3", **ALL).scanned == 1

    @pytest.mark.parametrize("value", ["uploads/t.txt", "/app/media/uploads/t.txt", "media/uploads/t.txt"])
    def test_the_outer_store_s_rows_keep_files_of_the_inner_one(self, world: World, value: str) -> None:
        world.environ["DIRECT_UPLOADS_PATH"] = str(world.home / "media/uploads")
        world.put("media", "uploads/a.txt")
        world.put("media", "uploads/t.txt")
        refer(world, value)
        assert world.clean("uploads", **ALL).deleted == {}

    @pytest.mark.parametrize("by", ["the same", "a link"])
    @pytest.mark.parametrize("variable", ["DIRECT_UPLOADS_PATH", "DOCUMENTS_PATH", "HOUSEKEEPING_HOME"])
    def test_one_folder_for_two_is_refused(self, world: World, tmp_path: Path, variable: str, by: str) -> None:
        folder = world.home / "media"
        if by == "a link":
            folder = tmp_path / "again"
            folder.symlink_to(world.home / "media")
        world.environ |= {variable: str(folder), "MEDIA_PATH": str(world.home / "media")}
        with pytest.raises(ConfigurationError, match="is the folder of media and of") as caught:
            world.stores["media"]
        assert "MEDIA_PATH" in (caught.value.hint or "")
        report = world.clean("media", **ALL)
        assert (report.status, report.deleted) == ("failed", {})
        assert "lost.jpg" in world.files("media")

    def test_documents_and_our_own_state_are_no_part_of_a_store(self, world: World, tmp_path: Path) -> None:
        (tmp_path / "all").mkdir()
        world.environ |= {
            "MEDIA_PATH": str(tmp_path / "all"),
            "DOCUMENTS_PATH": str(tmp_path / "all/documents"),
            "HOUSEKEEPING_HOME": str(tmp_path / "all/state"),
        }
        for name in ("a.jpg", "lost.jpg", "documents/custom/a.json", "state/media/x.jpg", "state/pg/base/1"):
            world.put("all", name)
        report = world.clean("media", **ALL)
        assert (report.scanned, report.deleted) == (2, {"media": 1})
        assert [name for name in world.files("all") if "/" in name] == [
            "documents/custom/a.json",
            "state/media/x.jpg",
            "state/pg/base/1",
        ]


@needs_root
class TestVolumes:
    @pytest.fixture
    def disk(self, world: World) -> Iterator[Path]:
        with mounted(world.home / "media/cam1") as disk:
            yield disk

    def test_files_of_a_disk_go_to_its_own_trash_and_come_back(self, world: World, disk: Path) -> None:
        refer(world, "cam1/kept.jpg")
        for name in ("cam1/kept.jpg", "cam1/deep/lost.jpg"):
            world.put("media", name)
        report = world.clean("media", **ALL)
        assert (report.status, report.deleted, report.failed_count) == ("succeeded", {"media": 2}, 0)
        assert (disk / ".housekeeping-trash/run-1/cam1/deep/lost.jpg").exists()
        assert world.clean("media", run_id="run-2", **ALL).scanned == 2
        assert world.undo().restored == {"media": 2}
        assert (disk / "deep/lost.jpg").exists()

    def test_a_worker_that_died_after_the_move_is_followed_up(self, world: World, disk: Path) -> None:
        refer(world, "cam1/kept.jpg")
        for name in ("cam1/kept.jpg", "cam1/lost.jpg"):
            world.put("media", name)
        storage = world.stores["media"].storage
        storage.move("cam1/lost.jpg", "cam1/.housekeeping-trash/run-0/cam1/lost.jpg")
        sql(
            world.engine,
            "INSERT INTO housekeeping.file_outbox (run_id, task, store, name, queued_at, next_attempt_at, attempts)"
            f" VALUES ('run-0', 'orphans', 'media', 'cam1/lost.jpg', '{world.now}', '{world.now}', 1)",
        )
        assert world.drain().deleted == {"media": 1}
        assert world.undo("run-0").restored == {"media": 1}
        assert (disk / "lost.jpg").exists()

    def test_a_disk_of_which_no_row_names_a_file_is_refused(self, world: World, disk: Path) -> None:
        refer(world, *(f"{number}.jpg" for number in range(50)))
        for number in range(50):
            world.put("media", f"{number}.jpg")
        for number in range(3):
            world.put("media", f"cam1/{number}.jpg")
        report = world.clean("media")
        assert (report.status, report.deleted) == ("refused", {})
        assert "media/cam1/, which is a volume of its own" in report.message
        assert world.clean("media", run_id="run-2", allow_empty_reference=True).deleted == {"media": 4}
        assert disk.exists()

    def test_the_share_is_that_of_the_disk(self, world: World, disk: Path) -> None:
        refer(world, *(f"{number}.jpg" for number in range(50)), "cam1/0.jpg")
        for number in range(50):
            world.put("media", f"{number}.jpg")
        for number in range(12):
            world.put("media", f"cam1/{number}.jpg")
        report = world.clean("media", guard_minimum=10)
        assert (report.status, report.deleted) == ("refused", {})
        assert "11 of 12 entries of" in report.message
        assert world.clean("media", run_id="run-2", **ALL).deleted == {"media": 12}
        assert disk.exists()


class TestSample:
    """The demo's rows name no file of a user's."""

    @pytest.fixture
    def sampled(self, engine: sa.Engine, tmp_path: Path) -> World:
        world = World(engine, tmp_path, now=datetime.now(UTC) + timedelta(minutes=1))
        reset_all(engine)
        create_sample(engine, seed=7, conversations=100, now=world.now)
        return world

    @pytest.mark.parametrize(("store", "variable"), [("media", "MEDIA_PATH"), ("uploads", "DIRECT_UPLOADS_PATH")])
    @pytest.mark.parametrize("dry_run", [True, False])
    def test_a_folder_of_the_user_s_is_refused(
        self, sampled: World, tmp_path: Path, store: str, variable: str, dry_run: bool
    ) -> None:
        sampled.environ[variable] = str(tmp_path / "mine")
        # Even where a file has the name that a row of the sample has.
        (name,) = column(sampled.engine, "SELECT file_path FROM detections WHERE file_path <> '' LIMIT 1")
        for each in ("mine.jpg", name):
            sampled.put("mine", each)
        report = sampled.clean(store, dry_run=dry_run, allow_large_deletion=True, allow_empty_reference=True)
        assert (report.status, report.deleted, report.would_delete) == ("refused", {}, {})
        assert f"the demo's sample, whose rows name no file of {store}, which {variable} names" in report.message
        assert len(sampled.files("mine")) == 2

    def test_a_bucket_of_the_user_s_is_refused_by_each_task(self, sampled: World) -> None:
        with StorageServer("documents") as far:
            sampled.environ |= {"SUPABASE_URL": far.url, "SUPABASE_KEY": far.key, "STORAGE_TRASH_PREFIX": ""}
            (key,) = column(sampled.engine, "SELECT session_key FROM processed_documents ORDER BY id LIMIT 1")
            (path,) = column(sampled.engine, "SELECT source_file_path FROM processed_documents ORDER BY id LIMIT 1")
            far.put([path, "mine/a.pdf"], bucket="documents")
            objects = sampled.clean("bucket", allow_large_deletion=True, older_than=timedelta(0))
            ended = sampled.end_sessions(run_id="run-2")
            one = sampled.end_sessions(run_id="run-3", session=key)
            assert [report.status for report in (objects, ended, one)] == ["refused"] * 3
            sql(
                sampled.engine,
                "INSERT INTO housekeeping.file_outbox (run_id, task, store, name, queued_at, next_attempt_at, attempts)"
                f" VALUES ('run-0', 't', 'bucket', 'mine/a.pdf', '{sampled.now}', '{sampled.now}', 0)",
            )
            assert sampled.drain().deleted == {}
            assert far.names("documents") == sorted([path, "mine/a.pdf"])


def reset_all(engine: sa.Engine) -> None:
    """Make room for the sample: the fixture's tables are not the demo's, and go."""
    from housekeeping_pipelines.application.tables import metadata

    metadata.drop_all(engine)
    reset_sample(engine)
