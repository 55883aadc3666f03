"""Opening the folder of a file, one directory at a time and never through a link."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# A folder on the path need not be readable.
PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# How often a target's folder may be removed as empty while a file is being moved into it.
MAX_RETRIES = 10


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a folder is to be like; None leaves the owner or the group to the system."""

    mode: int
    owner: int | None = None
    group: int | None = None

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Those of another folder."""
        return cls(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)

    def give(self, folder: int) -> None:
        """Give them to a folder that was just made. What the system does not permit closes it, and never opens it."""
        made, mode = os.fstat(folder), self.mode
        if self.group is not None and self.group != made.st_gid:
            try:
                os.fchown(folder, -1, self.group)
            except PermissionError:
                mode &= ~stat.S_IRWXG
        if self.owner is not None and self.owner != made.st_uid:
            with suppress(PermissionError):
                os.fchown(folder, self.owner, -1)
        # The umask restricts mkdir's own mode. Its maker has to get in.
        os.fchmod(folder, mode | stat.S_IRWXU)


class DirectoryWalk:
    """Opens the folders of files, starting at the root; the last one stays open, since names come in order."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._folder: str | None = None
        self._opened = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.forget()

    def forget(self) -> None:
        """Close the folder that is open."""
        if self._opened >= 0:
            os.close(self._opened)
        self._opened, self._folder = -1, None

    def parent(self, name: str) -> int:
        """The folder of a name; raises OSError with one of the `NOT_THERE` numbers if it does not exist."""
        folder, slash, _ = name.rpartition("/")
        if not slash:
            return self._root
        if folder != self._folder:
            self.forget()
            if not is_name(folder):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            self._opened = self._go(folder.split("/"), None)
            self._folder = folder
        return self._opened

    def make(self, name: str, like: Callable[[int], Attributes]) -> int:
        """The folder of a name; those that do not exist are made, each as `like` says for its number of parts."""
        folder = name.rpartition("/")[0]
        if not folder:
            return self._root
        self.forget()
        self._opened = self._go(folder.split("/"), like)
        self._folder = folder
        return self._opened

    def _go(self, parts: list[str], like: Callable[[int], Attributes] | None) -> int:
        at = os.dup(self._root)
        try:
            for count, part in enumerate(parts, start=1):
                below = self._step(at, part, None if like is None else partial(like, count))
                os.close(at)
                at = below
        except BaseException:
            os.close(at)
            raise
        return at

    @staticmethod
    def _step(at: int, part: str, like: Callable[[], Attributes] | None) -> int:
        attempts_left = 0 if like is None else MAX_RETRIES
        while True:
            try:
                return os.open(part, PASS, dir_fd=at)
            except FileNotFoundError:
                if like is None or not attempts_left:
                    raise
                attempts_left -= 1
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=at)
                    made = os.open(part, READ, dir_fd=at)
                    try:
                        like().give(made)
                    finally:
                        os.close(made)


def is_name(name: str) -> bool:
    """Whether it can be the name of a file below the root."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return "\0" not in name and not any(part in ("", ".", "..") for part in name.split("/"))
