"""What deletion needs of a store: its name, its storage, its trash, and which names something refers to.

The references are a protocol: deletion asks right before it removes a name, without knowing who refers to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from housekeeping_pipelines.resources.object_storage import ObjectStorage


@dataclass
class InUse:
    """Names of a store that something refers to.

    Attributes:
        names: for certain.
        unless: for each of the other names, one list of longer names for each reference: the name is in use unless
            the store has one of these, which the reference then means.
    """

    names: set[str] = field(default_factory=set)
    unless: dict[str, list[frozenset[str]]] = field(default_factory=dict)

    def decide(self, stored: Callable[[Collection[str]], set[str]]) -> set[str]:
        """All names that are in use.

        Args:
            stored: returns those of some names that the store has; asks it, if need be.
        """
        open_questions = {name: lists for name, lists in self.unless.items() if name not in self.names}
        asked = {longer for lists in open_questions.values() for names in lists for longer in names}
        there = stored(asked) if asked else set()
        return self.names | {
            name for name, lists in open_questions.items() if any(not names & there for names in lists)
        }


class Uses(Protocol):
    """Knows which names of a store something refers to."""

    def in_use(self, connection: sa.Connection, names: Sequence[str], *, except_tasks: Collection[str] = ()) -> InUse:
        """What something refers to now, of the names.

        Args:
            except_tasks: rows in the trash do not count if one of these tasks deleted them.

        Raises:
            HousekeepingError, sqlalchemy.exc.DBAPIError: the references are unknown; nothing may be removed.
        """

    def meant(self, values: Collection[str], stored: Callable[[Collection[str]], set[str]]) -> dict[str, set[str]]:
        """The names in the store that each value of a row means; asks `stored` which of the possible names it has."""


@dataclass(frozen=True)
class Store:
    """A store, by its name in the outbox and the trash.

    Attributes:
        trash_prefix: the folder that keeps removed objects until they expire, at the root of each volume; None removes
            them permanently.
        disabled: why nothing is removed from it, nor from its trash; None: it is.
        trash_folder: where such a folder is looked for, also while nothing is moved there now.
    """

    name: str
    storage: ObjectStorage
    trash_prefix: str | None
    uses: Uses
    trash_folder: str | None = None
    disabled: str | None = None

    def trash_name(self, run_id: str, name: str) -> str | None:
        """Where an object goes that a run removes; None if it goes for good."""
        if self.trash_prefix is None:
            return None
        return f"{self.storage.volume_of(name)}{self.trash_prefix}/{run_id}/{name}"

    def stored(self, names: Collection[str]) -> set[str]:
        """Those of the names that the store has.

        Raises:
            Unavailable, StorageRefused, ConfigurationError: as `ObjectStorage`.
        """
        ordered = sorted(names, key=lambda name: name.encode(errors="surrogateescape"))
        return {found.name for found in self.storage.examine(ordered)}
