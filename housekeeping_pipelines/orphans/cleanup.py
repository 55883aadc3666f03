"""Remove files that nothing refers to, within the budgets, and report mismatches in both directions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.file_outbox import queue
from housekeeping_pipelines.deletion.file_trash import in_trash
from housekeeping_pipelines.deletion.files import FileRemoval
from housekeeping_pipelines.deletion.holds import ActiveHolds
from housekeeping_pipelines.deletion.mirrors import MIRRORS_LOCK
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.execution.report import Ending
from housekeeping_pipelines.execution.run import BROKEN_OFF
from housekeeping_pipelines.execution.wording import in_units
from housekeeping_pipelines.orphans import cursors
from housekeeping_pipelines.orphans.finding import find_orphans
from housekeeping_pipelines.orphans.listing import Kind, NamesInChunks
from housekeeping_pipelines.orphans.report import OrphanReport
from housekeeping_pipelines.orphans.search import Kept, Scan
from housekeeping_pipelines.orphans.tally import OrphanTally
from housekeeping_pipelines.postgres.locks import shared_lock
from housekeeping_pipelines.stores import named_sources
from housekeeping_pipelines.stores.excluded import Excluded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from housekeeping_pipelines.deletion.files import Outcome
    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.errors import Unavailable
    from housekeeping_pipelines.execution.report import StoppedReason
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.orphans.candidates import Orphans
    from housekeeping_pipelines.orphans.search import Search
    from housekeeping_pipelines.resources.object_storage import StoredObject
    from housekeeping_pipelines.stores.stores import Stores
    from housekeeping_pipelines.stores.uses import PlatformUses

logger = logging.getLogger(__name__)

# Candidates that a report names to show what takes the space.
LARGEST = 20


def clean_store(run: Run, *, stores: Stores, search: Search, limits: Limits) -> OrphanReport:
    """Find files that nothing refers to and remove them, within the budgets.

    Raises:
        Refused: a guard.
        HousekeepingError: the store or the references cannot be read; nothing was removed.
    """
    store, uses = stores[search.store], stores.uses(search.store)
    kind = Kind(search.prefix(stores.folder(search.store)), search.pattern, search.recursive)
    guards.check_may_start(run)
    if not run.dry_run:
        guards.check_enabled(store)
    now = run.clock()
    # A table of the trash must not be dropped while it is searched for references.
    with shared_lock(run.connection, MIRRORS_LOCK):
        sources = uses.sources(run.connection)
        named_before = named_sources.read(run.connection, store.name)
        run.connection.commit()
        excluded = Excluded(uses.config.exclude.get(store.name, ()))
        scan = Scan(
            storage=store.storage,
            sources=sources,
            floor=now - search.older_than,
            limits=limits,
            kind=kind,
            find_kept=lambda names: _kept(run, store, uses, excluded, names, now),
            stored=store.stored,
            named_before=named_before,
            check_share=partial(guards.check_store_fraction, final=not store.trash_prefix),
            on_scanned=lambda count: logger.info("%s: %s files listed", run.task, f"{count:,}"),
        )
        orphans = find_orphans(run.connection, scan)
    if not run.dry_run:
        with cursors.transaction(run.connection):
            named_sources.record(run.connection, store.name, orphans.findings.sources, now)
    tally = OrphanTally.of(
        orphans.findings,
        store=store.name,
        permanent=not store.trash_prefix,
        now=now,
        why="nothing refers to it",
    )
    return OrphanCleanup(run, store, limits, orphans, tally).execute()


def _kept(run: Run, store: Store, uses: PlatformUses, excluded: Excluded, names: list[str], now: datetime) -> Kept:
    """Those of the names that are kept although no column names them."""
    connection = run.connection
    with connection.begin_nested() if connection.in_transaction() else connection.begin():
        holds = ActiveHolds.read(connection, now)
        in_use = uses.referenced_by_sessions(connection, names) | in_trash(connection, store.name, names)
    held = holds.names(store.name, names)
    left_alone = excluded.of(names) - held
    return Kept(held, in_use - held - left_alone, frozenset(left_alone))


@dataclass
class OrphanCleanup:
    """The removal of what one search found."""

    run: Run
    store: Store
    limits: Limits
    orphans: Orphans
    tally: OrphanTally
    _unavailable: Unavailable | None = None

    def execute(self) -> OrphanReport:
        """See `clean_store`."""
        run, tally, found = self.run, self.tally, self.orphans.findings
        cut = self.orphans.cut(max_files=self.limits.max_files, max_bytes=self.limits.max_bytes)
        tally.plan(cut.files, cut.stopped_reason, dry_run=run.dry_run)
        if cut.too_large:
            tally.warnings.append(self._too_large(cut.too_large))
        # Now, as a lost connection takes the list with it.
        largest = tuple(tally.candidate(each) for each in self.orphans.largest(LARGEST))
        run.observer.on_start(run.task, f"files of {self.store.storage.label}", cut.files, dry_run=run.dry_run)
        ending = None
        if run.dry_run:
            self._name_all()
        else:
            try:
                tally.stopped_reason = self._remove_all() or tally.stopped_reason
            except BROKEN_OFF as error:
                ending = run.ending_of(error)
        if ending is None and self._unavailable is not None:
            ending = Ending.failed(self._unavailable, note="files not yet removed wait in the outbox")
        return tally.report(
            run,
            ending,
            kind=OrphanReport,
            table=self.store.name,
            scanned_files=tally.scanned,
            orphaned_files=tally.candidates,
            deleted_files=tally.deleted_count,
            would_delete_bytes=cut.bytes if run.dry_run else 0,
            failed_deletions=tuple(failed.item for failed in tally.failed),
            skipped_young=tally.skipped["young"],
            skipped_size_limit=tally.skipped["budget"],
            missing_count=found.missing_count,
            missing_files=found.missing,
            largest=largest,
        )

    def _too_large(self, count: int) -> str:
        first = self.orphans.largest(1)[0]
        others = f" and {count - 1:,} more" if count > 1 else ""
        verb = "exceed" if count > 1 else "exceeds"
        return (
            f"{self.store.name}/{first.name} ({in_units(first.size or 0)}){others} {verb} max_gigabytes"
            f" ({in_units(self.limits.max_bytes or 0)}) alone: passed over; raise max_gigabytes to remove it"
        )

    def _batches(self) -> Iterator[list[StoredObject]]:
        limits = self.limits
        if not isinstance(self.store.storage, NamesInChunks):
            # In listing order, so that a few listing requests confirm the whole batch before its removal.
            yield from self.orphans.chosen(limits.batch_size, max_files=limits.max_files, max_bytes=limits.max_bytes)
            return
        left = self.tally.planned
        for batch in self.orphans.candidates(limits.batch_size, max_bytes=limits.max_bytes):
            yield batch[:left]
            left -= len(batch)
            if left <= 0:
                return

    def _name_all(self) -> None:
        for batch in self._batches():
            for each in batch:
                self.run.observer.on_item(f"{self.store.name}/{each.name}")
            self._record(batch)

    def _remove_all(self) -> StoppedReason | None:
        """Remove batch by batch; returns the reason if it stops early."""
        run = self.run
        for batch in self._batches():
            if (reason := guards.reason_to_stop(run, self.limits.max_seconds)) is not None:
                return reason
            with INTERRUPTION.step():
                outcome = self._remove(batch)
            if outcome.unavailable is not None:
                self._unavailable = outcome.unavailable
                return None
        return None

    def _remove(self, batch: list[StoredObject]) -> Outcome:
        run = self.run
        with run.connection.begin():
            entries = queue(run.connection, self.store, batch, run_id=run.run_id, task=run.task, now=run.clock())
        removal = FileRemoval(run.connection, self.store, run.clock, entries, owner=(run.run_id, run.task))
        outcome = removal.execute()
        self.tally.skipped["locked"] += len(batch) - len(entries)
        self._count(outcome)
        self._record(batch)
        return outcome

    def _count(self, outcome: Outcome) -> None:
        tally = self.tally
        tally.delete(len(outcome.gone), sum(outcome.gone.values()))
        tally.skipped["held"] += len(outcome.held)
        tally.skipped["in_use"] += len(outcome.in_use)
        for name, reason in outcome.failed.items():
            tally.fail(name, reason)

    def _record(self, batch: list[StoredObject]) -> None:
        run, tally = self.run, self.tally
        before = tally.dealt_with
        tally.deal_with(batch)
        run.observer.on_progress(run.task, tally.dealt_with, tally.planned, tally.deleted_count)
        tenth = 10 * tally.dealt_with // max(tally.planned, 1)
        if tenth > 10 * before // max(tally.planned, 1):
            logger.info("%s: %d %% of %s files", run.task, 10 * tenth, f"{tally.planned:,}")
