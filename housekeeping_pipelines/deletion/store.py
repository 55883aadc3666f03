"""What deletion needs of a store: its name, its storage, its trash, and which names something refers to.

The references are a protocol: deletion asks right before it removes a name, without knowing who refers to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from housekeeping_pipelines.resources.object_storage import ObjectStorage


class Uses(Protocol):
    """Knows which names of a store something refers to."""

    def in_use(self, connection: sa.Connection, names: Sequence[str]) -> set[str]:
        """Those of the names that something refers to now.

        Raises:
            HousekeepingError, sqlalchemy.exc.DBAPIError: the references are unknown; nothing may be removed.
        """


@dataclass(frozen=True)
class Store:
    """A store, by its name in the outbox and the trash.

    Attributes:
        trash_prefix: where in the store removed objects stay until they expire; None removes them permanently.
    """

    name: str
    storage: ObjectStorage
    trash_prefix: str | None
    uses: Uses

    def trash_name(self, run_id: str, name: str) -> str:
        return f"{self.trash_prefix}/{run_id}/{name}"
