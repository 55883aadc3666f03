"""Rows leave their tables here, and nowhere else: the guards, the list of candidates, and batch after batch of it.

A batch that meets trouble with a row (a hold deep inside, a key, a trigger, a lock, a budget) is rolled back and cut
in halves, down to the one root that has it, which is counted and left.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.batch import Batch, NeedsRecheck, Paused, RowError
from housekeeping_pipelines.deletion.candidates import CandidateList
from housekeeping_pipelines.deletion.holds import ActiveHolds, OwnerPaths
from housekeeping_pipelines.deletion.mirrors import MIRRORS_LOCK, Mirror, ensure_mirror
from housekeeping_pipelines.deletion.plan import make_plan
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.report import (
    MAX_FAILED,
    MAX_SAMPLE,
    PARTIAL,
    SKIP_REASONS,
    SUCCEEDED,
    Candidate,
    Ending,
    FailedItem,
)
from housekeeping_pipelines.postgres import errors as database_errors
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.postgres.keys import Key, item_name
from housekeeping_pipelines.postgres.locks import shared_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.deletion.plan import Plan
    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.execution.report import Report, StoppedReason
    from housekeeping_pipelines.execution.run import Run

logger = logging.getLogger(__name__)

# How many root rows the first transaction takes, and the next ones more as long as they are quick: nobody knows yet
# how much hangs on one.
FIRST_BATCH = 500

# A transaction that takes longer is followed by smaller ones; vacuum and the application's writers wait for the oldest.
SECONDS_A_BATCH = 1.0

ATTEMPTS = 3

# So many single rows in trouble are no longer the rows' fault.
MAX_ROW_ERRORS = 100

# Each has cost three lock timeouts by then: it is the table that is locked, and the run would take hours to find out.
MAX_LOCKED_IN_A_ROW = 5


class _Stop(Exception):
    """The run ends here, in good order."""

    def __init__(self, reason: StoppedReason) -> None:
        super().__init__(reason)
        self.reason: StoppedReason = reason


@dataclass
class _Tally:
    """What has been committed so far."""

    scanned: int = 0
    candidates: int = 0
    dealt_with: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SKIP_REASONS, 0))
    failed: list[FailedItem] = field(default_factory=list)
    failed_count: int = 0
    sample: list[Candidate] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Rows of all tables."""
        return sum(self.rows.values())


def delete_rows(run: Run, make_policy: Callable[[Catalog, datetime], RowPolicy], limits: Limits) -> Report:
    """Delete what a policy selects.

    Raises:
        HousekeepingError: the policy or its plan does not fit the database; nothing went.
    """
    connection = run.connection
    if run.dry_run:
        connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        connection.commit()
    catalog = Catalog(connection)
    policy = make_policy(catalog, run.clock())
    plan = make_plan(catalog, policy.table, policy.undeclared, policy.follows)
    owners = OwnerPaths(catalog, policy.users, [*catalog.foreign_keys, *policy.undeclared])
    connection.commit()
    with ExitStack() as stack:
        if run.trashed and not run.dry_run:
            stack.enter_context(shared_lock(connection, MIRRORS_LOCK))
        return RowDeletion(run, policy, plan, limits, owners).execute()


