"""What every store must do: a local folder, a bucket of the loopback server, and a real one where there is one.

The real server's address and key come from SUPABASE_URL and SUPABASE_KEY; a bucket is made there, and removed again.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.resources.object_storage import (
    Moves,
    ObjectExists,
    ObjectMissing,
    ObjectStorage,
    Removal,
    StorageRefused,
    Usage,
)
from housekeeping_pipelines.resources.object_storage.local_folder import LocalFolder
from housekeeping_pipelines.resources.object_storage.supabase_bucket import SupabaseBucket
from housekeeping_pipelines.resources.object_storage.supabase_retry import RetryPolicy
from housekeeping_pipelines_tests.storage_server import StorageServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

URL, KEY = os.environ.get("SUPABASE_URL", ""), os.environ.get("SUPABASE_KEY", "")
RETRY = RetryPolicy(first_wait_seconds=0.01, longest_wait_seconds=0.05)
# Every character that the real server takes in a name, and what listings have confused.
NAMES = [
    "a.txt",
    "with space.txt",
    "Dir/A.txt",
    "dir/b.txt",
    "DIR/sub/c.txt",
    "dir2/d.txt",
    "dir/deep/er/still/e.txt",
    "K0000",
    "k0000",
    "odd/!-.*'()&$@=;:+,?.txt",
]
NEVER = ["", ".", "..", "../a.txt", "dir/../a.txt", "/a.txt", "a.txt/", "dir//b.txt", "nul\0.txt", "\ud800"]


@dataclass
class Place:
    """A store, and how to take it away."""

    storage: ObjectStorage
    destroy: Callable[[], None]


@pytest.fixture(
    params=[
        "folder",
        "double",
        pytest.param("server", marks=pytest.mark.skipif(not (URL and KEY), reason="no SUPABASE_URL and SUPABASE_KEY")),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        root = tmp_path / "files"
        root.mkdir()
        yield Place(LocalFolder(root), lambda: shutil.rmtree(root))
    elif request.param == "double":
        with (
            StorageServer() as server,
            SupabaseBucket(server.url, server.key, "uploads", retry=RETRY) as bucket,
        ):
            yield Place(bucket, server.buckets.clear)
    else:
        yield from real_bucket()


def real_bucket() -> Iterator[Place]:
    import httpx
    from supabase import ClientOptions, create_client

    storage = create_client(URL, KEY, ClientOptions(httpx_client=httpx.Client())).storage
    name = f"housekeeping-contract-{secrets.token_hex(4)}"
    storage.create_bucket(name)

    def destroy() -> None:
        with SupabaseBucket(URL, KEY, name) as everything:
            everything.remove([found.name for found in everything.list()])
        storage.delete_bucket(name)

    with SupabaseBucket(URL, KEY, name, retry=RETRY) as bucket:
        yield Place(bucket, destroy)
    if any(bucket.id == name for bucket in storage.list_buckets()):
        destroy()


@pytest.fixture
def storage(place: Place) -> ObjectStorage:
    return place.storage


@pytest.fixture
def filled(storage: ObjectStorage) -> ObjectStorage:
    for name in NAMES:
        storage.upload(name, name.encode())
    return storage


def names(storage: ObjectStorage, prefix: str = "") -> list[str]:
    return sorted(found.name for found in storage.list(prefix))


class TestLooking:
    def test_an_empty_store_is_usable_and_lists_nothing(self, storage: ObjectStorage) -> None:
        storage.check()
        assert names(storage) == []
        assert storage.usage() == Usage(0, 0)
        assert storage.label

    def test_everything_is_listed_once_with_its_whole_name(self, filled: ObjectStorage) -> None:
        assert names(filled) == sorted(NAMES)
        assert sorted(found.name for found in filled.list(details=False)) == sorted(NAMES)

    @pytest.mark.parametrize("prefix", ["dir", "dir/", "DIR/", "dir/deep/er", "k", "K", "odd/!", "missing/", "a.txt/"])
    def test_a_prefix_is_compared_letter_by_letter(self, filled: ObjectStorage, prefix: str) -> None:
        assert names(filled, prefix) == sorted(name for name in NAMES if name.startswith(prefix))

    def test_size_and_time_of_change(self, storage: ObjectStorage) -> None:
        before = datetime.now(UTC) - timedelta(seconds=5)
        storage.upload("a.bin", b"x" * 1234)
        for found in (storage.stat("a.bin"), *storage.list(), *storage.examine(["a.bin"])):
            assert found is not None
            assert (found.name, found.size) == ("a.bin", 1234)
            assert found.modified is not None
            assert found.modified.utcoffset() == timedelta(0)
            assert before < found.modified < datetime.now(UTC) + timedelta(seconds=5)

    def test_looking_at_one(self, filled: ObjectStorage) -> None:
        for name in NAMES:
            found = filled.stat(name)
            assert found is not None
            assert (found.name, found.size) == (name, len(name))
        for name in ("A.TXT", "dir", "dir/", "a", "missing", "dir/missing", "with%20space.txt"):
            assert filled.stat(name) is None

    @pytest.mark.parametrize("count", [1, 3, 4, len(NAMES)])
    def test_examining_finds_those_that_are_there(self, filled: ObjectStorage, count: int) -> None:
        asked = sorted([*NAMES[:count], "dir/", "dir/b.tx", "dir/b.txt2", "zzz"])
        assert [found.name for found in filled.examine(iter(asked))] == sorted(NAMES[:count])

    def test_usage(self, filled: ObjectStorage) -> None:
        assert filled.usage() == Usage(len(NAMES), sum(map(len, NAMES)))
        assert filled.usage("dir/") == Usage(2, len("dir/b.txt") + len("dir/deep/er/still/e.txt"))

    def test_more_than_a_page(self, storage: ObjectStorage) -> None:
        many = [f"many/{number:05d}.txt" for number in range(0, 5002, 2)]
        for name in many[:1001]:
            storage.upload(name, b"")
        assert names(storage) == many[:1001]
        asked = [f"many/{number:05d}.txt" for number in range(2004)]
        assert [found.name for found in storage.examine(asked)] == many[:1001]
        removal = storage.remove(asked)
        assert removal == Removal(frozenset(many[:1001]), frozenset(asked) - frozenset(many[:1001]))
        assert names(storage) == []

    @pytest.mark.parametrize("name", NEVER)
    def test_what_cannot_be_a_name_is_not_there(self, filled: ObjectStorage, name: str) -> None:
        assert filled.stat(name) is None
        assert list(filled.examine([name])) == []
        assert filled.remove([name]) == Removal(absent=frozenset([name]))
        assert names(filled) == sorted(NAMES)


class TestRemoving:
    def test_every_name_is_accounted_for(self, filled: ObjectStorage) -> None:
        gone = ["dir/b.txt", "with space.txt", "K0000", "a.txt"]
        not_there = ["missing.txt", "dir", "dir/", "DIR/B.TXT", "with%20space.txt"]
        assert filled.remove([*gone, *not_there, "a.txt"]) == Removal(frozenset(gone), frozenset(not_there))
        assert names(filled) == sorted(set(NAMES) - set(gone))
        assert filled.remove(gone) == Removal(absent=frozenset(gone))

    def test_nothing_to_remove(self, filled: ObjectStorage) -> None:
        assert filled.remove([]) == Removal()
        assert names(filled) == sorted(NAMES)


class TestContent:
    def test_what_was_written_is_read(self, filled: ObjectStorage) -> None:
        for name in NAMES:
            assert filled.download(name) == name.encode()
        with pytest.raises(ObjectMissing):
            filled.download("missing.txt")

    def test_writing_again_replaces(self, storage: ObjectStorage) -> None:
        storage.upload("dir/a.txt", b"long content")
        storage.upload("dir/a.txt", b"")
        assert storage.download("dir/a.txt") == b""
        assert names(storage) == ["dir/a.txt"]

    @pytest.mark.parametrize("name", NEVER)
    def test_names_that_would_mean_another_are_refused(self, filled: ObjectStorage, name: str) -> None:
        with pytest.raises(StorageRefused):
            filled.upload(name, b"stray")
        with pytest.raises(StorageRefused):
            filled.move("a.txt", name)
        with pytest.raises(StorageRefused):
            filled.download(name)
        assert {name: filled.download(name) for name in names(filled)} == {name: name.encode() for name in NAMES}


class TestMoving:
    def test_there_and_back(self, filled: ObjectStorage) -> None:
        filled.move("dir/b.txt", "trash/run 1/dir/b.txt")
        assert filled.stat("dir/b.txt") is None
        assert filled.download("trash/run 1/dir/b.txt") == b"dir/b.txt"
        filled.move("trash/run 1/dir/b.txt", "dir/b.txt")
        assert names(filled) == sorted(NAMES)

    def test_never_over_another(self, filled: ObjectStorage) -> None:
        for target in ("K0000", "a.txt"):
            with pytest.raises(ObjectExists):
                filled.move("a.txt", target)
        assert filled.download("a.txt") == b"a.txt"
        assert filled.download("K0000") == b"K0000"

    def test_what_is_not_there(self, filled: ObjectStorage) -> None:
        with pytest.raises(ObjectMissing):
            filled.move("missing.txt", "other.txt")
        assert names(filled) == sorted(NAMES)


class TestMovingMany:
    def test_each_name_is_in_one_part(self, filled: ObjectStorage) -> None:
        targets = {"a.txt": "trash/a.txt", "dir/b.txt": "trash/b.txt", "K0000": "k0000", "missing.txt": "trash/m.txt"}
        moves = filled.move_many(targets)
        assert moves == Moves(frozenset({"a.txt", "dir/b.txt"}), frozenset({"missing.txt"}), frozenset({"K0000"}))
        left = {*NAMES, "trash/a.txt", "trash/b.txt"} - {"a.txt", "dir/b.txt"}
        assert names(filled) == sorted(left)
        assert filled.download("trash/b.txt") == b"dir/b.txt"
        assert filled.download("k0000") == b"k0000"

    def test_nothing(self, filled: ObjectStorage) -> None:
        assert filled.move_many({}) == Moves()

    def test_a_hundred(self, storage: ObjectStorage) -> None:
        many = [f"many/{number:03}.txt" for number in range(100)]
        for name in many:
            storage.upload(name, name.encode())
        moves = storage.move_many({name: f"trash/{name}" for name in many})
        assert moves == Moves(moved=frozenset(many))
        assert names(storage) == [f"trash/{name}" for name in many]


class TestMissingStore:
    def test_it_never_looks_empty(self, place: Place) -> None:
        place.storage.upload("a.txt", b"")
        place.destroy()
        for use in (
            place.storage.check,
            lambda: list(place.storage.list()),
            lambda: place.storage.usage(),
            lambda: place.storage.remove(["a.txt"]),
            lambda: place.storage.download("a.txt"),
        ):
            with pytest.raises(ConfigurationError) as caught:
                use()
            assert caught.value.hint
