"""What is found to be an orphan, and above all what is not."""

from __future__ import annotations

import os
import resource
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.errors import ConfigurationError, Refused
from housekeeping_pipelines.orphans.listing import Kind
from housekeeping_pipelines.orphans.search import Kept
from housekeeping_pipelines.resources.object_storage import StoredObject
from housekeeping_pipelines.resources.object_storage.local_folder import LocalFolder
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import sql
from housekeeping_pipelines_tests.orphans.support import MEDIA, make, media, names, search, source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE = Limits(allow_large_deletion=True)


@pytest.fixture
def root(engine: sa.Engine, tmp_path: Path) -> Path:
    """An empty folder beside an empty table of detections."""
    sql(engine, "CREATE TABLE detections (id bigserial PRIMARY KEY, file_path text, thumbnail text)")
    folder = tmp_path / "media"
    folder.mkdir()
    return folder


def refer(engine: sa.Engine, *paths: str) -> None:
    with engine.begin() as connection:
        table = sa.table("detections", sa.column("file_path"))
        connection.execute(sa.insert(table), [{"file_path": path} for path in paths])


class Interrupted(LocalFolder):
    """A folder in which something happens when the first of the listing was read, or when all of it was."""

    def __init__(self, root: Path, *, first: Callable[[], object] | None = None, last: Callable[[], object]) -> None:
        super().__init__(root, trust_mtime=True)
        self.first, self.last = first, last

    def name_chunks(self, prefix: str = "", size: int = 1) -> Iterator[list[str]]:
        for number, chunk in enumerate(super().name_chunks(prefix, 1)):
            yield chunk
            if number == 0 and self.first is not None:
                self.first()
        self.last()


class Bucket(LocalFolder):
    """A store that knows sizes and times as it lists, with a file of an unknown time."""

    name_chunks = None  # type: ignore[assignment]

    def list(self, prefix: str = "", *, details: bool = True) -> Iterator[StoredObject]:
        yield from super().list(prefix, details=details)
        yield StoredObject(prefix + "timeless.jpg", None, None)
        yield StoredObject(prefix + "bad\udcff.jpg", 1, NOW - timedelta(days=9))


def test_both_directions(engine: sa.Engine, root: Path) -> None:
    make(root, "in/use.jpg", "in/thumb.jpg")
    make(root, "lost.jpg", "in/lost.PNG", size=10)
    make(root, "young.jpg", hours=23)
    make(root, "notes.txt", "jpg", "x.jpg.part")
    sql(
        engine,
        f"INSERT INTO detections (file_path, thumbnail) VALUES ('in/use.jpg', '{root}/in/thumb.jpg'),"
        " ('gone.jpg', NULL), ('gone.jpg', ''), ('/etc/passwd', '../outside.jpg'), ('also gone.txt', 'notes.txt')",
    )
    with engine.connect() as connection:
        found = search(connection, root, *media(engine, root), kind=Kind(extensions={"JPG", ".png"}))
        assert names(found.candidates(10)) == ["in/lost.PNG", "lost.jpg"]
        assert found.cut().bytes == 20
    findings = found.findings
    assert (findings.scanned, findings.orphaned) == (8, 2)
    assert (findings.young, findings.unrecognised, findings.held) == (1, 2, 0)
    assert (findings.missing_count, findings.missing) == (
        4,
        ("../outside.jpg", "/etc/passwd", "also gone.txt", "gone.jpg"),
    )
    assert findings.warnings == ()


def test_strange_names_are_their_own_reading(engine: sa.Engine, root: Path) -> None:
    strange = [
        "new\nline", "tab\tand\rreturn", "back\\slash\\n\\.", "\\.", "\\N", "quote'\"s", "100%s %(x)s", "é", "è",
        "UPPER", "upper", "a b", "x" * 255, "ü" * 127, "deep/" * 20 + "end", "\x01\x7f\u2028",
    ]  # fmt: skip
    make(root, *strange)
    used = strange[::2]
    refer(engine, *used)
    with engine.connect() as connection:
        found = search(connection, root, *media(engine, root))
        assert sorted(names(found.candidates(3))) == sorted(set(strange) - set(used))
        assert found.still_orphans(strange) == set(strange) - set(used)
    assert found.findings.missing_count == 0


