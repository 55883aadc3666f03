"""Object storage: one protocol over a local folder and a Supabase bucket.

A name is the full path of an object under the store's root, with `/` between its parts, exactly as storage has it: no
store trims, unquotes or changes the case of a name. Every answer is compared with the request; an unknown outcome is
looked up, and never assumed to be a success.

    Unavailable          storage does not answer at present: a later attempt may succeed
    StorageRefused       storage rejects the request: the key lacks a permission, a name is not allowed
    ConfigurationError   the address, the key or the bucket is wrong
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from housekeeping_pipelines.errors import HousekeepingError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime


class StorageRefused(HousekeepingError):
    """Storage rejects the request."""


class ObjectExists(StorageRefused):
    """An object with the target's name exists, and is never overwritten."""


class ObjectMissing(StorageRefused):
    """No object has this name."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it was when it was listed or examined.

    Attributes:
        size: bytes; None if it is not known.
        modified: when its content was last written, in UTC; None if it is not known. A copy may have its original's.
        changed: when its status last changed, which no program can set, in UTC; None if storage has no such time.
    """

    name: str
    size: int | None
    modified: datetime | None
    changed: datetime | None = None

    @property
    def there_since(self) -> datetime | None:
        """What its age counts from: the later of the two; None if it is not known."""
        if self.modified is None or self.changed is None:
            return self.modified
        return max(self.modified, self.changed)


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
        absent: they no longer existed.
        failed: they still exist, or their state is unknown, each with the reason.
        unavailable: set if storage stopped answering for some of the failed, for which a later attempt may succeed.
    """

    removed: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    failed: dict[str, str] = field(default_factory=dict)
    unavailable: Unavailable | None = None


@dataclass(frozen=True, slots=True)
class Moves:
    """What became of each name that was to be moved.

    Attributes:
        moved: they were found at their targets, and not where they were.
        absent: they no longer existed.
        taken: something else is at their targets, and they stayed.
        failed: they stayed, or their state is unknown, each with the reason.
        unavailable: set if storage stopped answering for some of the failed, for which a later attempt may succeed.
    """

    moved: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()
    failed: dict[str, str] = field(default_factory=dict)
    unavailable: Unavailable | None = None


class ObjectStorage(Protocol):
    """A store. Every method may raise Unavailable, StorageRefused or ConfigurationError."""

    @property
    def label(self) -> str:
        """Its name in messages: a folder's path, or `bucket uploads`."""

    def check(self) -> None:
        """Find out whether it can be used, so that an empty listing means an empty store."""

    def list(self, prefix: str = "", *, details: bool = True) -> Iterator[StoredObject]:
        """Every object whose name begins with `prefix`, each once, in no particular order; memory use is constant.

        Args:
            details: False leaves `size` and `modified` out where each costs a call of its own.
        """

    def examine(self, names: Iterable[str]) -> Iterator[StoredObject]:
        """The current state of those that still exist. `names` ascend as bytes, and are read lazily."""

    def stat(self, name: str) -> StoredObject | None:
        """The current state of one object; None if it does not exist."""

    def remove(self, names: Sequence[str]) -> Removal:
        """Remove objects permanently; every name is in exactly one part of the result."""

    def volume_of(self, name: str) -> str:
        """The beginning of a name up to the file system that holds it, with a slash; empty for the store's own.

        An object can be moved only within its volume.
        """

    def volumes_below(self) -> Sequence[str]:
        """The beginnings of names that are on other file systems than the store's own, each with a slash."""

    def remove_empty_folders(self, folder: str) -> None:
        """Remove the empty folders below `folder`, which ends with a slash, and itself, where a store has folders."""

    def move(self, source: str, target: str) -> None:
        """Rename an object, keeping its content.

        Raises:
            ObjectMissing: there is nothing at `source`.
            ObjectExists: there is something at `target`, which is kept.
        """

    def move_many(self, targets: Mapping[str, str]) -> Moves:
        """Rename objects, each to its target; every name is in exactly one part of the result."""

    def upload(self, name: str, content: bytes) -> None:
        """Write an object, replacing one of the same name."""

    def download(self, name: str) -> bytes:
        """An object's content.

        Raises:
            ObjectMissing: it does not exist.
        """

    def usage(self, prefix: str = "") -> Usage:
        """The number and size of the objects under a prefix; unknown sizes count as 0."""
