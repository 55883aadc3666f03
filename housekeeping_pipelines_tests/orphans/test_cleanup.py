"""What nothing refers to goes, within its guards and budgets; what is in use, held, young or foreign stays."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.deletion.holds import add_hold, add_name_hold
from housekeeping_pipelines.deletion.pause import pause
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.orphans.definitions import MEDIA_EXTENSIONS
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.resources.object_storage import StorageRefused
from housekeeping_pipelines.resources.object_storage.local_folder import LocalFolder
from housekeeping_pipelines.stores.subjects import held_names
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import Watcher, column, sql
from housekeeping_pipelines_tests.storage_server import Fault, StorageServer
from housekeeping_pipelines_tests.world import DAY, HOUR, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import sqlalchemy as sa


@pytest.fixture
def world(engine: sa.Engine, tmp_path: Path) -> World:
    world = World(engine, tmp_path)
    sql(engine, f"INSERT INTO security_events (risk_level, risk_score, started_at) VALUES ('low', 1, '{NOW}')")
    return world


@pytest.fixture
def far() -> Iterator[StorageServer]:
    with StorageServer("documents") as far:
        yield far


@pytest.fixture
def remote(engine: sa.Engine, tmp_path: Path, far: StorageServer) -> World:
    """The bucket is a server's, whose clock is the real one; one session is live."""
    environ = {"SUPABASE_URL": far.url, "SUPABASE_KEY": far.key, "STORAGE_TRASH_PREFIX": ""}
    world = World(engine, tmp_path, environ, now=datetime.now(UTC) + timedelta(minutes=1))
    world.session("live", "live/a.pdf", idle=timedelta(0))
    far.put(["live/a.pdf"], bucket="documents")
    return world


def refer(world: World, *paths: str) -> None:
    for path in paths:
        sql(
            world.engine,
            f"INSERT INTO detections (event_id, file_path, detected_at) VALUES (1, '{path}', '{NOW}')",
        )


def use(world: World) -> None:
    """A file that a row names: without one, every file would be an orphan."""
    world.put("media", "used.jpg")
    refer(world, "used.jpg")


def at_plan(act: Callable[[], None]) -> Watcher:
    """An observer that acts between the search and the first removal."""

    class Acting(Watcher):
        def on_start(self, task: str, what: str, candidates: int, *, dry_run: bool) -> None:
            super().on_start(task, what, candidates, dry_run=dry_run)
            act()

    return Acting()


def test_what_no_row_names_goes_and_comes_back(world: World) -> None:
    refer(world, "gate/used.jpg", f"{world.home}/media/gate/absolute.jpg", "gate/./x/../with space.jpg")
    sql(world.engine, "UPDATE security_events SET clip_path = 'clips/used.mp4'")
    used = ["clips/used.mp4", "gate/absolute.jpg", "gate/used.jpg", "gate/with space.jpg"]
    for name in [*used, "gate/orphan.JPG", "gate/notes.txt"]:
        world.put("media", name)
    world.put("media", "gate/young.jpg", age=HOUR)
    dry = world.clean("media", dry_run=True, pattern=MEDIA_EXTENSIONS)
    assert (dry.deleted_files, dry.deleted_bytes, dry.would_delete, dry.would_delete_bytes) == (0, 0, {"media": 1}, 7)
    report = world.clean("media", pattern=MEDIA_EXTENSIONS)
    assert (report.status, report.deleted, report.deleted_files, report.deleted_bytes) == (
        "succeeded",
        {"media": 1},
        1,
        7,
    )
    assert (report.scanned_files, report.orphaned_files, report.skipped_young) == (7, 1, 1)
    assert report.skipped == dict.fromkeys(report.skipped, 0) | {"young": 1, "unrecognised": 1}
    assert [found.item for found in report.largest] == ["media/gate/orphan.JPG"]
    assert world.files("media") == sorted([*used, "gate/notes.txt", "gate/young.jpg"])
    assert json.loads(json.dumps(report.to_dict()))["deleted_files"] == 1
    assert world.undo().restored == {"media": 1}
    assert (world.home / "media/gate/orphan.JPG").read_text() == "content"


