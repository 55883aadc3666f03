"""A folder as a store: what file systems do that a bucket does not."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.errors import ConfigurationError, Unavailable
from housekeeping_pipelines.resources.object_storage import ObjectExists, ObjectMissing, StorageRefused, Usage
from housekeeping_pipelines.resources.object_storage.local_folder import TRASH_FOLDER, LocalFolder
from housekeeping_pipelines_tests.mounts import mounted, mounted_again, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    return root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that nothing may lead to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwd").write_bytes(b"root:x:0:0")
    return outside


def fill(root: Path, *names: str) -> LocalFolder:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))
    return LocalFolder(root)


def listed(folder: LocalFolder, prefix: str = "") -> list[str]:
    found = sorted(found.name for found in folder.list(prefix))
    assert found == sorted(found.name for found in folder.list(prefix, details=False))
    chunks = list(folder.name_chunks(prefix, 3))
    assert all(len(chunk) <= 3 for chunk in chunks)
    assert found == sorted(name for chunk in chunks for name in chunk)
    return found


def raising(error: BaseException) -> Callable[..., None]:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


class TestAges:
    def test_a_time_that_a_copy_took_over_makes_no_file_older(self, root: Path) -> None:
        before = datetime.now(UTC) - timedelta(seconds=5)
        folder = fill(root, "copy.jpg")
        for seconds in (0, 10**9):
            os.utime(root / "copy.jpg", (seconds, seconds))
            found = folder.stat("copy.jpg")
            assert found is not None
            assert found.modified == datetime.fromtimestamp(seconds, UTC)
            assert found.there_since is not None
            assert found.there_since > before
            (listed_one,) = folder.list()
            assert listed_one == found
            assert next(folder.examine(["copy.jpg"])) == found
        trusting = LocalFolder(root, trust_mtime=True).stat("copy.jpg")
        assert trusting is not None
        assert trusting.there_since == datetime.fromtimestamp(10**9, UTC)

    def test_a_time_in_the_future_counts(self, root: Path) -> None:
        folder = fill(root, "camera.jpg")
        os.utime(root / "camera.jpg", (4e9, 4e9))
        found = folder.stat("camera.jpg")
        assert found is not None
        assert found.there_since == datetime.fromtimestamp(4e9, UTC)


class TestFoldersThatAreNotPartOfIt:
    def test_nothing_in_them_is_seen_or_touched(self, root: Path) -> None:
        fill(root, "a.txt", "inner/b.txt", "inner/deep/c.txt", "inner2/d.txt", "other/inner/e.txt")
        folder = LocalFolder(root, without=[root / "inner"])
        assert listed(folder) == ["a.txt", "inner2/d.txt", "other/inner/e.txt"]
        assert listed(folder, "inner/") == []
        assert folder.stat("inner/b.txt") is None
        assert list(folder.examine(["inner/b.txt", "inner/deep/c.txt"])) == []
        assert folder.remove(["inner/b.txt"]).absent == {"inner/b.txt"}
        assert folder.move_many({"inner/b.txt": "b.txt"}).absent == {"inner/b.txt"}
        assert (root / "inner/b.txt").exists()


class TestLinks:
    def test_links_are_no_objects(self, root: Path, outside: Path) -> None:
        folder = fill(root, "a.txt")
        (root / "etc").symlink_to("/etc")
        (root / "sub").symlink_to(outside)
        (root / "passwd").symlink_to(outside / "passwd")
        (root / "again").symlink_to(root)
        (root / "dangling").symlink_to(root / "nothing")
        os.mkfifo(root / "pipe")
        assert listed(folder) == ["a.txt"]
        assert listed(folder, "etc/") == listed(folder, "sub/") == []
        assert folder.usage() == Usage(1, 5)
        for name in ("etc/passwd", "sub/passwd", "passwd", "again/a.txt", "dangling", "pipe", "etc"):
            assert folder.stat(name) is None
            assert folder.remove([name]).absent == {name}
            with pytest.raises(ObjectMissing):
                folder.download(name)
            with pytest.raises(ObjectMissing):
                folder.move(name, "taken.txt")
        for name in ("etc/stray", "sub/stray", "again/stray", "passwd", "dangling", "etc"):
            with pytest.raises(StorageRefused):
                folder.upload(name, b"stray")
        for name in ("sub/stray", "again/stray"):
            with pytest.raises(StorageRefused):
                folder.move("a.txt", name)
        assert sorted(path.name for path in outside.iterdir()) == ["passwd"]
        assert (outside / "passwd").read_bytes() == b"root:x:0:0"
        assert (root / "a.txt").read_bytes() == b"a.txt"

    def test_a_link_to_the_root_is_followed_once(self, root: Path, outside: Path, tmp_path: Path) -> None:
        fill(root, "a.txt")
        link = tmp_path / "link"
        link.symlink_to(root)
        folder = LocalFolder(link)
        link.unlink()
        link.symlink_to(outside)
        assert listed(folder) == ["a.txt"]
        assert folder.label == str(link)

    def test_a_folder_that_becomes_a_link_while_it_is_scanned(self, root: Path, outside: Path) -> None:
        folder = fill(root, *(f"{letter}/{number}" for letter in "abcdef" for number in range(3)))
        scan = folder.list(details=False)
        seen = [next(scan).name]
        for letter in set("abcdef") - {seen[0][0]}:
            (root / letter).rename(root / f"{letter}.moved")
            (root / letter).symlink_to(outside)
        seen += [found.name for found in scan]
        assert not any("passwd" in name for name in seen)
        assert len([name for name in seen if name.startswith(f"{seen[0][0]}/")]) == 3


class TestNames:
    NAMES = (
        "line\nbreak.txt",
        "invalid \udcff\udcfe utf-8.txt",
        "x" * 255,
        "Ünïcode/ß.txt",
        " leading and trailing ",
        "-rf",
        "*",
        "back\\slash",
        "%2e%2e",
        "...",
        "dir.with.dots/..hidden",
    )

    def test_any_name_that_a_file_may_have(self, root: Path) -> None:
        folder = fill(root, *self.NAMES)
        assert listed(folder) == sorted(self.NAMES)
        for name in self.NAMES:
            found = folder.stat(name)
            assert found is not None
            assert found.name == name
            folder.move(name, f"{TRASH_FOLDER}/run/{name}")
            folder.move(f"{TRASH_FOLDER}/run/{name}", name)
            assert folder.download(name) == name.encode("utf-8", "surrogateescape")
        assert folder.remove(self.NAMES).removed == frozenset(self.NAMES)
        assert listed(folder) == []

    def test_a_name_longer_than_any_file_s(self, root: Path) -> None:
        folder = fill(root, "a.txt")
        name = "y" * 256
        assert folder.stat(name) is None
        assert folder.remove([name]).absent == {name}
        with pytest.raises(StorageRefused):
            folder.upload(name, b"")
        with pytest.raises(StorageRefused):
            folder.move("a.txt", name)
        assert listed(folder) == ["a.txt"]

    def test_a_message_with_such_a_name_is_one_line(self, root: Path) -> None:
        with pytest.raises(ObjectMissing) as caught:
            fill(root).download("line\nbreak \udcff")
        assert caught.value.message.isprintable()
        assert caught.value.message.encode()


class TestScanning:
    def test_the_trash_is_left_out_of_everything_only(self, root: Path) -> None:
        trashed = f"{TRASH_FOLDER}/run/a.txt"
        folder = fill(root, "b.txt", trashed, f"sub/{TRASH_FOLDER}/c.txt")
        assert listed(folder) == ["b.txt"]
        assert list(folder.name_chunks()) == [["b.txt"]]
        assert folder.usage() == Usage(1, len("b.txt"))
        assert listed(folder, "sub/") == []
        assert listed(folder, f"sub/{TRASH_FOLDER}/") == [f"sub/{TRASH_FOLDER}/c.txt"]
        assert listed(folder, TRASH_FOLDER) == listed(folder, f"{TRASH_FOLDER}/ru") == [trashed]

    def test_a_folder_that_vanishes_is_passed_over(self, root: Path) -> None:
        folder = fill(root, *(f"{letter}/{number}" for letter in "abcdef" for number in range(3)))
        scan = folder.list()
        first = next(scan).name
        for path in [path for path in root.iterdir() if path.name != first[0]]:
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        assert sorted([first, *(found.name for found in scan)]) == [f"{first[0]}/{number}" for number in range(3)]

    def test_memory_does_not_grow_with_the_folder(self, root: Path) -> None:
        folder = LocalFolder(root)
        for number in range(50_000):
            os.close(os.open(root / f"some file of a long name {number}", os.O_CREAT | os.O_WRONLY))
        tracemalloc.start()
        try:
            count = sum(1 for _ in folder.list(details=False))
            count += sum(len(chunk) for chunk in folder.name_chunks(size=1000))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert count == 100_000
        # A list of the names would take 5 MB.
        assert peak < 1_000_000

    def test_an_abandoned_scan_closes_its_folders(self, root: Path) -> None:
        folder = fill(root, "a/b/c/d.txt", "a/b/c/e.txt")
        before = len(list(Path("/proc/self/fd").iterdir()))
        scan = folder.list()
        next(scan)
        assert len(list(Path("/proc/self/fd").iterdir())) > before
        scan.close()  # type: ignore[attr-defined]
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    @pytest.mark.parametrize("kind", ["missing", "file"])
    def test_a_root_that_is_no_folder(self, tmp_path: Path, kind: str) -> None:
        root = tmp_path / "root"
        if kind == "file":
            root.write_bytes(b"")
        folder = LocalFolder(root, variable="MEDIA_PATH")
        uses: list[Callable[[], object]] = [
            folder.check,
            lambda: list(folder.list()),
            lambda: list(folder.list("sub/../")),
            lambda: folder.stat("a"),
            lambda: folder.remove(["a"]),
            lambda: folder.upload("a", b""),
        ]
        for use in uses:
            with pytest.raises(ConfigurationError, match=str(root)) as caught:
                use()
            assert caught.value.hint == "create it, or check MEDIA_PATH"


class TestMoving:
    def test_the_trash_has_the_root_s_mode_but_for_others(self, root: Path) -> None:
        """Accounts of one group may do housekeeping in turn."""
        root.chmod(0o2775)
        fill(root, "a.txt").move("a.txt", f"{TRASH_FOLDER}/run/a.txt")
        for folder in (root / TRASH_FOLDER, root / TRASH_FOLDER / "run"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o2770

    def test_a_move_that_was_killed_half_way_is_finished(self, root: Path) -> None:
        folder = fill(root, "a.txt", "b.txt")
        os.link(root / "a.txt", root / "moved.txt")
        with pytest.raises(ObjectExists):
            folder.move("b.txt", "moved.txt")
        folder.move("a.txt", "moved.txt")
        assert listed(folder) == ["b.txt", "moved.txt"]
        assert folder.download("moved.txt") == b"a.txt"

    def test_a_place_that_was_reserved_for_a_move_that_was_killed_is_used(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on file systems without hard links."""
        folder = fill(root, "a.txt", "b.txt")
        monkeypatch.setattr(os, "link", raising(PermissionError(errno.EPERM, "no links here")))
        with monkeypatch.context() as killed:
            killed.setattr(os, "rename", raising(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                folder.move("a.txt", "moved.txt")
        assert listed(folder) == ["a.txt", "b.txt", "moved.txt"]
        folder.move("a.txt", "moved.txt")
        assert (listed(folder), folder.download("moved.txt")) == (["b.txt", "moved.txt"], b"a.txt")
        (root / "empty.txt").touch()
        with pytest.raises(ObjectExists):
            folder.move("b.txt", "empty.txt")

    def test_the_trash_opens_nothing_that_was_closed(self, root: Path) -> None:
        folder = fill(root, "a/secret/b/c.txt", "a/secret/b/d.txt")
        (root / "a/secret").chmod(0o700)
        trashed = f"{TRASH_FOLDER}/run/a/secret/b/c.txt"
        folder.move("a/secret/b/c.txt", trashed)
        modes = {path.relative_to(root).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*/")}
        own = stat.S_IMODE((root / "a").stat().st_mode)
        inner = f"{TRASH_FOLDER}/run/a"
        closed = stat.S_IMODE(root.stat().st_mode) & ~0o007
        assert [modes[name] for name in (TRASH_FOLDER, f"{TRASH_FOLDER}/run")] == [closed, closed]
        assert [modes[name] for name in (inner, f"{inner}/secret", f"{inner}/secret/b")] == [own, 0o700, own]

    def test_a_folder_that_was_removed_comes_back_as_it_was(self, root: Path) -> None:
        folder = fill(root, "a/closed/c.txt")
        (root / "a/closed").chmod(0o2750)
        (root / "a").chmod(0o711)
        trashed = f"{TRASH_FOLDER}/run/a/closed/c.txt"
        folder.move("a/closed/c.txt", trashed)
        (root / "a/closed").rmdir()
        (root / "a").rmdir()
        folder.move(trashed, "a/closed/c.txt")
        assert [stat.S_IMODE((root / name).stat().st_mode) for name in ("a", "a/closed")] == [0o711, 0o2750]

    @needs_root
    def test_a_folder_that_was_removed_comes_back_to_its_owner(self, root: Path) -> None:
        folder = fill(root, "a/c.txt")
        os.chown(root, 1234, 1235)
        os.chown(root / "a", 4321, 5321)
        trashed = f"{TRASH_FOLDER}/run/a/c.txt"
        folder.move("a/c.txt", trashed)
        made = (root / TRASH_FOLDER).stat()
        # Who else runs it as the owner of the store gets in, too.
        assert (made.st_uid, made.st_gid) == (1234, 1235)
        (root / "a").rmdir()
        folder.move(trashed, "a/c.txt")
        back = (root / "a").stat()
        assert (back.st_uid, back.st_gid) == (4321, 5321)

    @needs_root
    def test_a_group_that_cannot_be_given_gets_nothing(self, root: Path) -> None:
        folder = fill(root, "a/c.txt")
        for path, mode in ((root, 0o777), (root / "a", 0o777), (root / "a/c.txt", 0o666)):
            path.chmod(mode)
        os.chown(root / "a", 4321, 5321)
        move = f"""
import os
from pathlib import Path
from housekeeping_pipelines.resources.object_storage.local_folder import LocalFolder
os.setgroups([]); os.setgid(1235); os.setuid(1234)
LocalFolder(Path({str(root)!r})).move("a/c.txt", "{TRASH_FOLDER}/run/a/c.txt")
"""
        for above in root.parents[:-1]:
            above.chmod(above.stat().st_mode | 0o011)
        subprocess.run([sys.executable, "-c", move], check=True)
        made = (root / TRASH_FOLDER / "run/a").stat()
        assert (made.st_gid, stat.S_IMODE(made.st_mode)) == (1235, 0o707)
        assert folder.download(f"{TRASH_FOLDER}/run/a/c.txt") == b"a/c.txt"

    def test_empty_folders_go_and_others_stay(self, root: Path, outside: Path) -> None:
        folder = fill(root, f"{TRASH_FOLDER}/run/a/b.txt")
        (root / TRASH_FOLDER / "run/empty/below").mkdir(parents=True)
        (root / TRASH_FOLDER / "link").symlink_to(outside)
        folder.remove_empty_folders(f"{TRASH_FOLDER}/")
        assert sorted(path.name for path in (root / TRASH_FOLDER).rglob("*")) == ["a", "b.txt", "link", "run"]
        folder.remove_empty_folders("no/such/folder/")
        assert (outside / "passwd").exists()

    def test_a_second_name_of_the_same_file_is_not_lost(self, root: Path) -> None:
        folder = fill(root, "a.txt")
        os.link(root / "a.txt", root / "b.txt")
        with pytest.raises(ObjectExists):
            folder.move("a.txt", "a.txt")
        assert folder.download("a.txt") == b"a.txt"

    def test_only_emptied_folders_of_the_trash_go(self, root: Path) -> None:
        folder = fill(root, "sub/a.txt", "sub/b.txt", "empty/c.txt")
        folder.move("sub/a.txt", f"{TRASH_FOLDER}/1/sub/a.txt")
        folder.move("sub/b.txt", f"{TRASH_FOLDER}/1/b.txt")
        folder.remove(["empty/c.txt"])
        assert (root / "sub").is_dir()
        assert (root / "empty").is_dir()
        folder.move(f"{TRASH_FOLDER}/1/sub/a.txt", "sub/a.txt")
        assert not (root / TRASH_FOLDER / "1" / "sub").exists()
        assert (root / TRASH_FOLDER / "1").is_dir()
        folder.remove([f"{TRASH_FOLDER}/1/b.txt"])
        assert not (root / TRASH_FOLDER).exists()

    @needs_root
    def test_a_full_disk(self, root: Path) -> None:
        with mounted(root, "size=1m,nr_inodes=8"):
            folder = fill(root, "a.txt")
            with contextlib.suppress(OSError):
                for number in range(8):
                    (root / f"{number}").touch()
            with pytest.raises(Unavailable, match="the disk is full") as caught:
                folder.move("a.txt", f"{TRASH_FOLDER}/run/a.txt")
            assert caught.value.hint
            assert folder.download("a.txt") == b"a.txt"
            before = listed(folder)
            (root / "0").unlink()
            with pytest.raises(Unavailable, match="the disk is full"):
                folder.upload("a.txt", b"x" * 2_000_000)
            assert folder.download("a.txt") == b"a.txt"
            assert listed(folder) == [name for name in before if name != "0"]

    @needs_root
    def test_another_file_system_below_the_root(self, root: Path) -> None:
        folder = fill(root, "a.txt")
        with mounted(root / "other", "size=1m"), pytest.raises(StorageRefused, match="cross-device") as caught:
            folder.move("a.txt", "other/a.txt")
        assert caught.value.hint
        assert listed(folder) == ["a.txt"]

    @needs_root
    @pytest.mark.parametrize("again", [False, True], ids=["another device", "the same device"])
    def test_each_file_system_is_a_volume_of_its_own(self, root: Path, tmp_path: Path, again: bool) -> None:
        (there := tmp_path / "there").mkdir()
        with mounted_again(root / "a/disk", there) if again else mounted(root / "a/disk"):
            folder = fill(root, "a.txt", "a/b.txt", "a/disk/c.txt", "a/disk/deep/d.txt")
            assert sorted(name for chunk in folder.name_chunks() for name in chunk) == [
                "a.txt",
                "a/b.txt",
                "a/disk/c.txt",
                "a/disk/deep/d.txt",
            ]
            assert folder.volumes == ["a/disk/"]
            names = ("a.txt", "a/b.txt", "a/disk/c.txt", "a/disk/deep/d.txt", "a/disk/gone/e.txt", "gone/f.txt")
            assert [folder.volume_of(name) for name in names] == ["", "", "a/disk/", "a/disk/", "a/disk/", ""]
            trashed = f"a/disk/{TRASH_FOLDER}/run/a/disk/deep/d.txt"
            folder.move("a/disk/deep/d.txt", trashed)
            assert listed(folder) == ["a.txt", "a/b.txt", "a/disk/c.txt"]
            folder.move(trashed, "a/disk/deep/d.txt")
            # The folders of the trash go when they are empty.
            assert not (root / "a/disk" / TRASH_FOLDER / "run").exists()

    @needs_root
    def test_a_read_only_file_system(self, root: Path) -> None:
        with mounted(root, "size=1m"):
            folder = fill(root, "sub/a.txt")
            subprocess.run(["mount", "-o", "remount,ro", root], check=True)
            removal = folder.remove(["sub/a.txt", "sub/b.txt"])
            assert removal.failed == {"sub/a.txt": "read-only file system"}
            assert removal.absent == {"sub/b.txt"}
            with pytest.raises(StorageRefused, match="read-only file system"):
                folder.move("sub/a.txt", "b.txt")
            with pytest.raises(StorageRefused, match="read-only file system"):
                folder.upload("sub/a.txt", b"")
            assert listed(folder) == ["sub/a.txt"]


AS_ANOTHER_USER = """
import json, os, sys
from pathlib import Path
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.resources.object_storage.local_folder import LocalFolder
folder = LocalFolder(Path(sys.argv[1]))
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
def outcome(use):
    try:
        return repr(use())
    except HousekeepingError as error:
        return f"{type(error).__name__}: {error.message}"
print(json.dumps([
    outcome(lambda: [found.name for found in folder.list()]),
    outcome(lambda: folder.remove(["fixed/a.txt"]).failed),
    outcome(lambda: folder.move("fixed/a.txt", "b.txt")),
    outcome(lambda: folder.upload("fixed/b.txt", b"")),
    outcome(lambda: [found.name for found in folder.list("fixed/")]),
    outcome(lambda: folder.stat("closed/c.txt")),
]))
"""


def test_folders_that_the_user_may_not_read_or_write(root: Path) -> None:
    fill(root, "fixed/a.txt", "closed/c.txt")
    (root / "fixed").chmod(0o555)
    (root / "closed").chmod(0o000)
    for parent in [root, *root.parents]:
        if os.geteuid() == 0 and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    result = subprocess.run([sys.executable, "-c", AS_ANOTHER_USER, root], check=True, capture_output=True, text=True)
    everything, removed, moved, written, below, looked = json.loads(result.stdout)
    assert everything == "StorageRefused: cannot list the folder 'closed/': permission denied"
    assert removed == "{'fixed/a.txt': 'permission denied'}"
    assert moved.startswith("StorageRefused: cannot move 'fixed/a.txt'")
    assert written == "StorageRefused: cannot write 'fixed/b.txt': permission denied"
    assert below == "['fixed/a.txt']"
    assert looked == "StorageRefused: cannot examine 'closed/c.txt': permission denied"
    (root / "closed").chmod(0o755)
    assert listed(LocalFolder(root)) == ["closed/c.txt", "fixed/a.txt"]


def test_a_file_that_may_not_leave_its_folder_gets_no_second_name(root: Path) -> None:
    fill(root, "fixed/a.txt")
    # To where it goes anybody may write, as an owner of the root may to the trash; Linux lets nobody else link a file
    # that they may not write.
    root.chmod(0o777)
    (root / "fixed" / "a.txt").chmod(0o666)
    (root / "fixed").chmod(0o555)
    for parent in root.parents:
        if os.geteuid() == 0 and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", AS_ANOTHER_USER, root], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)[2].startswith("StorageRefused: cannot move 'fixed/a.txt'")
    assert listed(LocalFolder(root)) == ["fixed/a.txt"]
