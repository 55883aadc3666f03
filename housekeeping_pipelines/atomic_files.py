"""Files that are replaced in one step: a reader finds the old content or the new one, whole."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def drafted(
    file: Path | str, content: bytes, *, draft: str | None = None, folder: int | None = None, keep_mode: bool = True
) -> Iterator[Callable[[], None]]:
    """Write a file's new content beside it, safe on the disk; what is yielded puts it in place.

    A draft that was not put in place is removed at the end of the `with` block.

    Args:
        draft: the draft's name. A name that is the same every time lets the next call replace what a killed process
            left; one that is chosen at random lets several processes write the same file.
        folder: an open folder that `file` is relative to; the draft is made in the folder of `file`.
        keep_mode: give the draft the permissions of the file that is there, and, as root, its owner.

    Raises:
        OSError: the draft cannot be written, or the file not be replaced.
    """
    path = Path(file)
    beside = path.with_name(draft or _random_name())
    if draft is not None:
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o666, dir_fd=folder)
    in_place = False

    def put_in_place() -> None:
        nonlocal in_place
        os.rename(beside, path, src_dir_fd=folder, dst_dir_fd=folder)
        in_place = True

    try:
        with os.fdopen(descriptor, "wb") as stream:
            if keep_mode:
                _copy_mode(path, stream.fileno(), folder)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield put_in_place
    finally:
        if not in_place:
            with suppress(OSError):
                os.unlink(beside, dir_fd=folder)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are absent, which no other account may write, whatever the umask.

    Raises:
        OSError: it cannot be made.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o755)


def is_open_to_others(folder: Path) -> bool:
    """Whether any account may put files into a folder, or replace what is in it."""
    mode = folder.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def replace_file(file: Path | str, content: bytes, *, folder: int | None = None, keep_mode: bool = True) -> None:
    """Write a file whole or not at all, over what is there; see `drafted`.

    Raises:
        OSError: it cannot be written.
    """
    with drafted(file, content, folder=folder, keep_mode=keep_mode) as put_in_place:
        put_in_place()


def replace_with_link(file: Path, target: Path) -> None:
    """Put a symbolic link to `target` in the place of a file, or of nothing.

    Raises:
        OSError: it cannot be made.
    """
    beside = file.with_name(_random_name())
    beside.symlink_to(target)
    try:
        beside.replace(file)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def _random_name() -> str:
    return f".housekeeping-{secrets.token_hex(8)}"


def _copy_mode(path: Path, descriptor: int, folder: int | None) -> None:
    try:
        there = os.stat(path, dir_fd=folder)
    except FileNotFoundError:
        return
    os.fchmod(descriptor, there.st_mode & 0o777)
    if os.geteuid() == 0:
        os.fchown(descriptor, there.st_uid, there.st_gid)