def test_uploads_are_known_by_their_raw_and_their_slugged_names(world: World) -> None:
    for name in ("Annual Report (final).pdf", "plain.txt"):
        sql(world.engine, f"INSERT INTO parsed_files (filename) VALUES ('{name}')")
    for name in ("Annual-Report-(final).pdf", "Annual Report (final).pdf", "plain.txt", "annual-report.pdf"):
        world.put("uploads", name)
    sql(world.engine, "INSERT INTO parsed_files (filename) VALUES ('No Such File.pdf')")
    report = world.clean("uploads", older_than=HOUR)
    assert world.files("uploads") == ["Annual Report (final).pdf", "Annual-Report-(final).pdf", "plain.txt"]
    assert (report.missing_count, report.missing_files) == (1, ("No Such File.pdf",))


def test_a_failed_or_an_empty_reference_deletes_nothing(world: World) -> None:
    world.put("media", "orphan.jpg")
    refused = world.clean("media")
    assert (refused.status, refused.deleted) == ("refused", {})
    assert "no row names anything in" in refused.message
    use(world)
    # A column that the mapping does not declare as lacking may be one that moved.
    sql(world.engine, "ALTER TABLE detections RENAME thumbnail_path TO thumb_path")
    failed = world.clean("media", run_id="run-2")
    assert (failed.status, failed.deleted) == ("failed", {})
    assert "no column thumbnail_path; the nearest names are thumb_path" in failed.message
    sql(world.engine, "ALTER TABLE detections RENAME file_path TO path")
    skipped = world.clean("media", run_id="run-3")
    assert (skipped.status, skipped.error_type, skipped.deleted) == ("skipped", "Absent", {})
    assert world.files("media") == ["orphan.jpg", "used.jpg"]


@pytest.mark.parametrize("store", ["media", "bucket"])
def test_what_is_referred_to_after_the_search_stays(world: World, store: str) -> None:
    for number in range(4):
        world.put(store, f"x/{number}.jpg")
    if store == "media":
        use(world)
        world.observer = at_plan(lambda: refer(world, "x/2.jpg"))
    else:
        world.session("live", "used.jpg")
        world.put("bucket", "used.jpg")
        world.observer = at_plan(lambda: world.session("back", "x/2.jpg"))
    report = world.clean(store)
    assert (report.deleted, report.skipped["in_use"]) == ({store: 3}, 1)
    assert world.files(store) == ["used.jpg", "x/2.jpg"]


def test_what_is_written_anew_after_the_search_stays(world: World) -> None:
    use(world)
    world.put("media", "a.jpg")
    world.put("media", "b.jpg")
    world.observer = at_plan(lambda: [world.put("media", "b.jpg", age=timedelta(0), content="new")].clear())
    report = world.clean("media")
    assert (report.deleted, report.skipped["in_use"]) == ({"media": 1}, 1)
    assert (world.home / "media/b.jpg").read_text() == "new"


def test_budgets_stop_before_and_take_the_oldest_first(world: World) -> None:
    use(world)
    for number in range(5):
        world.put("media", f"{number}.jpg", age=(10 - number) * DAY, content="x" * 10)
    dry = world.clean("media", max_bytes=25, dry_run=True)
    assert (dry.would_delete, dry.stopped_reason, dry.skipped["budget"]) == ({"media": 2}, "max_gigabytes", 3)
    assert [found.item for found in dry.sample] == ["media/0.jpg", "media/1.jpg"]
    report = world.clean("media", max_bytes=25)
    assert (report.deleted, report.deleted_bytes, report.skipped_size_limit) == ({"media": 2}, 20, 3)
    assert world.clean("media", run_id="run-2", max_files=1).stopped_reason == "max_files"
    assert world.files("media") == ["3.jpg", "4.jpg", "used.jpg"]
    assert world.clean("media", run_id="run-3", max_seconds=1e-9).stopped_reason == "max_seconds"