def test_names_that_are_not_utf_8_are_left(engine: sa.Engine, root: Path) -> None:
    make(root, b"bad\xff.jpg", b"worse\xed\xa0\x80.jpg", "good.jpg", "kept.jpg")
    refer(engine, "kept.jpg")
    with engine.connect() as connection:
        found = search(connection, root, *media(engine, root), kind=Kind(extensions=MEDIA))
        assert names(found.candidates(10)) == ["good.jpg"]
    assert (found.findings.scanned, found.findings.unrecognised) == (4, 2)
    assert "2 files" in found.findings.warnings[0]
    assert "bad\\udcff.jpg" in found.findings.warnings[0]


def test_uploads_match_raw_and_slugified(engine: sa.Engine, tmp_path: Path) -> None:
    sql(
        engine,
        "CREATE TABLE parsed (filename text)",
        "INSERT INTO parsed VALUES ('My report.pdf-1.json'), ('Über.txt-2.json')",
    )
    make(tmp_path, "My-report.pdf-1.json", "My report.pdf-1.json", "Uber.txt-2.json", "My_report.pdf-1.json")
    make(tmp_path, "sub/other.json")
    with engine.connect() as connection:
        found = search(
            connection, tmp_path, source(engine, "parsed", "filename", transform="slug"), kind=Kind(recursive=False)
        )
        assert names(found.candidates(10)) == ["My_report.pdf-1.json"]
    assert found.findings.unrecognised == 1


@pytest.mark.parametrize("change", ["RENAME COLUMN thumbnail TO thumb", "DROP COLUMN thumbnail"])
def test_a_failing_reference_query_finds_nothing(engine: sa.Engine, root: Path, change: str) -> None:
    make(root, "a.jpg", "b.jpg")
    refer(engine, "a.jpg")
    storage = Interrupted(root, last=lambda: sql(engine, f"ALTER TABLE detections {change}"))
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError):
        search(connection, root, *media(engine, root), storage=storage)


def test_a_reference_table_that_may_not_be_read_finds_nothing(engine: sa.Engine, root: Path) -> None:
    make(root, "a.jpg")
    refer(engine, "b.jpg")
    role = f"reader_{os.getpid()}"
    sql(engine, f"CREATE ROLE {role}")
    try:
        with engine.connect() as connection:
            sources = media(engine, root)
            connection.exec_driver_sql(f"SET ROLE {role}")
            connection.commit()
            with pytest.raises(sa.exc.DBAPIError, match="permission denied"):
                search(connection, root, *sources)
    finally:
        sql(engine, f"DROP ROLE {role}")


def test_an_empty_reference_table_refuses(engine: sa.Engine, root: Path) -> None:
    make(root, "a.jpg")
    with engine.connect() as connection:
        with pytest.raises(
            Refused, match=r"no row names anything in .*media, by detections.file_path, detections.thumb"
        ):
            search(connection, root, *media(engine, root))
        allowed = search(connection, root, *media(engine, root), limits=Limits(allow_empty_reference=True))
        assert names(allowed.candidates(10)) == ["a.jpg"]


def test_an_empty_store_needs_no_references(engine: sa.Engine, root: Path) -> None:
    with engine.connect() as connection:
        found = search(connection, root, *media(engine, root))
        assert found.findings.scanned == 0
        assert list(found.candidates(10)) == []


def test_references_that_all_lead_elsewhere_refuse(engine: sa.Engine, root: Path) -> None:
    make(root, "a.jpg")
    refer(engine, "/app/media/b.jpg", "")
    with engine.connect() as connection:
        with pytest.raises(
            Refused, match=r"not one of the 1 values of detections.file_path .* such as '/app/media/b.jpg'"
        ):
            search(connection, root, *media(engine, root))
        allowed = search(connection, root, *media(engine, root), limits=Limits(allow_empty_reference=True))
        assert names(allowed.candidates(10)) == ["a.jpg"]


def test_a_reference_that_comes_during_the_listing_counts(engine: sa.Engine, root: Path) -> None:
    make(root, "a.jpg", "b.jpg", "kept.jpg")
    refer(engine, "kept.jpg")
    storage = Interrupted(root, last=lambda: refer(engine, "a.jpg"))
    with engine.connect() as connection:
        assert names(search(connection, root, *media(engine, root), storage=storage).candidates(10)) == ["b.jpg"]


