"""Errors of the operating system about files and folders, as errors of ours."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from housekeeping_pipelines.errors import HousekeepingError, Unavailable
from housekeeping_pipelines.resources.object_storage import StorageRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def shown(name: str) -> str:
    """A name for a message: on one line, and always printable."""
    return ascii(name) if not name.isprintable() else repr(name)


def reason(error: OSError) -> str:
    """The cause in a few words."""
    if error.errno in _FULL:
        return "the disk is full"
    return (error.strerror or str(error)).lower()


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error of the operating system into one of ours."""
    try:
        yield
    except OSError as error:
        raise explain(error, what) from error


def explain(error: OSError, what: str) -> HousekeepingError:
    """The error to raise; `what` says what failed."""
    message = f"{what}: {reason(error)}"
    if error.errno in _FULL:
        return Unavailable(message, hint="free some space, and run it again")
    if error.errno == errno.EXDEV:
        return StorageRefused(message, hint="keep the whole folder on one file system")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageRefused(message, hint="grant this user read and write access to the folder and everything in it")
    if error.errno in NOT_THERE or error.errno in (errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ):
        return StorageRefused(message)
    return Unavailable(message)
