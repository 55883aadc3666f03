"""A store and what refers to its names, as deletion sees them."""

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
            HousekeepingError, sqlalchemy.exc.DBAPIError: it cannot be known; nothing may go.
        """


@dataclass(frozen=True)
class Store:
    """A store by the name that the outbox and the trash know it by.

    Attributes:
        trash_prefix: where in the store what went stays until it expires; None: it is gone at once.
    """

    name: str
    storage: ObjectStorage
    trash_prefix: str | None
    uses: Uses

    def trash_name(self, run_id: str, name: str) -> str:
        return f"{self.trash_prefix}/{run_id}/{name}"
