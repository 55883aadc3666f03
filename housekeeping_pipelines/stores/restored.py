"""The files that rows name which an undo brings back: those in the trash of other runs come back too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.application.config import STORES
from housekeeping_pipelines.deletion.file_undo import restore_named
from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError
from housekeeping_pipelines.stores.readings import spellings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.stores.references import ReferenceSource
    from housekeeping_pipelines.stores.uses import PlatformUses

# Values looked up at a time.
BATCH_SIZE = 1000
# People read the list of missing files; the rest is only counted.
MAX_MISSING = 50


@dataclass
class FilesOfRows:
    """What became of the files that rows in the trash name.

    Attributes:
        restored: moved back out of the trash of another run, by store.
        missing: `store/value` of files that are nowhere, up to 50 of `missing_count`.
        unknown: stores that could not be asked, with the reason.
    """

    restored: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    missing_count: int = 0
    unknown: dict[str, str] = field(default_factory=dict)

    def miss(self, item: str) -> None:
        self.missing_count += 1
        if len(self.missing) < MAX_MISSING:
            self.missing.append(item)


def restore_files_of_rows(
    connection: sa.Connection,
    run_id: str,
    uses_of: Callable[[str], PlatformUses],
    store_of: Callable[[str], Store],
) -> FilesOfRows:
    """Look for the files that the rows name which a run deleted, before the rows come back.

    A file that another run has moved to the trash meanwhile is moved back. Commits as it goes.
    """
    found = FilesOfRows()
    for name in STORES:
        try:
            with connection.begin():
                sources = uses_of(name).in_trash_of(connection, run_id)
        except ConfigurationError:
            # The platform has no tables for this store.
            continue
        try:
            for source in sources:
                for values in _batches(connection, source):
                    _look_for(connection, store_of(name), source, values, found)
        except HousekeepingError as error:
            found.unknown[name] = error.one_line
    return found


def _batches(connection: sa.Connection, source: ReferenceSource) -> Iterator[list[str]]:
    last = ""
    while True:
        value = source.values().c.value
        with connection.begin():
            rows = connection.scalars(sa.select(value).where(value > last).distinct().order_by(value).limit(BATCH_SIZE))
            values = list(rows)
        if not values:
            return
        yield values
        last = values[-1]


def _look_for(
    connection: sa.Connection, store: Store, source: ReferenceSource, values: Collection[str], found: FilesOfRows
) -> None:
    meant = store.uses.meant(values, store.stored)
    for value in (value for value in values if not meant[value]):
        names = {form for reading in source.read(value) for name in reading.likely() for form in spellings(name)}
        if back := restore_named(connection, store, names):
            found.restored[store.name] = found.restored.get(store.name, 0) + back
        else:
            found.miss(f"{store.name}/{value}")
