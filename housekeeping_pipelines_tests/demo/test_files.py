"""The sample's files fit its rows, come out the same twice, and never take the place of somebody's."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.application.tables import parsed_files
from housekeeping_pipelines.demo.files import create_sample_files
from housekeeping_pipelines.demo.platform import create_sample
from housekeeping_pipelines.errors import Refused
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.stores.slugs import slug
from housekeeping_pipelines_tests.deletion.support import column
from housekeeping_pipelines_tests.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from housekeeping_pipelines.settings import Settings

NOW = datetime(2019, 10, 16, 15, 30, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Sample:
    engine: sa.Engine
    home: Path

    def settings(self, **environ: str) -> Settings:
        return load_settings(self.home, {"HOUSEKEEPING_HOME": str(self.home), **environ})

    def make(self, *, seed: int = 7, **environ: str) -> dict[str, int]:
        return create_sample_files(self.engine, self.settings(**environ), seed=seed, now=NOW)

    def files(self, store: str) -> dict[str, Path]:
        root = self.home / store
        return {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}

    def whole(self) -> dict[str, tuple[bytes, float]]:
        """Content and time of every file."""
        return {
            str(path.relative_to(self.home)): (path.read_bytes(), path.stat().st_mtime)
            for store in ("uploads", "media", "bucket")
            for path in self.files(store).values()
        }


@pytest.fixture
def sample(engine: sa.Engine, tmp_path: Path) -> Sample:
    create_sample(engine, conversations=300, now=NOW)
    return Sample(engine, tmp_path)


def test_most_names_of_rows_have_a_file_of_the_same_time_and_some_files_no_row(sample: Sample) -> None:
    made = sample.make()
    queries: dict[str, sa.Executable] = {
        "uploads": sa.select(parsed_files.c.filename, parsed_files.c.created_at),
        "media": sa.text(
            "SELECT file_path, detected_at FROM detections UNION ALL SELECT thumbnail_path, detected_at FROM detections"
            " UNION ALL SELECT clip_path, started_at FROM security_events"
        ),
        "bucket": sa.text(
            "SELECT unnest(ARRAY[source_file_path, excel_file_path, pdf_file_path, doc_file_path]), created_at"
            " FROM processed_documents"
        ),
    }
    for store, query in queries.items():
        with sample.engine.connect() as connection:
            named = {name: moment for name, moment in connection.execute(query) if name}
        if store == "uploads":
            named = {slug(name): moment for name, moment in named.items()}
        files = sample.files(store)
        assert made[store] == len(files)
        there = named.keys() & files.keys()
        assert 0.9 * len(named) <= len(there) <= len(named)
        for name in there:
            assert abs(files[name].stat().st_mtime - named[name].timestamp()) < 1, name
            assert 200 <= files[name].stat().st_size <= 8192
        orphans = [path.stat().st_mtime for name, path in files.items() if name not in named]
        assert 0.03 * len(files) < len(orphans) < 0.3 * len(files)
        assert min(orphans) < (NOW - 2 * DAY).timestamp()
        assert max(orphans) <= NOW.timestamp()
    assert {"notes.txt", "calibration.csv"} < sample.files("media").keys()


def test_the_tasks_find_in_it_what_they_are_for(sample: Sample) -> None:
    sample.make()
    world = World(sample.engine, sample.home, now=NOW)
    for store in ("uploads", "media", "bucket"):
        report = world.clean(store, dry_run=True, older_than=timedelta(hours=24))
        assert report.status == "succeeded", report
        assert report.orphaned_files > 0, store
    assert world.clean("media", dry_run=True, older_than=timedelta(hours=24)).missing_count > 0


def test_a_seed_makes_the_same_files_again_and_another_makes_others(sample: Sample) -> None:
    sample.make()
    first = sample.whole()
    # What a run left in a trash belongs to rows that are no more.
    trash = sample.home / "media" / ".housekeeping-trash"
    trash.mkdir()
    shutil.move(next(iter(sample.files("media").values())), trash / "x.jpg")
    (trash / "y.jpg").write_bytes(b"mine")
    sample.make()
    assert sample.whole() == first
    sample.make(seed=8)
    assert sample.whole() != first


def test_what_somebody_put_there_stays(sample: Sample) -> None:
    sample.make()
    name = min(sample.files("uploads"))
    theirs = {
        sample.home / "uploads" / "mine.pdf": b"mine",
        # Even one that has the name of a file of the sample's.
        sample.home / "uploads" / name: b"mine, too",
        sample.home / "media" / "holiday" / "beach.jpg": b"",
    }
    for path, content in theirs.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    outside = sample.home / "outside"
    outside.write_bytes(b"made by housekeeping demo\nand kept elsewhere")
    (sample.home / "media" / "link.jpg").symlink_to(outside)
    for _ in range(2):
        sample.make()
    assert {path: path.read_bytes() for path in theirs} == theirs
    assert outside.exists()
    assert (sample.home / "media" / "link.jpg").is_symlink()


def test_a_store_that_is_configured_is_left_alone(sample: Sample) -> None:
    media = sample.home / "cameras"
    media.mkdir()
    made = sample.make(MEDIA_PATH=str(media), SUPABASE_URL="http://127.0.0.1:1", SUPABASE_KEY="key")
    assert list(made) == ["uploads"]
    assert list(media.iterdir()) == []
    assert sorted(path.name for path in sample.home.iterdir()) == ["cameras", "uploads"]


def test_a_folder_that_is_a_link_is_refused_and_what_it_leads_to_stays(sample: Sample) -> None:
    theirs = sample.home / "theirs"
    theirs.mkdir()
    (theirs / "a.jpg").write_bytes(b"made by housekeeping demo\n")
    (sample.home / "media").symlink_to(theirs)
    with pytest.raises(Refused, match="which is a link to"):
        sample.make()
    assert [path.name for path in theirs.iterdir()] == ["a.jpg"]
    assert not (sample.home / "uploads").exists()
    assert column(sample.engine, "SELECT 1 FROM parsed_files LIMIT 1") == [1]