def test_more_than_half_of_a_store_is_refused(world: World) -> None:
    refer(world, *(f"{number}.jpg" for number in range(3)))
    for number in range(10):
        world.put("media", f"{number}.jpg")
    refused = world.clean("media", guard_minimum=5)
    assert (refused.status, len(world.files("media"))) == ("refused", 10)
    assert "7 of 10 entries" in refused.message
    assert world.clean("media", guard_minimum=5, allow_large_deletion=True).deleted == {"media": 7}


def test_a_pause_refuses_a_run_and_stops_one_on_its_way(world: World) -> None:
    use(world)
    for number in range(3):
        world.put("media", f"{number}.jpg")

    def stop() -> None:
        with world.engine.begin() as connection:
            pause(connection, reason="a test", now=NOW)

    world.observer = at_plan(stop)
    report = world.clean("media")
    assert (report.status, report.stopped_reason, report.deleted) == ("succeeded", "paused", {})
    assert world.clean("media").status == "refused"
    assert len(world.files("media")) == 4


@pytest.mark.parametrize("late", [False, True])
def test_a_held_file_stays_also_if_it_is_held_only_now(world: World, late: bool) -> None:
    use(world)
    for name in ("held.jpg", "free.jpg"):
        world.put("media", name)

    def hold() -> None:
        with world.engine.begin() as connection:
            add_name_hold(
                connection, type="file", store="media", names=["held.jpg"], subject="file:media/held.jpg",
                until=NOW + DAY, reason="case", now=NOW,
            )  # fmt: skip

    if late:
        world.observer = at_plan(hold)
    else:
        hold()
    report = world.clean("media")
    assert (report.deleted, report.skipped["held"]) == ({"media": 1}, 1)
    assert world.files("media") == ["held.jpg", "used.jpg"]


def test_a_held_folder_holds_what_is_in_it(world: World) -> None:
    use(world)
    for name in ("case 7/a.jpg", "case 7/deep/b.jpg", "case 77/c.jpg", "case 7.jpg"):
        world.put("media", name)
    names = held_names(world.stores["media"], "case%207")
    assert names == ["case 7/"]
    with world.engine.begin() as connection:
        add_name_hold(
            connection, type="file", store="media", names=names, subject="file:media/case%207", until=NOW + DAY,
            reason="case", now=NOW,
        )  # fmt: skip
    report = world.clean("media")
    assert (report.deleted, report.skipped["held"]) == ({"media": 2}, 2)
    assert world.files("media") == ["case 7/a.jpg", "case 7/deep/b.jpg", "used.jpg"]


def test_a_hold_names_a_file_in_any_form_and_nothing_that_is_not_there(world: World) -> None:
    world.put("media", "case/a b.jpg")
    store = world.stores["media"]
    assert held_names(store, "case/a%20b.jpg") == ["case/a b.jpg"]
    assert held_names(store, str(world.home / "media/case/a b.jpg")) == ["case/a b.jpg"]
    with pytest.raises(ConfigurationError, match=r"there is no file or folder 'case/c.jpg' in"):
        held_names(store, "case/c.jpg")


def test_a_held_session_covers_its_folder_in_the_bucket(world: World) -> None:
    world.session("live", "live/a.pdf")
    world.put("bucket", "live/a.pdf")
    world.session("held", "held/a.pdf")
    with world.engine.begin() as connection:
        table = Catalog(connection).find("upload_sessions")
        assert table is not None
        add_hold(
            connection, type="session", table=table, key=("held",), subject="session:held", until=NOW + DAY,
            reason="case", now=NOW,
        )  # fmt: skip
    sql(world.engine, "DELETE FROM processed_documents WHERE session_key = 'held'",
        "DELETE FROM upload_sessions WHERE session_key = 'held'")  # fmt: skip
    for name in ("held/a.pdf", "live/unnamed.pdf", "gone/a.pdf"):
        world.put("bucket", name)
    report = world.clean("bucket")
    assert (report.deleted, report.skipped["held"], report.skipped["in_use"]) == ({"bucket": 1}, 1, 1)
    assert world.files("bucket") == ["held/a.pdf", "live/a.pdf", "live/unnamed.pdf"]


