"""Names that are left alone: those of other programs, of files that are not complete, and what a user excludes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pathspec import GitIgnoreSpec

from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# In the patterns of .gitignore; a folder stands for all that is in it.
FOREIGN = (
    # Recycle bins and snapshots of NAS systems and of operating systems.
    r"\#recycle/", "@Recycle/", "@Recently-Snapshot/", "$RECYCLE.BIN/", "RECYCLER/", "System Volume Information/",
    r"\#snapshot/", "~snapshot/", "lost+found/",
    # Indexes and thumbnails that a NAS or an operating system keeps beside files.
    "@eaDir/", "@tmp/", "@Transcode/", "Thumbs.db", "ehthumbs.db", "desktop.ini",
    # Files that are being written, copied or downloaded.
    "*.part", "*.partial", "*.filepart", "*.crdownload", "*.download", "*.opdownload", "*.tmp", "*.temp", "*.swp",
    "*.lock", "*.lck", "*.!sync", "*.!ut", "*.aria2", "*.bc!", "~*", "*~",
    # Everything that begins with a dot: .git, .stversions, .Trash-1000, .snapshots, .zfs, .nfs*, .DS_Store, ._*,
    # .emptyFolderPlaceholder of Supabase Studio, .gitkeep, what rsync writes first, and the trash of a store.
    ".*",
)  # fmt: skip


class Excluded:
    """The names that no search for orphans takes.

    Args:
        patterns: further ones, in the patterns of .gitignore; one that begins with `!` takes back an earlier one.

    Raises:
        ConfigurationError: a pattern is not one of .gitignore's.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        patterns = list(patterns)
        try:
            self._spec = GitIgnoreSpec.from_lines([*FOREIGN, *patterns])
        except ValueError as error:
            raise ConfigurationError(
                f"exclude: {error}", hint="write patterns as in .gitignore, in housekeeping.yaml"
            ) from None

    def of(self, names: Collection[str]) -> set[str]:
        """Those of the names that are left alone."""
        return set(self._spec.match_files(names))