def test_a_reference_that_comes_after_the_search_is_seen_before_removal(engine: sa.Engine, root: Path) -> None:
    make(root, "a.jpg", "b.jpg", "kept.jpg")
    refer(engine, "kept.jpg")
    with engine.connect() as connection:
        found = search(connection, root, *media(engine, root))
        batch = names(found.candidates(10))
        refer(engine, "./x/../b.jpg")
        assert found.still_orphans(batch) == {"a.jpg"}
        connection.commit()
        sql(engine, "TRUNCATE detections")
        with pytest.raises(Refused, match=r"detections.file_path has been emptied"):
            found.still_orphans(batch)


def test_links_are_neither_followed_nor_found(engine: sa.Engine, root: Path) -> None:
    make(root, "a.jpg", "kept.jpg")
    (root / "etc").symlink_to("/etc")
    (root / "passwd.jpg").symlink_to("/etc/passwd")
    refer(engine, "kept.jpg", "../../../../../../etc/passwd")
    with engine.connect() as connection:
        found = search(connection, root, *media(engine, root))
        assert names(found.candidates(10)) == ["a.jpg"]
    assert (found.findings.scanned, found.findings.missing_count) == (2, 1)


def test_a_folder_that_vanishes_while_it_is_scanned(engine: sa.Engine, root: Path) -> None:
    make(root, *(f"{folder}/{n}.jpg" for folder in "abcdef" for n in range(5)), "kept.jpg")
    refer(engine, "kept.jpg")

    def vanish() -> None:
        for folder in "bcd":
            shutil.rmtree(root / folder)

    with engine.connect() as connection:
        storage = Interrupted(root, first=vanish, last=lambda: shutil.rmtree(root / "e"))
        found = search(connection, root, *media(engine, root), storage=storage)
        assert set(names(found.candidates(100))) == {f"{folder}/{n}.jpg" for folder in "af" for n in range(5)}
        assert found.findings.orphaned == 10


def test_a_root_that_is_not_there_is_not_an_empty_store(engine: sa.Engine, root: Path) -> None:
    with engine.connect() as connection, pytest.raises(ConfigurationError, match="does not exist"):
        search(connection, root / "nowhere", *media(engine, root))


def test_prefix(engine: sa.Engine, root: Path) -> None:
    make(root, "a/x.jpg", "a/y.jpg", "b/x.jpg")
    refer(engine, "a/y.jpg", "a/gone.jpg", "b/gone.jpg")
    with engine.connect() as connection:
        found = search(connection, root, *media(engine, root), kind=Kind("a/"))
        assert names(found.candidates(10)) == ["a/x.jpg"]
    assert (found.findings.scanned, found.findings.missing) == (2, ("a/gone.jpg",))


def test_held_files_are_no_candidates(engine: sa.Engine, root: Path) -> None:
    make(root, "a.jpg", "b.jpg", "c.jpg")
    refer(engine, "c.jpg")
    with engine.connect() as connection:
        found = search(
            connection, root, *media(engine, root), find_kept=lambda asked: Kept({"b.jpg", "c.jpg"} & set(asked), set())
        )
        assert names(found.candidates(10)) == ["a.jpg"]
    assert found.findings.held == 1


def test_a_store_that_lists_with_details(engine: sa.Engine, root: Path) -> None:
    make(root, "lost.jpg", "used\t.jpg", size=7)
    make(root, "young.jpg", hours=1)
    refer(engine, "used\t.jpg")
    with engine.connect() as connection:
        found = search(connection, root, *media(engine, root), storage=Bucket(root, trust_mtime=True))
        assert list(found.candidates(10)) == [[StoredObject("lost.jpg", 7, NOW - timedelta(hours=48))]]
    findings = found.findings
    assert (findings.scanned, findings.young, findings.unrecognised) == (5, 2, 1)


@pytest.mark.parametrize(("orphans", "limits", "refused"), [
    (60, Limits(), False),
    (60, Limits(guard_minimum=60), True),
    (50, Limits(guard_minimum=50), False),
    (51, Limits(guard_minimum=50), True),
    (60, Limits(guard_minimum=60, allow_large_deletion=True), False),
])  # fmt: skip
def test_fraction_of_what_is_recognised(
    engine: sa.Engine, root: Path, orphans: int, limits: Limits, refused: bool
) -> None:
    make(root, *(f"{n}.jpg" for n in range(100)), *(f"{n}.txt" for n in range(100)))
    refer(engine, *(f"{n}.jpg" for n in range(orphans, 100)), *(f"{n}.txt" for n in range(50)))
    with engine.connect() as connection:
        if refused:
            with pytest.raises(Refused, match=f"{orphans} of 100 entries of .*media are candidates, more than 50%"):
                search(connection, root, *media(engine, root), limits=limits, kind=Kind(extensions=MEDIA))
        else:
            found = search(connection, root, *media(engine, root), limits=limits, kind=Kind(extensions=MEDIA))
            assert found.findings.orphaned == orphans