@pytest.mark.parametrize("path", ["../outside", "/etc", "link"])
def test_a_base_path_outside_of_the_store_is_refused(world: World, path: str) -> None:
    world.put("media", "inside/a.jpg")
    (world.home / "outside").mkdir()
    (world.home / "media" / "link").symlink_to(world.home / "outside")
    report = world.clean("media", base_path=path)
    assert (report.status, report.error_type) == ("failed", "ConfigurationError")
    assert "is not within" in report.message


def test_a_base_path_limits_the_run(world: World) -> None:
    use(world)
    for name in ("inside/a.jpg", "inside2/b.jpg"):
        world.put("media", name)
    assert world.clean("media", base_path="inside").deleted == {"media": 1}
    assert world.files("media") == ["inside2/b.jpg", "used.jpg"]
    absolute = str(world.home / "media" / "inside2")
    assert world.clean("media", run_id="run-2", base_path=absolute).deleted == {"media": 1}


REFERENCES = "references: {media: [{table: exports, column: paths}]}\n"


def exports(world: World, paths: str, config: str = REFERENCES) -> None:
    """A table of a platform that no task knows, declared to name files."""
    sql(world.engine, "CREATE TABLE exports (paths jsonb)", f"INSERT INTO exports VALUES ('{paths}')")
    (world.home / "housekeeping.yaml").write_text(config)


def test_further_references_are_declared(world: World) -> None:
    use(world)
    exports(world, '[{"file": "exports/1.mp4"}, {"file": "exports/front%20door.mp4"}]')
    for name in ("exports/1.mp4", "exports/front door.mp4", "exports/2.mp4"):
        world.put("media", name)
    assert world.clean("media").deleted == {"media": 1}
    assert world.files("media") == ["exports/1.mp4", "exports/front door.mp4", "used.jpg"]


def test_references_that_are_no_longer_declared_refuse_the_run_until_it_is_said_that_it_is_meant(world: World) -> None:
    use(world)
    exports(world, '["exports/1.mp4"]')
    for name in ("exports/1.mp4", "lost.jpg"):
        world.put("media", name)
    assert world.clean("media").deleted == {"media": 1}
    (world.home / "housekeeping.yaml").unlink()
    refused = world.clean("media", run_id="run-2")
    assert refused.status == "refused"
    assert "exports.paths named files in" in refused.message
    assert "is not one of the references any more" in refused.message
    assert world.clean("media", run_id="run-3", allow_empty_reference=True).deleted == {"media": 1}
    assert world.clean("media", run_id="run-4").status == "succeeded"


def test_a_source_that_is_emptied_refuses_and_one_that_never_had_values_does_not(world: World) -> None:
    use(world)
    sql(world.engine, "UPDATE security_events SET clip_path = 'clip.mp4'")
    world.put("media", "clip.mp4")
    world.put("media", "lost.jpg")
    assert world.clean("media").deleted == {"media": 1}
    sql(world.engine, "UPDATE security_events SET clip_path = NULL")
    refused = world.clean("media", run_id="run-2")
    assert (refused.status, world.files("media")) == ("refused", ["clip.mp4", "used.jpg"])
    assert "security_events.clip_path has no values; on" in refused.message


