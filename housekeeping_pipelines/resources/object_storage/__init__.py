"""Object storage: one protocol over a local folder and a Supabase bucket.

A name is the whole path of an object under the store's root, `/` between its parts, exactly as storage has it: no
store trims, unquotes or changes the case of a name. What storage answers is compared with what was asked; what could
not be known is asked again, and never taken for done.

    Unavailable          storage does not answer, or not now: a later attempt may succeed
    StorageRefused       storage answers, and will not: the key lacks a permission, a name is not allowed
    ConfigurationError   the address, the key or the bucket is wrong
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from housekeeping_pipelines.errors import HousekeepingError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime


class StorageRefused(HousekeepingError):
    """Storage answers, and will not do what was asked."""


class ObjectExists(StorageRefused):
    """There is an object of the target's name, which is never overwritten."""


class ObjectMissing(StorageRefused):
    """There is no object of this name."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it was when it was looked at.

    Attributes:
        size: bytes; None if it is not known.
        modified: when its content was last written, in UTC; None if it is not known.
    """

    name: str
    size: int | None
    modified: datetime | None


@dataclass(frozen=True, slots=True)
class Usage:
    """How much a store holds."""

    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of each name that was to be removed.

    Attributes:
        removed: storage confirmed that it removed them now.
        absent: they were not there any more.
        failed: they are still there, or nobody knows, and why.
        unavailable: set if storage stopped answering for some of the failed, for which a later attempt may succeed.
    """

    removed: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    failed: dict[str, str] = field(default_factory=dict)
    unavailable: Unavailable | None = None


class ObjectStorage(Protocol):
    """A store. Every method raises Unavailable, StorageRefused or ConfigurationError for what storage answers."""

    @property
    def label(self) -> str:
        """How it is named to people: a folder's path, or `bucket uploads`."""

    def check(self) -> None:
        """Find out whether it can be used, so that an empty listing means an empty store."""

    def list(self, prefix: str = "", *, details: bool = True) -> Iterator[StoredObject]:
        """Every object whose name begins so, each once, in no order that one may rely on; memory stays flat.

        Args:
            details: False leaves `size` and `modified` out where each costs a call of its own.
        """

    def examine(self, names: Iterable[str]) -> Iterator[StoredObject]:
        """The present state of those that are still there. `names` ascend as bytes, and are read as they are needed."""

    def stat(self, name: str) -> StoredObject | None:
        """The present state of one object; None if it is not there."""

    def remove(self, names: Sequence[str]) -> Removal:
        """Remove objects for good; every name is in exactly one part of the result."""

    def move(self, source: str, target: str) -> None:
        """Rename an object, keeping its content.

        Raises:
            ObjectMissing: nothing is at `source`.
            ObjectExists: something is at `target`, and stays.
        """

    def upload(self, name: str, content: bytes) -> None:
        """Write an object, over what is there."""

    def download(self, name: str) -> bytes:
        """An object's content.

        Raises:
            ObjectMissing: it is not there.
        """

    def usage(self, prefix: str = "") -> Usage:
        """How much is under a prefix; unknown sizes count as nothing."""
