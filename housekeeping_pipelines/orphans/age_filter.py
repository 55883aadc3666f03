"""Filter out files that are too young, in a thread, while the database still finds more."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.orphans import candidates, cursors, listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    import sqlalchemy as sa

    from housekeeping_pipelines.resources.object_storage import StoredObject

    Examine = Callable[[list[str]], Iterator[StoredObject]]

# Files examined per batch: with fewer, a folder is opened more often.
EXAMINE_BATCH_SIZE = 20_000
# Batches that may queue before the database has to wait.
MAX_WAITING = 4
# Beyond this size, candidates are spooled to a file.
MAX_IN_MEMORY_BYTES = 8 * 2**20


@dataclass(frozen=True)
class _Partition:
    """Some files by age, as blocks of COPY."""

    old: bytes
    young: bytes


class AgeFilter:
    """Writes the files that have been there since before `floor` to the table of candidates, and the others to `YOUNG`.

    Args:
        examine: looks up sizes and times by name; None: the rows have them.
    """

    def __init__(self, connection: sa.Connection, floor: datetime, examine: Examine | None) -> None:
        self._connection = connection
        self._floor = floor
        self._examine = examine
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[_Partition]] = deque()
        # The connection is busy until it has returned every match.
        self._old = SpooledTemporaryFile(MAX_IN_MEMORY_BYTES)  # noqa: SIM115
        self._young = SpooledTemporaryFile(MAX_IN_MEMORY_BYTES)  # noqa: SIM115

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._old.close()
        self._young.close()

    def feed(self, matches: sa.Select[Any]) -> None:
        """Go through the matches (name, size, modified) in the transaction that is open."""
        with closing(cursors.streamed(self._connection, matches, EXAMINE_BATCH_SIZE)) as batches:
            for rows in batches:
                self._waiting.append(self._thread.submit(self._partition, rows))
                while len(self._waiting) > MAX_WAITING or (self._waiting and self._waiting[0].done()):
                    self._collect_first()

    def finish(self) -> None:
        """Write both tables, each in a transaction of its own."""
        while self._waiting:
            self._collect_first()
        for spool, table in ((self._old, candidates.ORPHANS), (self._young, candidates.YOUNG)):
            spool.seek(0)
            with listing.copying(self._connection, table, listing.OBJECT_COLUMNS) as write:
                while block := spool.read(2**16):
                    write(block)

    def _collect_first(self) -> None:
        partition = self._waiting.popleft().result()
        self._old.write(partition.old)
        self._young.write(partition.young)

    def _partition(self, rows: list[Any]) -> _Partition:
        examine = self._examine
        files = map(candidates.stored, rows) if examine is None else examine(sorted(row[0] for row in rows))
        old: list[StoredObject] = []
        young: list[StoredObject] = []
        for file in files:
            since = file.there_since
            if since is not None and since < self._floor:
                old.append(file)
            else:
                young.append(file)
        return _Partition(listing.objects_block(old), listing.objects_block(young))