def test_each_source_is_judged_by_itself(world: World) -> None:
    use(world)
    for number in range(30):
        world.put("media", f"cam/{number}.jpg")
        world.put("media", f"rec/{number}.mp4")
    refer(world, *(f"cam/{number}.jpg" for number in range(30)))
    sql(world.engine, "UPDATE security_events SET clip_path = '/elsewhere/of/another/name.mp4'")
    refused = world.clean("media")
    assert (refused.status, len(world.files("media"))) == ("refused", 61)
    assert "not one of the 1 values of security_events.clip_path names anything" in refused.message
    assert "such as '/elsewhere/of/another/name.mp4'" in refused.message


def test_many_references_without_a_file_are_warned_of(world: World) -> None:
    use(world)
    world.put("media", "lost.jpg")
    refer(world, *(f"gone/{number}.jpg" for number in range(12)))
    report = world.clean("media")
    assert (report.deleted, report.missing_count) == ({"media": 1}, 12)
    assert report.warnings[0].startswith("12 of 13 values of detections.file_path name no file in")


def test_files_of_rows_in_the_trash_stay_until_these_are_gone(world: World) -> None:
    use(world)
    config = "retention:\n  - {table: security_events, age_column: started_at, older_than_days: 60}\n"
    (world.home / "housekeeping.yaml").write_text(config)
    sql(
        world.engine,
        "INSERT INTO security_events (id, risk_level, risk_score, started_at, clip_path)"
        f" VALUES (9, 'low', 1, '{NOW - 90 * DAY}', '/app/media/clip.mp4')",
    )
    world.put("media", "clip.mp4")
    assert world.delete_by_rule().deleted == {"security_events": 1}
    assert world.clean("media", run_id="run-2").deleted == {}
    assert world.purge().status == "succeeded"
    assert world.clean("media", run_id="run-3", allow_empty_reference=True).deleted == {"media": 1}


def test_an_undo_of_rows_brings_their_files_back_from_other_runs_and_names_those_that_are_gone(world: World) -> None:
    use(world)
    config = "retention:\n  - {table: security_events, age_column: started_at, older_than_days: 60}\n"
    (world.home / "housekeeping.yaml").write_text(config)
    for number, clip in ((8, "media/clip%208.mp4"), (9, "gone.mp4")):
        sql(
            world.engine,
            "INSERT INTO security_events (id, risk_level, risk_score, started_at, clip_path)"
            f" VALUES ({number}, 'low', 1, '{NOW - 90 * DAY}', '{clip}')",
        )
    world.put("media", "clip 8.mp4")
    # As an older version did it, for which rows in the trash were no references.
    sql(world.engine, "ALTER TABLE security_events RENAME COLUMN clip_path TO clip")
    (world.home / "housekeeping.yaml").write_text(config + "tables: {security_events: {columns: {clip_path: clip}}}\n")
    assert world.delete_by_rule().deleted == {"security_events": 2}
    trashed = world.home / "media/.housekeeping-trash/run-2/clip 8.mp4"
    trashed.parent.mkdir(parents=True)
    (world.home / "media/clip 8.mp4").rename(trashed)
    sql(
        world.engine,
        "INSERT INTO housekeeping.trashed_files (run_id, task, store, name, trash_name, bytes, deleted_at) VALUES"
        f" ('run-2', 'orphans', 'media', 'clip 8.mp4', '.housekeeping-trash/run-2/clip 8.mp4', 7, '{NOW}')",
    )
    report = world.undo()
    assert (report.status, report.restored) == ("succeeded", {"security_events": 2, "media": 1})
    assert world.files("media") == ["clip 8.mp4", "used.jpg"]
    assert "1 files that restored rows name do not exist: media/gone.mp4" in report.warnings


