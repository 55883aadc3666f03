"""Draining the outbox: the due entries are processed store by store, until none is left or storage does not answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.deletion.file_outbox import STUCK_ATTEMPTS, take
from housekeeping_pipelines.deletion.files import FileRemoval
from housekeeping_pipelines.deletion.tables import file_outbox
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.execution.report import MAX_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from housekeeping_pipelines.deletion.files import Outcome
    from housekeeping_pipelines.deletion.store import Store


@dataclass
class DrainResult:
    """What became of the processed entries.

    Attributes:
        gone, gone_bytes: removed files by store, and the bytes of all, as far as known.
        permanently: of `gone`, those of stores that keep no trash.
        absent, in_use, held: files that did not exist, that something refers to, that a hold keeps.
        failed: `store/name` -> reason; up to 50 of `failed_count`. They are retried later.
        unavailable: stores that do not answer, with the reason; their entries wait.
        disabled: stores from which nothing is removed, with the reason; their entries wait.
    """

    gone: dict[str, int] = field(default_factory=dict)
    gone_bytes: int = 0
    permanently: dict[str, int] = field(default_factory=dict)
    absent: int = 0
    in_use: int = 0
    held: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    failed_count: int = 0
    unavailable: dict[str, str] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)

    def add(self, store: Store, outcome: Outcome) -> None:
        """Count one batch."""
        if outcome.gone:
            self.gone[store.name] = self.gone.get(store.name, 0) + len(outcome.gone)
            if for_good := len(outcome.gone) - len(outcome.in_trash):
                self.permanently[store.name] = self.permanently.get(store.name, 0) + for_good
        self.gone_bytes += sum(outcome.gone.values())
        self.absent += len(outcome.absent)
        self.in_use += len(outcome.in_use)
        self.held += len(outcome.held)
        for name, reason in outcome.failed.items():
            self.fail(f"{store.name}/{name}", reason)
        if outcome.unavailable is not None:
            self.unavailable[store.name] = outcome.unavailable.one_line

    def fail(self, item: str, reason: str) -> None:
        """Count one file that could not be removed."""
        self.failed_count += 1
        if len(self.failed) < MAX_FAILED:
            self.failed[item] = reason


def drain(
    connection: sa.Connection,
    store_of: Callable[[str], Store],
    clock: Callable[[], datetime],
    *,
    run_id: str | None = None,
    may_go_on: Callable[[], bool] = lambda: True,
    drained: DrainResult | None = None,
) -> DrainResult:
    """Process entries that are due, all or those of one run, until none is left; commits as it goes.

    Args:
        drained: to which each batch is added once it is done, so that an error takes no count away.
    """
    drained = DrainResult() if drained is None else drained
    for name in _stores_with_work(connection, clock(), run_id):
        try:
            store = store_of(name)
        except HousekeepingError as error:
            drained.fail(name, error.one_line)
            continue
        if store.disabled is not None:
            drained.disabled[name] = store.disabled
            continue
        while name not in drained.unavailable and may_go_on():
            with INTERRUPTION.step():
                entries = take(connection, name, now=clock(), run_id=run_id)
                if not entries:
                    break
                drained.add(store, FileRemoval(connection, store, clock, entries).execute())
    return drained


def _stores_with_work(connection: sa.Connection, now: datetime, run_id: str | None) -> list[str]:
    due = sa.select(file_outbox.c.store).where(file_outbox.c.next_attempt_at <= now)
    if run_id is not None:
        due = due.where(file_outbox.c.run_id == run_id)
    found = sorted(connection.scalars(due.distinct()))
    connection.commit()
    return found


def count_due(
    connection: sa.Connection, now: datetime, *, limit: int | None = None, without: Collection[str] = ()
) -> int:
    """How many entries are due, but for those of the stores `without`; counts no further than `limit`."""
    due = sa.select(file_outbox.c.id).where(
        file_outbox.c.next_attempt_at <= now, file_outbox.c.store.not_in(sorted(without))
    )
    return connection.scalar(sa.select(sa.func.count()).select_from(due.limit(limit).subquery())) or 0


def stuck(connection: sa.Connection) -> list[tuple[str, str]]:
    """Entries that failed repeatedly, as (`store/name`, reason), the longest waiting first; up to 50."""
    statement = sa.select(file_outbox.c.store, file_outbox.c.name, file_outbox.c.last_error).where(
        file_outbox.c.attempts >= STUCK_ATTEMPTS, file_outbox.c.last_error.is_not(None)
    )
    statement = statement.order_by(file_outbox.c.queued_at, file_outbox.c.id).limit(MAX_FAILED)
    return [(f"{row.store}/{row.name}", row.last_error) for row in connection.execute(statement)]
