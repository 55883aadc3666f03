"""The listing of everything below a folder; memory grows with depth, not with the number of files."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Literal

from housekeeping_pipelines.resources.object_storage.local_errors import NOT_THERE, explained, shown
from housekeeping_pipelines.resources.object_storage.local_walk import READ, is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

# Entries of a folder in one page.
_ENTRIES = 1000


def scan(
    open_root: Callable[[], int], label: str, prefix: str, hidden: str, without: Collection[str] = ()
) -> Iterator[tuple[Level, list[str]]]:
    """Each folder with the names of a page of its files, as often as it has pages.

    Args:
        open_root: opens the folder whose files are listed, for reading.
        label: names it in messages.
        prefix: what the names begin with.
        hidden: the name of folders that are skipped, wherever they are.
        without: further folders that are skipped, from the root, with a slash at the end.
    """
    folder, slash, beginning = prefix.rpartition("/")
    if slash and not is_name(folder):
        with explained(label):
            os.close(open_root())
        return
    levels: list[Level] = []
    try:
        with explained(label):
            levels.append(Level(open_root(), ""))
        for part in folder.split("/") if slash else ():
            level = _enter(levels.pop(), part)
            if level is None:
                return
            levels.append(level)
        levels[0].limit(beginning)
        while levels:
            level = levels[-1]
            if level.folders:
                part = level.folders.pop()
                if part == hidden or (without and f"{level.name}{part}/" in without):
                    continue
                if (below := _enter(level, part, keep=True)) is not None:
                    levels.append(below)
            elif level.ended:
                levels.pop().close()
            else:
                yield level, level.files()
    finally:
        for level in levels:
            level.close()


class Level:
    """One open folder of a scan.

    Attributes:
        folders: subfolders that were found and not entered yet.
        links: the symbolic links of the last page.
        ended: all entries were read.
        is_volume: another file system begins here.
    """

    def __init__(self, folder: int, name: str, above: int | None = None) -> None:
        self.folder = folder
        self.name = name
        self.device = os.fstat(folder).st_dev
        self.is_volume = above is not None and self.device != above
        self.folders: list[str] = []
        self.links: list[str] = []
        self.ended = False
        self._others = 0
        try:
            self._scan = os.scandir(folder)
        except BaseException:
            os.close(folder)
            raise
        self._entries: Iterator[os.DirEntry[str]] = self._scan

    def limit(self, beginning: str) -> None:
        """Skip names that do not begin with `beginning`."""
        if beginning:
            self._entries = (entry for entry in self._scan if entry.name.startswith(beginning))

    def close(self) -> None:
        self._scan.close()
        os.close(self.folder)

    def files(self) -> list[str]:
        """The names of the files on the next page."""
        self.links, self._others = [], 0
        with explained(f"cannot list the folder {shown(self.name)}"):
            entries = itertools.islice(self._entries, _ENTRIES)
            # Keeping no entry lets its memory be reused at once, which saves most of a listing's time.
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False) or self._is_other(entry)]
        self.ended = len(names) + self._others < _ENTRIES
        return names

    def _is_other(self, entry: os.DirEntry[str]) -> Literal[False]:
        self._others += 1
        if entry.is_dir(follow_symlinks=False):
            self.folders.append(entry.name)
        elif entry.is_symlink():
            self.links.append(entry.name)
        return False


def _enter(level: Level, part: str, *, keep: bool = False) -> Level | None:
    """The subfolder; None if it no longer exists or is no longer a folder. Closes `level` unless it is kept."""
    name = f"{level.name}{part}/"
    try:
        with explained(f"cannot list the folder {shown(name)}"):
            try:
                return Level(os.open(part, READ, dir_fd=level.folder), name, level.device)
            except OSError as error:
                if error.errno in NOT_THERE:
                    return None
                raise
    finally:
        if not keep:
            level.close()