@pytest.mark.parametrize(
    "name",
    [
        "a/.emptyFolderPlaceholder", "#recycle/a.jpg", "@eaDir/a.jpg/b.jpg", "a/.stversions/b",
        ".Trash-1000/files/a.jpg", "$RECYCLE.BIN/S-1/a.jpg", "a.jpg.part", "b.crdownload", ".a.jpg.Xy12z3", "~$a.docx",
        "a/Thumbs.db", ".git/objects/a", "lost+found/#123", ".nfs0001", "a/.housekeeping-trash/run-9/b.jpg",
    ],
)  # fmt: skip
def test_files_of_other_programs_and_files_that_are_not_complete_are_left(world: World, name: str) -> None:
    use(world)
    world.put("media", name)
    report = world.clean("media")
    assert report.deleted == {}
    assert world.files("media") == sorted([name, "used.jpg"])


def test_a_user_excludes_folders_and_patterns(world: World) -> None:
    use(world)
    (world.home / "housekeeping.yaml").write_text('exclude:\n  media: ["/faces/", "*.npy", "!*.tmp"]\n')
    for name in ("faces/ann/1.jpg", "a/faces/2.jpg", "a/3.npy", "b.tmp"):
        world.put("media", name)
    report = world.clean("media")
    assert (report.deleted, report.skipped["unrecognised"]) == ({"media": 2}, 2)
    assert world.files("media") == ["a/3.npy", "faces/ann/1.jpg", "used.jpg"]


def test_a_file_that_exceeds_the_budget_alone_is_passed_over(world: World) -> None:
    use(world)
    world.put("media", "long.mp4", age=60 * DAY, content="x" * 100)
    for number in range(3):
        world.put("media", f"{number}.jpg", content="x" * 10)
    report = world.clean("media", max_bytes=50)
    assert (report.deleted, report.stopped_reason, report.skipped["budget"]) == ({"media": 3}, None, 1)
    assert report.warnings[-1].startswith("media/long.mp4 (100 B) exceeds max_gigabytes (50 B) alone: passed over")
    assert world.files("media") == ["long.mp4", "used.jpg"]


def test_a_file_that_cannot_go_has_no_entry_for_each_run(world: World) -> None:
    use(world)
    world.put("media", "lost.jpg")

    class Refusing(LocalFolder):
        def move(self, source: str, target: str) -> None:
            raise StorageRefused("no permission")

    for number in range(3):
        stores = world.stores
        stores._opened["media"] = replace(stores["media"], storage=Refusing(world.home / "media", trust_mtime=True))
        report = world.clean("media", run_id=f"run-{number}", stores=stores)
        assert (report.status, report.failed_deletions) == ("partial", ("lost.jpg",))
    assert column(world.engine, "SELECT name FROM housekeeping.file_outbox") == []


def test_an_entry_that_an_earlier_run_left_is_used_again_and_belongs_to_the_later_run(world: World) -> None:
    use(world)
    path = world.put("media", "lost.jpg")
    found = world.stores["media"].storage.stat("lost.jpg")
    assert found is not None
    sql(
        world.engine,
        "INSERT INTO housekeeping.file_outbox"
        " (run_id, task, store, name, modified, queued_at, next_attempt_at, attempts, last_error)"
        f" VALUES ('run-0', 'orphans', 'media', 'lost.jpg', '{found.modified}', '{NOW}', '{NOW + DAY}', 1, 'down')",
    )
    assert world.clean("media").deleted == {"media": 1}
    assert column(world.engine, "SELECT name FROM housekeeping.file_outbox") == []
    assert world.undo("run-1").restored == {"media": 1}
    assert path.exists()


def test_links_and_rows_lead_nowhere_outside(world: World) -> None:
    outside = world.put("outside", "secret.jpg")
    refer(world, "../outside/secret.jpg", "/etc/passwd")
    sql(world.engine, "UPDATE security_events SET clip_path = 'used.mp4'")
    use(world)
    for name in ("used.mp4", "orphan.jpg"):
        world.put("media", name)
    (world.home / "media" / "etc").symlink_to("/etc")
    (world.home / "media" / "file.jpg").symlink_to(outside)
    report = world.clean("media")
    assert (report.deleted, report.scanned, report.missing_count) == ({"media": 1}, 3, 2)
    assert outside.exists()
    assert (world.home / "media" / "file.jpg").is_symlink()


