"""Opening the folder of a file, one directory at a time and never through a link."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

# A folder on the path need not be readable.
PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# How often a target's folder may be removed as empty while a file is being moved into it.
MAX_RETRIES = 10


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

    def make(self, name: str, mode: int) -> int:
        """The folder of a name, created with this mode if it does not exist."""
        folder = name.rpartition("/")[0]
        if not folder:
            return self._root
        self.forget()
        self._opened = self._go(folder.split("/"), mode)
        self._folder = folder
        return self._opened

    def _go(self, parts: list[str], mode: int | None) -> int:
        at = os.dup(self._root)
        try:
            for part in parts:
                below = self._step(at, part, mode)
                os.close(at)
                at = below
        except BaseException:
            os.close(at)
            raise
        return at

    @staticmethod
    def _step(at: int, part: str, mode: int | None) -> int:
        attempts_left = 0 if mode is None else MAX_RETRIES
        while True:
            try:
                return os.open(part, PASS, dir_fd=at)
            except FileNotFoundError:
                if mode is None or not attempts_left:
                    raise
                attempts_left -= 1
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=at)
                    made = os.open(part, READ, dir_fd=at)
                    # The umask restricts mkdir's own mode.
                    os.fchmod(made, mode)
                    os.close(made)


def is_name(name: str) -> bool:
    """Whether it can be the name of a file below the root."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return "\0" not in name and not any(part in ("", ".", "..") for part in name.split("/"))
