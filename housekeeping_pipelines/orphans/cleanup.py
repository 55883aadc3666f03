"""Taking away what nothing refers to: the guards, the budgets, batch after batch, and a report of both directions."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.file_outbox import queue
from housekeeping_pipelines.deletion.files import FileRemoval
from housekeeping_pipelines.deletion.holds import ActiveHolds
from housekeeping_pipelines.execution.report import (
    MAX_FAILED,
    MAX_SAMPLE,
    PARTIAL,
    SKIP_REASONS,
    SUCCEEDED,
    Candidate,
    Ending,
    FailedItem,
    Report,
)
from housekeeping_pipelines.orphans.finding import Orphans, find_orphans
from housekeeping_pipelines.orphans.listing import NamesInChunks
from housekeeping_pipelines.orphans.report import OrphanReport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.deletion.files import Outcome
    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.errors import Unavailable
    from housekeeping_pipelines.execution.report import StoppedReason
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.orphans.search import Search
    from housekeeping_pipelines.resources.object_storage import StoredObject
    from housekeeping_pipelines.stores.stores import Stores
    from housekeeping_pipelines.stores.uses import PlatformUses

logger = logging.getLogger(__name__)

# What a person looks at first who asks where the room goes.
LARGEST = 20


def clean_store(run: Run, *, stores: Stores, search: Search, limits: Limits) -> Report:
    """Find what nothing refers to and take it away, within the budgets.

    Raises:
        Refused: a guard.
        HousekeepingError: the store or the references cannot be read: nothing went.
    """
    store, uses = stores[search.store], stores.uses(search.store)
    return OrphanCleanup(run, store, uses, search, limits, search.prefix(stores.folder(search.store))).execute()


@dataclass
class OrphanCleanup:
    """One run over one store, limited to the names that begin with `prefix`."""

    run: Run
    store: Store
    uses: PlatformUses
    search: Search
    limits: Limits
    prefix: str = ""

    def execute(self) -> Report:
        """See `clean_store`."""
        run, search = self.run, self.search
        connection = run.connection
        guards.check_not_paused(connection, by_setting=self.run.paused_by_setting)
        self._now = self.run.clock()
        self._belongs: set[str] = set()
        sources = self.uses.sources(connection)
        connection.commit()
        orphans = find_orphans(
            connection,
            self.store.storage,
            sources,
            older_than=search.older_than,
            now=self._now,
            limits=self.limits,
            prefix=self.prefix,
            pattern=search.pattern,
            recursive=search.recursive,
            held=self._kept,
            on_scanned=self._scanned,
        )
        found = orphans.findings
        fitting = orphans.fitting(max_files=self.limits.max_files, max_bytes=self.limits.max_bytes)
        self.run.observer.planned(run.task, f"files of {self.store.storage.label}", fitting.files, dry_run=run.dry_run)
        self._total = _Total(planned=fitting.files)
        stopped: StoppedReason | None = fitting.stopped_reason
        if run.dry_run:
            self._name_all(orphans)
        else:
            stopped = self._take_all(orphans) or stopped
        total = self._total
        skipped = dict.fromkeys(SKIP_REASONS, 0) | {
            "young": found.young,
            "unrecognised": found.unrecognised,
            "held": found.held - len(self._belongs) + total.held,
            "in_use": len(self._belongs) + total.in_use,
            "budget": found.orphaned - total.dealt_with,
        }
        ending = PARTIAL if total.failed_count else SUCCEEDED
        if total.down is not None:
            ending = Ending.failed(total.down, note="what is on its way waits in the outbox")
        gone = {self.store.name: total.gone} if total.gone else {}
        return run.report(
            ending,
            kind=OrphanReport,
            table=self.store.name,
            stopped_reason=stopped,
            scanned=found.scanned,
            candidates=found.orphaned,
            deleted=gone,
            for_good={} if self.store.trash_prefix else gone,
            would_delete={self.store.name: fitting.files} if run.dry_run and fitting.files else {},
            deleted_bytes=total.gone_bytes,
            skipped=skipped,
            failed=tuple(FailedItem(name, reason) for name, reason in total.failed.items()),
            failed_count=total.failed_count,
            sample=tuple(total.sample),
            warnings=found.warnings,
            scanned_files=found.scanned,
            orphaned_files=found.orphaned,
            deleted_files=total.gone,
            would_delete_bytes=fitting.bytes if run.dry_run else 0,
            failed_deletions=tuple(total.failed),
            skipped_young=found.young,
            skipped_size_limit=skipped["budget"],
            missing_count=found.missing_count,
            missing_files=found.missing,
            largest=tuple(self._candidate(each) for each in orphans.largest(LARGEST)),
        )

    def _kept(self, names: list[str]) -> set[str]:
        """What stays although no column names it."""
        with (
            self.run.connection.begin_nested() if self.run.connection.in_transaction() else self.run.connection.begin()
        ):
            holds = ActiveHolds.read(self.run.connection, self._now)
            belongs = self.uses.kept(self.run.connection, names) | self.uses.of_sessions(self.run.connection, names)
        held = holds.names(self.store.name, names)
        self._belongs |= belongs - held
        return held | belongs

    def _scanned(self, count: int) -> None:
        logger.info("%s: %s files listed", self.run.task, f"{count:,}")

    def _batches(self, orphans: Orphans) -> Iterator[list[StoredObject]]:
        limits = self.limits
        if not isinstance(self.store.storage, NamesInChunks):
            # In the order of the listing, which then tells what they are now in a few requests.
            yield from orphans.chosen(limits.batch_size, max_files=limits.max_files, max_bytes=limits.max_bytes)
            return
        left = self._total.planned
        for batch in orphans.candidates(limits.batch_size):
            yield batch[:left]
            left -= len(batch)
            if left <= 0:
                return

    def _name_all(self, orphans: Orphans) -> None:
        for batch in self._batches(orphans):
            for each in batch:
                self.run.observer.took(f"{self.store.name}/{each.name}")
            self._note(batch)

    def _take_all(self, orphans: Orphans) -> StoppedReason | None:
        """Returns what ended it early."""
        for batch in self._batches(orphans):
            if self.run.is_out_of_time(self.limits.max_seconds):
                return "max_seconds"
            if guards.is_paused(self.run.connection):
                return "paused"
            self.run.connection.rollback()
            with self.run.connection.begin():
                entries = queue(
                    self.run.connection,
                    self.store,
                    batch,
                    run_id=self.run.run_id,
                    task=self.run.task,
                    now=self.run.clock(),
                )
            outcome = FileRemoval(self.run.connection, self.store, self.run.clock, entries).execute()
            self._total.add(outcome)
            self._note(batch)
            if outcome.unavailable is not None:
                return None
        return None

    def _note(self, batch: list[StoredObject]) -> None:
        total = self._total
        before, total.dealt_with = total.dealt_with, total.dealt_with + len(batch)
        total.sample += [self._candidate(each) for each in batch[: MAX_SAMPLE - len(total.sample)]]
        self.run.observer.advanced(self.run.task, total.dealt_with, total.planned, total.gone)
        tenth = 10 * total.dealt_with // max(total.planned, 1)
        if tenth > 10 * before // max(total.planned, 1):
            logger.info("%s: %d %% of %s files", self.run.task, 10 * tenth, f"{total.planned:,}")

    def _candidate(self, found: StoredObject) -> Candidate:
        age = None if found.modified is None else (self._now - found.modified).total_seconds()
        return Candidate(f"{self.store.name}/{found.name}", found.size, age, "nothing refers to it")


@dataclass
class _Total:
    """What was dealt with so far, of what is planned."""

    planned: int
    dealt_with: int = 0
    gone: int = 0
    gone_bytes: int = 0
    held: int = 0
    in_use: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    failed_count: int = 0
    down: Unavailable | None = None
    sample: list[Candidate] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.gone += len(outcome.gone)
        self.gone_bytes += sum(outcome.gone.values())
        self.held += len(outcome.held)
        self.in_use += len(outcome.in_use)
        self.failed_count += len(outcome.failed)
        self.failed |= dict(list(outcome.failed.items())[: MAX_FAILED - len(self.failed)])
        self.down = outcome.unavailable