@pytest.mark.parametrize("leads_to", ["2026", "2026/a.jpg"])
def test_a_link_within_the_store_refuses_the_run(world: World, leads_to: str) -> None:
    """A row may name a file by way of the link, and its own name would be nobody's."""
    use(world)
    world.put("media", "2026/a.jpg")
    refer(world, "current/a.jpg" if leads_to == "2026" else "current")
    link = world.home / "media" / "current"
    link.symlink_to(leads_to)
    report = world.clean("media")
    assert (report.status, report.deleted) == ("refused", {})
    assert "has links within itself, such as current" in report.message
    link.unlink()
    link.symlink_to("nowhere")
    sql(world.engine, "DELETE FROM detections WHERE file_path <> 'used.jpg'")
    assert world.clean("media", run_id="run-2").deleted == {"media": 1}


@pytest.mark.parametrize("name", ["new\nline.jpg", "tab\t.jpg", 'quote".jpg', "back\\slash.jpg", "é" * 125 + ".jpg"])
def test_names_of_every_kind_go_and_come_back(world: World, name: str) -> None:
    use(world)
    world.put("media", name)
    assert world.clean("media").deleted == {"media": 1}
    assert world.files("media") == ["used.jpg"]
    assert world.undo().restored == {"media": 1}
    assert world.files("media") == sorted([name, "used.jpg"])


def test_progress_is_told_at_each_tenth(world: World, caplog: pytest.LogCaptureFixture) -> None:
    use(world)
    for number in range(20):
        world.put("media", f"{number}.jpg")
    with caplog.at_level(logging.INFO, "housekeeping_pipelines.orphans.cleanup"):
        world.clean("media", batch_size=1)
    told = [record.getMessage() for record in caplog.records if "%" in record.getMessage()]
    assert told == [f"orphans: {tenth} % of 20 files" for tenth in range(10, 110, 10)]


def test_objects_that_nothing_names_are_gone_for_good_without_a_trash(remote: World, far: StorageServer) -> None:
    far.put(["gone/Dir/a b.pdf", "gone/dir/A b.pdf", "Gone/x.pdf"], bucket="documents")
    assert remote.clean("bucket").skipped["young"] == 3
    report = remote.clean("bucket", older_than=timedelta(0), allow_large_deletion=True)
    assert (report.deleted, report.for_good) == ({"bucket": 3}, {"bucket": 3})
    assert far.names("documents") == ["live/a.pdf"]


@pytest.mark.parametrize("count", [1000, 1001, 2500])
def test_a_page_of_the_listing_ends_anywhere(remote: World, far: StorageServer, count: int) -> None:
    far.put([f"gone/{number:05}.pdf" for number in range(count - 1)], bucket="documents")
    report = remote.clean("bucket", older_than=timedelta(0), allow_large_deletion=True)
    assert (report.scanned, report.deleted) == (count, {"bucket": count - 1})


def test_ten_thousand_objects_take_two_requests_for_each_five_hundred(remote: World, far: StorageServer) -> None:
    far.put([f"gone/{number:05}.pdf" for number in range(10_000)], bucket="documents")
    far.requests.clear()
    report = remote.clean("bucket", older_than=timedelta(0), allow_large_deletion=True, batch_size=2000)
    assert report.deleted == {"bucket": 10_000}
    counts = far.counts()
    assert counts["remove"] == 20
    listing = 11
    assert sum(counts.values()) <= 2 * 20 + listing + 1


def test_a_key_without_permission_deletes_nothing_and_says_so(remote: World, far: StorageServer) -> None:
    far.put(["gone/a.pdf"], bucket="documents")
    remote.environ["SUPABASE_KEY"] = far.key_for("reader")
    report = remote.clean("bucket", older_than=timedelta(0))
    assert (report.status, report.deleted, report.failed_count) == ("partial", {}, 1)
    assert far.names("documents") == ["gone/a.pdf", "live/a.pdf"]