@dataclass
class RowDeletion:
    """One run of one policy."""

    run: Run
    policy: RowPolicy
    plan: Plan
    limits: Limits
    owners: OwnerPaths

    def execute(self) -> Report:
        """Delete until the candidates, a budget or the administrator's patience are at an end.

        Never raises for what a user or a database can cause: the report's status says it.
        """
        self._tally = _Tally(warnings=[*self.policy.warnings, *self.plan.warnings()])
        self._mirrors: dict[int, Mirror] = {}
        self._batch_size = min(FIRST_BATCH, self.limits.batch_size)
        self._locked_in_a_row = 0
        # A dry run leaves the rows where they are: what several roots would take is counted with the first.
        self._seen: dict[int, set[Key]] = {oid: set() for oid in self.plan.shared}
        ending = SUCCEEDED
        stopped: StoppedReason | None = None
        try:
            self._prepare()
            for keys in self._candidates():
                self._take(keys)
        except Paused:
            stopped = "paused"
        except _Stop as stop:
            stopped = stop.reason
            self._tally.skipped["budget"] += self._tally.candidates - self._tally.dealt_with
        except HousekeepingError as error:
            ending = Ending.of(error)
        except sa.exc.DBAPIError as error:
            ending = Ending.of(database_errors.explain(error, self.run.connection.engine.url))
        try:
            self.run.connection.rollback()
            self.run.connection.exec_driver_sql("CLOSE ALL")
            if self._tally.rows and not self.run.dry_run:
                # The batches did not wait for the disk; this commit does, and what came before is there with it.
                self.run.connection.execute(sa.select(sa.func.pg_logical_emit_message(True, "housekeeping", "")))
            self.run.connection.commit()
        except sa.exc.DBAPIError as error:
            # What was counted may not be on the disk: that is not a success.
            if ending == SUCCEEDED:
                ending = Ending.of(database_errors.explain(error, self.run.connection.engine.url))
        tally = self._tally
        if ending == SUCCEEDED and tally.failed_count:
            ending = PARTIAL
        return self.run.report(
            ending,
            table=self.policy.table.label,
            stopped_reason=stopped,
            scanned=tally.scanned,
            candidates=tally.candidates,
            deleted={} if self.run.dry_run else dict(tally.rows),
            for_good={} if self.run.dry_run or self.run.trashed else dict(tally.rows),
            # The files follow their rows; they are counted when storage has confirmed it.
            would_delete=tally.rows | tally.files if self.run.dry_run else {},
            skipped=tally.skipped,
            failed=tuple(tally.failed),
            failed_count=tally.failed_count,
            sample=tuple(tally.sample),
            warnings=tuple(tally.warnings),
        )

    def _prepare(self) -> None:
        """The guards, and the list of candidates."""
        connection, policy, table = self.run.connection, self.policy, self.policy.table
        guards.check_not_paused(connection, by_setting=self.run.paused_by_setting)
        if not self.run.dry_run:
            guards.check_privileges(connection, self.plan, trashed=self.run.trashed)
        held = ActiveHolds.read(connection, self.run.clock()).cover(table, self.owners)
        connection.commit()
        found = self._list = CandidateList(connection, policy)
        found.make(held)
        self._tally.scanned, self._tally.candidates = found.scanned, found.candidates
        self._tally.skipped["held"] = found.held
        self._tally.skipped["young"] = found.eligible - found.candidates - found.held
        if found.scanned:
            guards.check_references(connection, policy.references, self.limits)
        guards.check_fraction(table, found.candidates, found.scanned, self.limits)
        if self.run.trashed and not self.run.dry_run and found.candidates:
            self._mirrors = {member.oid: ensure_mirror(connection, member) for member in self.plan.tables}
        connection.commit()
        self.run.observer.planned(self.run.task, self.plan.describe(), found.candidates, dry_run=self.run.dry_run)
        found.open()

    def _candidates(self) -> Iterator[list[Key]]:
        while keys := self._list.next(self._batch_size):
            yield keys

    def _take(self, keys: list[Key]) -> None:
        pending = [keys]
        while pending:
            batch = pending.pop()
            self._check_budget()
            started = self.run.monotonic()
            try:
                done = self._attempt(batch)
            except RowError as error:
                if len(batch) > 1:
                    middle = len(batch) // 2
                    pending += [batch[middle:], batch[:middle]]
                else:
                    self._leave(batch[0], error)
                continue
            self._record(done, len(batch))
            self._pace(self.run.monotonic() - started)

    def _check_budget(self) -> None:
        if self.run.is_out_of_time(self.limits.max_seconds):
            raise _Stop("max_seconds")
        if self.limits.max_rows is not None and self._tally.total >= self.limits.max_rows:
            raise _Stop("max_rows")

    def _pace(self, seconds: float) -> None:
        if seconds > SECONDS_A_BATCH:
            self._batch_size = max(1, self._batch_size // 2)
        elif seconds < SECONDS_A_BATCH / 4:
            self._batch_size = min(self.limits.batch_size, self._batch_size * 2)

    def _attempt(self, keys: list[Key]) -> Batch:
        """One transaction, tried again where PostgreSQL says that trying again helps.

        Raises:
            RowError: with some row of it.
        """
        try:
            # Whether a child that goes along keeps its root is told by those that went, at no cost; where one does,
            # or stays behind, each root is asked before.
            return self._transaction(keys, closely=self.run.dry_run or not self._keep_rule_is_followed)
        except NeedsRecheck:
            return self._transaction(keys, closely=True)

    @property
    def _keep_rule_is_followed(self) -> bool:
        keep_rule = self.policy.keep_rule
        return keep_rule is not None and any(
            (key.child, key.columns, key.parent) == (keep_rule.table.oid, (keep_rule.key,), self.plan.root.oid)
            for key in self.plan.followed
        )

    def _transaction(self, keys: list[Key], *, closely: bool) -> Batch:
        import stamina

        try:
            for attempt in stamina.retry_context(
                on=database_errors.is_transient,
                # Its halves are the next attempts of a batch of several.
                attempts=ATTEMPTS if len(keys) == 1 else 1,
                timeout=None,
                wait_initial=0.05,
                wait_max=1.0,
                wait_jitter=0.2,
            ):
                with attempt, self.run.connection.begin():
                    batch = self._new_batch(closely=closely)
                    batch.execute(keys)
                    self._check_rows_left(batch)
                    # Again: whatever is emptied meanwhile would make an orphan of each row that refers to it.
                    guards.check_references(self.run.connection, self.policy.references, self.limits)
                    return batch
        except sa.exc.DBAPIError as error:
            if not database_errors.is_about_a_row(error):
                raise
            skip_reason = "locked" if database_errors.is_transient(error) else "failed"
            raise RowError(skip_reason, database_errors.describe(error)) from None
        raise AssertionError("unreachable")

    def _new_batch(self, *, closely: bool) -> Batch:
        return Batch(
            run=self.run,
            policy=self.policy,
            plan=self.plan,
            owners=self.owners,
            mirrors=self._mirrors,
            seen=self._seen,
            closely=closely,
        )

    def _check_rows_left(self, batch: Batch) -> None:
        """`total + size > budget` stops before, not after: raising rolls the batch back."""
        if self.limits.max_rows is None:
            return
        rows = sum(batch.counts.values())
        if self._tally.total + rows <= self.limits.max_rows:
            return
        if len(batch.roots) == 1 and rows <= self.limits.max_rows:
            raise _Stop("max_rows")
        raise RowError("budget", f"more than max_rows = {self.limits.max_rows:,} rows go with it")

    def _leave(self, key: Key, error: RowError) -> None:
        name = item_name(self.plan.root, key)
        tally = self._tally
        tally.dealt_with += 1
        if error.skip_reason == "failed":
            tally.failed_count += 1
            if len(tally.failed) < MAX_FAILED:
                tally.failed.append(FailedItem(name, error.reason))
            if tally.failed_count >= MAX_ROW_ERRORS:
                raise HousekeepingError(f"gave up after {MAX_ROW_ERRORS} rows could not be deleted; {error.reason}")
            return
        tally.skipped[error.skip_reason] += 1
        if error.skip_reason == "budget" and tally.skipped["budget"] <= MAX_FAILED:
            tally.warnings.append(f"{name} was left: {error.reason}")
        if error.skip_reason == "locked":
            self._locked_in_a_row += 1
            if self._locked_in_a_row >= MAX_LOCKED_IN_A_ROW:
                raise HousekeepingError(f"gave up after {MAX_LOCKED_IN_A_ROW} rows in a row: {error.reason}")
        logger.debug("%s: %s left: %s", self.run.task, name, error.reason)

    def _record(self, batch: Batch, dealt_with: int) -> None:
        tally, root = self._tally, self.plan.root
        tally.dealt_with += dealt_with
        self._locked_in_a_row = 0
        if self.run.dry_run:
            for oid, seen in self._seen.items():
                seen.update(batch.rows.get(oid, {}))
        for reason, count in batch.skipped.items():
            tally.skipped[reason] += count
        for label, count in batch.counts.items():
            tally.rows[label] = tally.rows.get(label, 0) + count
        for store, count in batch.files.items():
            tally.files[store] = tally.files.get(store, 0) + count
        # Names by the million cost time; nobody hears of them but in a dry run, or when debugging.
        told = self.run.dry_run or logger.isEnabledFor(logging.DEBUG)
        for found in batch.roots:
            if not told and len(tally.sample) >= MAX_SAMPLE:
                break
            name = item_name(root, found.key)
            self.run.observer.took(name)
            if len(tally.sample) < MAX_SAMPLE:
                tally.sample.append(Candidate(name, None, found.age_seconds, self.policy.reason))
        self.run.observer.advanced(self.run.task, tally.dealt_with, tally.candidates, tally.total)
