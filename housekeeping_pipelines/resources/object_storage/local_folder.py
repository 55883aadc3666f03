"""A folder as a store: its regular files are the objects.

Every directory on the path to a file is opened by name, relative to its parent, and never through a symbolic link, so
that neither a name nor a link that is created meanwhile leads out of the root. Links, pipes and sockets are not
objects: they are never listed, examined or removed. A name that is not valid UTF-8 has surrogate escapes, as in
Python's own file functions.
"""

from __future__ import annotations

import builtins
import errno
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from housekeeping_pipelines.atomic_files import replace_file
from housekeeping_pipelines.errors import ConfigurationError, Unavailable
from housekeeping_pipelines.resources.object_storage import (
    Moves,
    ObjectExists,
    ObjectMissing,
    Removal,
    StorageRefused,
    StoredObject,
    Usage,
)
from housekeeping_pipelines.resources.object_storage.local_errors import NOT_THERE, explain, explained, reason, shown
from housekeeping_pipelines.resources.object_storage.local_scan import scan
from housekeeping_pipelines.resources.object_storage.local_walk import (
    MAX_RETRIES,
    PASS,
    READ,
    Attributes,
    DirectoryWalk,
    is_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from housekeeping_pipelines.resources.object_storage.local_scan import Level

# The trash of a volume, at its root. No listing goes into a folder of this name unless the prefix does; its folders are
# removed when they are empty.
TRASH_FOLDER = ".housekeeping-trash"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What link() answers on file systems without hard links, and for files of others where hard links are protected.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

# At most so many are reported.
MAX_INNER_LINKS = 10


class LocalFolder:
    """The regular files below a folder.

    Attributes:
        inner_links: symbolic links that the last `name_chunks` skipped and that point into the folder itself, or to
            one of its parents.
        volumes: the file systems that the last `name_chunks` found mounted below the folder, as beginnings of names.
    """

    inner_links: builtins.list[str]
    volumes: builtins.list[str]

    def __init__(
        self, root: Path, *, variable: str | None = None, trust_mtime: bool = False, without: Collection[Path] = ()
    ) -> None:
        """
        Args:
            root: may itself be a link, which is resolved once, here.
            variable: the setting that named it, for hints.
            trust_mtime: True leaves `changed` out, so that age counts from the time that a program may have set.
            without: folders below the root that are not part of the store.
        """
        self._given = root
        self._root = root.resolve()
        self._variable = variable
        self._trust_mtime = trust_mtime
        inner = [folder.resolve() for folder in without]
        self._without = frozenset(
            f"{folder.relative_to(self._root).as_posix()}/" for folder in inner if self._root in folder.parents
        )
        self._volume_of_folder: dict[str, str] = {}
        self.inner_links = []
        self.volumes = []

    @property
    def label(self) -> str:
        """The folder as it was given."""
        return str(self._given)

    def check(self) -> None:
        """Check that the folder exists and can be read.

        Raises:
            ConfigurationError: it does not exist, or is not a folder.
            StorageRefused: permission to read it is missing.
        """
        with explained(self.label):
            os.close(self._open_root(READ))

    def list(self, prefix: str = "", *, details: bool = True) -> Iterator[StoredObject]:
        """Every file whose name begins with `prefix`, without the trash unless `prefix` leads into it.

        A folder that is removed meanwhile is skipped. Memory grows with depth, not with the number of files.

        Raises:
            ConfigurationError: the root does not exist.
            StorageRefused: a folder cannot be read; the listing so far is incomplete.
        """
        for level, names in self._scan(prefix):
            if not details:
                yield from (StoredObject(level.name + name, None, None) for name in names)
                continue
            for name in names:
                try:
                    status = os.stat(name, dir_fd=level.folder, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise explain(error, f"cannot examine {shown(level.name + name)}") from error
                yield self._stored(level.name + name, status)

    def name_chunks(self, prefix: str = "", size: int = 10_000) -> Iterator[builtins.list[str]]:
        """The names alone, at most `size` in a list: what `list` yields, but fast.

        At the end, `inner_links` covers the whole folder, since a link elsewhere may point to files under the prefix.

        Raises:
            ConfigurationError, StorageRefused: as `list`.
        """
        self.inner_links, self.volumes = [], []
        chunk: builtins.list[str] = []
        for level, names in self._scan(prefix):
            self._note_links(level)
            self._note_volume(level)
            folder = level.name
            chunk += [folder + name for name in names]
            while len(chunk) >= size:
                yield chunk[:size]
                del chunk[:size]
        if chunk:
            yield chunk
        for level, _ in self._scan("") if prefix else ():
            self._note_links(level)

    def examine(self, names: Iterable[str]) -> Iterator[StoredObject]:
        """The current state of those that exist, in the order of `names`."""
        with self._walk() as walk:
            for name in names:
                if (found := self._look(walk, name)) is not None:
                    yield found

    def stat(self, name: str) -> StoredObject | None:
        """The current state of one file; None if there is no such file below the root."""
        with self._walk() as walk:
            return self._look(walk, name)

    def remove(self, names: Sequence[str]) -> Removal:
        """Remove files; a name that is not a file below the root counts as absent."""
        removed: set[str] = set()
        absent: set[str] = set()
        failed: dict[str, str] = {}
        with self._walk() as walk:
            for name in dict.fromkeys(names):
                try:
                    (removed if self._unlink(walk, name) else absent).add(name)
                except OSError as error:
                    failed[name] = reason(error)
        self._sweep_trash(removed)
        return Removal(frozenset(removed), frozenset(absent), failed)

    def volume_of(self, name: str) -> str:
        """See `ObjectStorage`. A folder that does not exist is on the volume of its parent."""
        folder = name.rpartition("/")[0]
        if not folder:
            return ""
        if folder not in self._volume_of_folder:
            below = self._volume_of_folder[folder] = self.volume_of(folder)
            with suppress(OSError, ValueError):
                path = self._root / folder
                if f"{folder}/" in self._mounts or path.lstat().st_dev != path.parent.stat().st_dev:
                    below = f"{folder}/"
            self._volume_of_folder[folder] = below
        return self._volume_of_folder[folder]

    def volumes_below(self) -> Sequence[str]:
        """See `ObjectStorage`."""
        return sorted(self._mounts)

    def remove_empty_folders(self, folder: str) -> None:
        """See `ObjectStorage`. A folder that is filled meanwhile stays."""
        with suppress(OSError), self._walk() as walk:
            at, leaf = walk.parent(folder.rstrip("/")), folder.rstrip("/").rpartition("/")[2]
            for _, folders, _, below in os.fwalk(leaf, topdown=False, dir_fd=at):
                for name in folders:
                    with suppress(OSError):
                        os.rmdir(name, dir_fd=below)
            os.rmdir(leaf, dir_fd=at)

    def move(self, source: str, target: str) -> None:
        """Rename a file within the root, making the folders of `target`; completes a move that was interrupted.

        Links and unlinks, since POSIX's rename overwrites. A process that is killed between the two leaves both
        names on one file, which the next attempt recognises.

        Folders that are made have the owner, the group and the mode of those of the same names that the file leaves:
        so the trash opens nothing that was closed, and undo makes a folder as it was.
        """
        leaf = _parts(target)[-1]
        with explained(f"cannot move {shown(source)} to {shown(target)}"), self._walk() as walk:
            for attempts_left in reversed(range(MAX_RETRIES)):
                found = self._status(walk, source)
                if found is None:
                    raise ObjectMissing(f"there is no file {shown(source)} in {self.label}")
                if source == target:
                    raise ObjectExists(f"there is a file {shown(target)} in {self.label} already")
                # Only one folder at a time is kept open by a walk.
                with self._walk() as other:
                    goal = other.make(target, self._like(source, target))
                    try:
                        self._link(walk.parent(source), source.rpartition("/")[2], goal, leaf, found, target)
                    except FileNotFoundError:
                        if not attempts_left:
                            raise
                        walk.forget()
                        continue
                break
        self._sweep_trash({source})

    def move_many(self, targets: Mapping[str, str]) -> Moves:
        """Rename files one after another; a folder that does not answer ends it."""
        moved: set[str] = set()
        absent: set[str] = set()
        taken: set[str] = set()
        failed: dict[str, str] = {}
        unavailable: Unavailable | None = None
        for name, target in targets.items():
            if unavailable is not None:
                failed[name] = unavailable.one_line
                continue
            try:
                self.move(name, target)
            except ObjectMissing:
                absent.add(name)
            except ObjectExists:
                taken.add(name)
            except Unavailable as error:
                unavailable, failed[name] = error, error.one_line
            except StorageRefused as error:
                failed[name] = error.one_line
            else:
                moved.add(name)
        return Moves(frozenset(moved), frozenset(absent), frozenset(taken), failed, unavailable)

    def upload(self, name: str, content: bytes) -> None:
        """Write a file atomically, replacing one of the same name."""
        leaf = _parts(name)[-1]
        with explained(f"cannot write {shown(name)}"), self._walk() as walk:
            folder = walk.make(name, self._like(name, name))
            with suppress(FileNotFoundError):
                if not stat.S_ISREG(os.stat(leaf, dir_fd=folder, follow_symlinks=False).st_mode):
                    raise StorageRefused(f"cannot write {shown(name)}: something there is not a file")
            replace_file(leaf, content, folder=folder, keep_mode=False)

    def download(self, name: str) -> bytes:
        """A file's content."""
        with explained(f"cannot read {shown(name)}"), self._walk() as walk:
            if self._status(walk, name) is None:
                raise ObjectMissing(f"there is no file {shown(name)} in {self.label}")
            # A pipe may have replaced the file since it was examined; opening one would block.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                file = os.open(name.rpartition("/")[2], flags, dir_fd=walk.parent(name))
            except FileNotFoundError:
                raise ObjectMissing(f"there is no file {shown(name)} in {self.label}") from None
            with os.fdopen(file, "rb") as stream:
                return stream.read()

    def usage(self, prefix: str = "") -> Usage:
        """How many files and bytes are under a prefix, without the trash if it is empty."""
        objects = size = 0
        for found in self.list(prefix):
            objects += 1
            size += found.size or 0
        return Usage(objects, size)

    def _open_root(self, flags: int) -> int:
        try:
            return os.open(self._root, flags)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            what = "does not exist" if error.errno == errno.ENOENT else "is not a folder"
            hint = f"create it, or check {self._variable}" if self._variable else "create it, or name another"
            raise ConfigurationError(f"the folder {self.label} {what}", hint=hint) from None

    def _like(self, source: str, target: str) -> Callable[[int], Attributes]:
        """What the folder of `target` with so many parts is to be like, if it has to be made.

        Each is like the folder of `source` that has the same name, counted from the file; the others are like the
        root, but the trash and its runs are open to its owner and its group alone.
        """
        left, made = source.split("/")[:-1], target.split("/")[:-1]
        same = 0
        while same < min(len(left), len(made)) and left[-1 - same] == made[-1 - same]:
            same += 1

        def attributes(parts: int) -> Attributes:
            counted = len(made) - parts
            if counted < same and left != made:
                with suppress(OSError):
                    # No part of the path of a file is a link, or it would not have been found.
                    return Attributes.of(self._root.joinpath(*left[: len(left) - counted]).lstat())
                if TRASH_FOLDER in made[:parts]:
                    return Attributes(0o700)
            of_root = Attributes.of(self._root.stat())
            return replace(of_root, mode=of_root.mode & ~0o007) if TRASH_FOLDER in made[:parts] else of_root

        return attributes

    @contextmanager
    def _walk(self) -> Iterator[DirectoryWalk]:
        with explained(self.label):
            root = self._open_root(PASS)
        try:
            with DirectoryWalk(root) as walk:
                yield walk
        finally:
            os.close(root)

    @cached_property
    def _mounts(self) -> frozenset[str]:
        # A folder that is mounted a second time is on the same device, and no file can be moved out of it all the same.
        import psutil

        mounted = [Path(partition.mountpoint) for partition in psutil.disk_partitions(all=True)]
        below = [point.relative_to(self._root) for point in mounted if self._root in point.parents]
        return frozenset(f"{point.as_posix()}/" for point in below)

    def _look(self, walk: DirectoryWalk, name: str) -> StoredObject | None:
        try:
            status = self._status(walk, name)
        except OSError as error:
            raise explain(error, f"cannot examine {shown(name)}") from error
        return None if status is None else self._stored(name, status)

    def _stored(self, name: str, status: os.stat_result) -> StoredObject:
        changed = None if self._trust_mtime else _moment(status.st_ctime_ns)
        return StoredObject(name, status.st_size, _moment(status.st_mtime_ns), changed)

    def _status(self, walk: DirectoryWalk, name: str) -> os.stat_result | None:
        if self._without and any(name.startswith(folder) for folder in self._without):
            return None
        try:
            status = os.stat(name.rpartition("/")[2], dir_fd=walk.parent(name), follow_symlinks=False)
        except OSError as error:
            if error.errno in NOT_THERE:
                return None
            raise
        except ValueError:
            # A NUL, or characters outside the file system's encoding: no file can have such a name.
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def _unlink(self, walk: DirectoryWalk, name: str) -> bool:
        if self._status(walk, name) is None:
            return False
        try:
            os.unlink(name.rpartition("/")[2], dir_fd=walk.parent(name))
        except FileNotFoundError:
            return False
        return True

    def _link(self, folder: int, leaf: str, goal: int, target_leaf: str, found: os.stat_result, target: str) -> None:
        try:
            os.link(leaf, target_leaf, src_dir_fd=folder, dst_dir_fd=goal, follow_symlinks=False)
        except FileExistsError:
            there = os.stat(target_leaf, dir_fd=goal, follow_symlinks=False)
            # On a case-insensitive file system both spellings are one name: keep the only link.
            if not os.path.samestat(there, found) or there.st_nlink < 2:
                raise ObjectExists(f"there is a file {shown(target)} in {self.label} already") from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._rename(folder, leaf, goal, target_leaf, target)
            return
        try:
            os.unlink(leaf, dir_fd=folder)
        except FileNotFoundError:
            pass
        except OSError:
            # If the first name cannot be removed, the file keeps it alone.
            with suppress(OSError):
                os.unlink(target_leaf, dir_fd=goal)
            raise

    def _rename(self, folder: int, leaf: str, goal: int, target_leaf: str, target: str) -> None:
        """Without links: reserve the target's name with an empty file, which the rename may overwrite."""
        try:
            # Open to no one, which tells it from an empty file if the process is killed here.
            os.close(os.open(target_leaf, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0, dir_fd=goal))
        except FileExistsError:
            there = os.stat(target_leaf, dir_fd=goal, follow_symlinks=False)
            if there.st_size or stat.S_IMODE(there.st_mode) or not stat.S_ISREG(there.st_mode):
                raise ObjectExists(f"there is a file {shown(target)} in {self.label} already") from None
        try:
            os.rename(leaf, target_leaf, src_dir_fd=folder, dst_dir_fd=goal)
        except OSError:
            with suppress(OSError):
                os.unlink(target_leaf, dir_fd=goal)
            raise

    def _sweep_trash(self, names: set[str]) -> None:
        """Remove the folders of the trash that these names leave empty, deepest first."""
        folders = {
            "/".join(parts[:depth])
            for parts in (name.split("/") for name in names if TRASH_FOLDER in name)
            if TRASH_FOLDER in parts
            for depth in range(parts.index(TRASH_FOLDER) + 1, len(parts))
        }
        if not folders:
            return
        with self._walk() as walk:
            for folder in sorted(folders, key=lambda folder: folder.count("/"), reverse=True):
                with suppress(OSError):
                    os.rmdir(folder.rpartition("/")[2], dir_fd=walk.parent(folder))

    def _scan(self, prefix: str) -> Iterator[tuple[Level, builtins.list[str]]]:
        hidden = "" if TRASH_FOLDER in prefix else TRASH_FOLDER
        if any(prefix.startswith(folder) for folder in self._without):
            return iter(())
        return scan(lambda: self._open_root(READ), self.label, prefix, hidden, self._without)

    def _note_volume(self, level: Level) -> None:
        found = level.is_volume or level.name in self._mounts
        if found and level.name and level.name not in self.volumes:
            self.volumes.append(level.name)

    def _note_links(self, level: Level) -> None:
        for name in level.links:
            leads_to = (self._root / level.name / name).resolve()
            # A link to a parent of the root leads back into it.
            related = leads_to.is_relative_to(self._root) or self._root.is_relative_to(leads_to)
            if related and leads_to.exists() and len(self.inner_links) < MAX_INNER_LINKS:
                self.inner_links.append(f"{level.name}{name}")


def _parts(name: str) -> list[str]:
    if not is_name(name):
        raise StorageRefused(f"{shown(name)} is not a name below the folder")
    return name.split("/")


def _moment(nanoseconds: int) -> datetime:
    # A float of seconds would lose the nanoseconds' upper digits too.
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