@pytest.mark.parametrize("wrong", ["bucket", "anon", "key"])
def test_what_looks_like_an_empty_store_is_told_from_one(remote: World, far: StorageServer, wrong: str) -> None:
    if wrong == "bucket":
        remote.environ["SUPABASE_BUCKET"] = "another"
    else:
        remote.environ["SUPABASE_KEY"] = (
            far.key_for("anon") if wrong == "anon" else far.key_for("service_role", secret="other")
        )
    report = remote.clean("bucket", older_than=timedelta(0))
    assert (report.status, report.error_type) == ("failed", "ConfigurationError")
    assert "SUPABASE_" in report.message


def test_what_somebody_else_deletes_half_way_is_no_failure(remote: World, far: StorageServer) -> None:
    far.put([f"gone/{number}.pdf" for number in range(10)], bucket="documents")

    def delete_half() -> None:
        for number in range(5):
            del far.buckets["documents"][f"gone/{number}.pdf"]
        far.changed()

    remote.observer = at_plan(delete_half)
    report = remote.clean("bucket", older_than=timedelta(0), allow_large_deletion=True)
    assert (report.status, report.deleted) == ("succeeded", {"bucket": 5})


def test_one_that_storage_cannot_delete_is_named_and_the_rest_goes(remote: World, far: StorageServer) -> None:
    far.put([f"gone/{number}.pdf" for number in range(6)], bucket="documents")
    far.put(["gone/3.pdf"], bucket="documents", undeletable=True)
    report = remote.clean("bucket", older_than=timedelta(0), allow_large_deletion=True)
    assert report.status == "partial"
    assert report.failed_deletions == ("gone/3.pdf",)
    assert far.names("documents") == ["gone/3.pdf", "live/a.pdf"]


def test_storage_that_goes_down_on_the_way_leaves_the_rest_to_the_next_run(remote: World, far: StorageServer) -> None:
    far.put([f"gone/{number}.pdf" for number in range(10)], bucket="documents")
    remote.observer = at_plan(far.stop)
    report = remote.clean("bucket", older_than=timedelta(0), allow_large_deletion=True)
    far.start()
    assert (report.status, report.deleted, report.error_type) == ("failed", {}, "Unavailable")
    sql(remote.engine, "DELETE FROM housekeeping.circuit_breakers")
    remote.now += HOUR
    drained = remote.drain()
    assert (drained.status, drained.deleted) == ("succeeded", {"bucket": 10})
    assert column(remote.engine, "SELECT name FROM housekeeping.file_outbox") == []
    assert far.names("documents") == ["live/a.pdf"]


def test_a_busy_server_is_asked_again(remote: World, far: StorageServer) -> None:
    far.put(["gone/a.pdf"], bucket="documents")
    far.faults.append(Fault("json", "remove", status=429, headers=(("Retry-After", "0"),)))
    assert remote.clean("bucket", older_than=timedelta(0)).deleted == {"bucket": 1}


def test_a_lost_connection_takes_no_count_away(world: World) -> None:
    for number in range(6):
        world.put("media", f"cam/{number}.jpg")
    refer(world, "cam/kept.jpg")
    world.put("media", "cam/kept.jpg")

    def end(step: int) -> None:
        if step == 2:
            sql(
                world.engine,
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )

    world.observer = Watcher(end)
    report = world.clean("media", batch_size=2, max_fraction=1.0)
    assert (report.status, report.error_type) == ("failed", "Unavailable")
    assert (report.deleted, report.deleted_files, len(report.largest)) == ({"media": 4}, 4, 6)
    assert len(world.files("media")) == 3
    world.observer = Watcher()
    assert world.clean("media", max_fraction=1.0).deleted == {"media": 2}