def test_oldest_first_and_budgets(engine: sa.Engine, root: Path) -> None:
    make(root, "kept")
    refer(engine, "kept")
    for name, hours, size in [("z", 90, 5), ("a", 50, 1), ("m", 70, 4), ("b", 80, 2), ("c", 60, 100)]:
        make(root, name, hours=hours, size=size)
    with engine.connect() as connection:
        found = search(connection, root, *media(engine, root))
        batches = found.candidates(2)
        first = next(batches)
        connection.execute(sa.text("CREATE TABLE scratch (id int)"))
        connection.rollback()
        assert [file.name for file in first] + names(batches) == ["z", "b", "m", "c", "a"]
        assert names(found.chosen(2, max_files=3)) == ["b", "m", "z"]
        assert names(found.chosen(2, max_bytes=11)) == ["b", "m", "z"]
        assert names(found.chosen(2, max_bytes=10)) == ["b", "z"]
        assert names(found.candidates(10, max_bytes=10)) == ["z", "b", "m", "a"]
        assert names(found.chosen(2, max_bytes=111, max_files=4)) == ["b", "c", "m", "z"]
        assert names(found.chosen(2, max_bytes=4)) == ["b"]
        cut = found.cut(max_bytes=10)
        assert (cut.files, cut.bytes, cut.stopped_reason) == (2, 7, "max_gigabytes")
        cut = found.cut(max_files=1, max_bytes=10)
        assert (cut.files, cut.bytes, cut.stopped_reason) == (1, 5, "max_files")
        assert found.cut(max_files=5, max_bytes=112).stopped_reason is None
        assert [file.name for file in found.largest(2)] == ["c", "z"]
        assert connection.scalar(sa.text("SELECT to_regclass('scratch')")) is None


def test_what_the_caller_has_open_is_left_open_between_batches(engine: sa.Engine, root: Path) -> None:
    make(root, "a", "b", "kept")
    refer(engine, "kept")
    with engine.connect() as connection:
        batches = search(connection, root, *media(engine, root)).candidates(1)
        next(batches)
        connection.execute(sa.text("CREATE TABLE scratch (id int)"))
        next(batches)
        connection.rollback()
        assert connection.scalar(sa.text("SELECT to_regclass('scratch')")) is None


def test_a_search_writes_nothing_but_temporary_tables(engine: sa.Engine, root: Path) -> None:
    make(root, "a", "kept")
    refer(engine, "kept")
    with engine.connect() as connection:
        search(connection, root, *media(engine, root))
        again = search(connection, root, *media(engine, root))
        assert names(again.candidates(10)) == ["a"]
    with engine.connect() as connection:
        left = connection.scalar(sa.text("SELECT count(*) FROM pg_class WHERE relname LIKE 'housekeeping\\_%'"))
        assert left == 0


def test_many_files(engine: sa.Engine, root: Path, long: bool) -> None:
    count = 1_000_000 if long else 30_000
    for number in range(count):
        if number % 1000 == 0:
            (root / f"{number // 1000:04}").mkdir()
        os.close(os.open(f"{root}/{number // 1000:04}/{number}.jpg", os.O_CREAT | os.O_WRONLY))
    sql(
        engine,
        "INSERT INTO detections (file_path, thumbnail) SELECT lpad((n / 1000)::text, 4, '0') || '/' || n || '.jpg',"
        f" NULL FROM generate_series(0, {count - 1}) n WHERE n % 10 <> 0",
        "INSERT INTO detections (file_path)"
        f" SELECT 'gone/' || n FROM generate_series(0, {count - 1}) n WHERE n % 10 <> 0",
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with engine.connect() as connection:
        found = search(
            connection, root, *media(engine, root), floor=NOW + timedelta(days=36500), kind=Kind(extensions=MEDIA)
        )
        assert sum(map(len, found.candidates(5000))) == count // 10
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert (found.findings.scanned, found.findings.orphaned) == (count, count // 10)
    assert found.findings.missing_count == count - count // 10
    assert grown < 60e6
