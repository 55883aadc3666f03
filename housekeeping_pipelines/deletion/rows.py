"""Deletes rows, and nothing else does: the guards, the list of candidates, and batch after batch of it.

A batch that meets a row's error (a hold on a dependent row, a key, a trigger, a lock, a budget) is rolled back and
tried again in halves, down to the one root that has it, which is counted and left.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.batch import Batch, BatchContext, Recheck
from housekeeping_pipelines.deletion.batch_errors import NeedsRecheck, Paused, RowError
from housekeeping_pipelines.deletion.candidates import CandidateList
from housekeeping_pipelines.deletion.holds import ActiveHolds, OwnerPaths
from housekeeping_pipelines.deletion.mirrors import MIRRORS_LOCK, Mirror, ensure_mirror
from housekeeping_pipelines.deletion.plan import make_plan
from housekeeping_pipelines.deletion.rehearsal import Rehearsal
from housekeeping_pipelines.deletion.trash import count_after_a_crash
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.execution.report import MAX_FAILED, MAX_SAMPLE, Candidate, Report
from housekeeping_pipelines.execution.run import BROKEN_OFF
from housekeeping_pipelines.execution.tally import Tally
from housekeeping_pipelines.halving import in_halves
from housekeeping_pipelines.postgres import errors as database_errors
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.postgres.keys import Key, item_name
from housekeeping_pipelines.postgres.locks import shared_lock
from housekeeping_pipelines.retries import retry_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from housekeeping_pipelines.deletion.batch import BatchResult
    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.deletion.plan import Plan
    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.execution.report import Ending, StoppedReason
    from housekeeping_pipelines.execution.run import Run

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Report)

# How many root rows the first transaction takes; the next ones take more as long as they are quick: how much depends on
# a row is not known yet.
FIRST_BATCH = 500

# A transaction that takes longer is followed by smaller ones; vacuum and the application's writers wait for the oldest.
SECONDS_A_BATCH = 1.0

ATTEMPTS = 3

# With so many single rows that fail, the cause is not in the rows.
MAX_ROW_ERRORS = 100

# Each has cost three lock timeouts by then: the table is locked as a whole, and the run would take hours to find out.
MAX_LOCKED_IN_A_ROW = 5


class _Stop(Exception):
    """A limit is reached: the run ends, successfully."""

    def __init__(self, reason: StoppedReason) -> None:
        super().__init__(reason)
        self.reason: StoppedReason = reason


def delete_rows(
    run: Run,
    make_policy: Callable[[Catalog, datetime], RowPolicy],
    limits: Limits,
    *,
    kind: type[R] = Report,  # type: ignore[assignment]
) -> R:
    """Delete what a policy selects; the report is of `kind`, whose other fields have their defaults.

    Raises:
        HousekeepingError: the policy or its plan does not fit the database; nothing was deleted.
    """
    connection = run.connection
    if run.dry_run:
        connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        connection.commit()
    # A migration that commits meanwhile would leave a plan of neither.
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    catalog = Catalog(connection)
    policy = make_policy(catalog, run.clock())
    plan = make_plan(catalog, policy.table, policy.undeclared, policy.follows)
    owners = OwnerPaths(catalog, policy.users, [*catalog.foreign_keys, *policy.undeclared])
    connection.commit()
    with ExitStack() as stack:
        if run.trashed and not run.dry_run:
            stack.enter_context(shared_lock(connection, MIRRORS_LOCK))
        return RowDeletion(run, policy, catalog, plan, limits, owners).execute(kind)


class RowDeletion:
    """One run of one policy."""

    def __init__(
        self, run: Run, policy: RowPolicy, catalog: Catalog, plan: Plan, limits: Limits, owners: OwnerPaths
    ) -> None:
        self.run = run
        self.policy = policy
        self.catalog = catalog
        self.plan = plan
        self.limits = limits
        self.owners = owners
        self._tally = Tally(warnings=[*policy.warnings, *plan.warnings()])
        self._list = CandidateList(run.connection, policy)
        # What was committed so far, or would be deleted: rows by table, and entries of the outbox by store.
        self._rows: dict[str, int] = {}
        self._files: dict[str, int] = {}
        self._further: dict[str, int] = {}
        self._roots = 0
        self._batch_size = min(FIRST_BATCH, limits.batch_size)
        self._locked_in_a_row = 0

    def execute(self, kind: type[R]) -> R:
        """Delete until no candidates are left, a limit is reached, or the run is paused.

        Never raises for what a user or a database can cause: the report's status says it.
        """
        tally = self._tally
        ending: Ending | None = None
        try:
            self._prepare()
            while keys := self._list.next(self._batch_size):
                # A batch, and what was counted of it, is whole.
                with INTERRUPTION.step():
                    in_halves(keys, self._process)
        except Paused:
            tally.stopped_reason = "paused"
        except _Stop as stop:
            tally.stopped_reason = stop.reason
            tally.skipped["budget"] += tally.candidates - tally.dealt_with
        except BROKEN_OFF as error:
            ending = self.run.ending_of(error)
        lost = self.run.connection.invalidated
        try:
            with INTERRUPTION.step():
                self._make_durable()
        except sa.exc.DBAPIError as error:
            # What was counted may not be on the disk: that is not a success.
            ending, lost = ending or self.run.ending_of(error), True
        if lost:
            self._count_again()
        elif ending is None and self._roots and not self.run.dry_run:
            self._count_survivors()
        if self.run.dry_run:
            # The files follow their rows; a real run counts them when storage has confirmed their removal.
            tally.would_delete = self._rows | self._files
        else:
            tally.deleted = self._rows
            tally.for_good = ({} if self.run.trashed else self._rows) | self._further
            tally.warnings += [
                f"triggers deleted {count:,} rows of {label} besides, which cannot be restored"
                for label, count in self._further.items()
            ]
        return tally.report(self.run, ending, kind=kind, table=self.policy.table.label)

    @property
    def _row_count(self) -> int:
        """Rows of all tables that were deleted so far, or would be."""
        return sum(self._rows.values())

    def _make_durable(self) -> None:
        """Wait for the disk: the batches did not, and with this commit all of them are there."""
        connection = self.run.connection
        connection.rollback()
        connection.exec_driver_sql("CLOSE ALL")
        if self._rows and not self.run.dry_run:
            connection.execute(sa.select(sa.func.pg_logical_emit_message(True, "housekeeping", "")))
        connection.commit()

    def _count_survivors(self) -> None:
        """Compare what is left of the candidates with what was not deleted; more may have gone by other hands."""
        label, tally = self.policy.table.label, self._tally
        left = self._list.candidates - self._roots
        try:
            with INTERRUPTION.step():
                found = self._list.survivors()
        except sa.exc.DBAPIError as error:
            reason = database_errors.describe(error)
            tally.warnings.append(f"how many candidates are left in {label} is unknown: {reason}")
            return
        if found > left:
            reason = f"{found:,} candidates are in the table, and {left:,} were left by the run: deleted rows are there"
            tally.fail(label, reason)

    def _count_again(self) -> None:
        """Count what is in the trash: a server that crashed has undone the batches that did not reach its disk."""
        if self.run.dry_run or not self._rows:
            return
        if self.run.trashed:
            found = count_after_a_crash(self.run)
            if found is not None:
                labels = {(table.schema, table.name): table.label for table in self.plan.tables}
                self._rows = {labels.get(name, ".".join(name)): count for name, count in found.items()}
                return
        self._tally.warnings.append("the counts are not confirmed: the server went away before it had all on its disk")

    def _prepare(self) -> None:
        """The guards, the list of candidates, and what all batches work with."""
        connection, policy, table = self.run.connection, self.policy, self.policy.table
        guards.check_may_start(self.run)
        if not self.run.dry_run:
            guards.check_privileges(connection, self.plan, trashed=self.run.trashed)
            guards.check_published(connection, self.plan)
        held = ActiveHolds.read(connection, self.run.clock()).cover(table, self.owners)
        connection.commit()
        found = self._list
        found.make(held)
        self._tally.scanned, self._tally.candidates = found.scanned, found.candidates
        self._tally.skipped["held"] = found.held
        self._tally.skipped["young"] = found.eligible - found.candidates - found.held
        if found.scanned:
            guards.check_references(connection, policy.references, self.limits)
        guards.check_fraction(f"rows of {table.label}", found.candidates, found.scanned, self.limits)
        mirrors: dict[int, Mirror] = {}
        if self.run.trashed and not self.run.dry_run and found.candidates:
            mirrors = {member.oid: ensure_mirror(connection, member) for member in self.plan.tables}
        # A dry run leaves the rows in place: those that several roots share are counted with the first.
        counted: dict[int, set[Key]] = {oid: set() for oid in self.plan.shared}
        self._context = BatchContext(self.run, policy, self.plan, self.owners, mirrors, counted)
        connection.commit()
        if mirrors:
            Rehearsal(self._context, self.catalog, found.listed, policy.without_undo).ensure()
        self.run.observer.on_start(self.run.task, self.plan.describe(), found.candidates, dry_run=self.run.dry_run)
        found.open()

    def _process(self, keys: list[Key]) -> list[Key]:
        """Delete these rows in one transaction; returns those to try again in halves.

        Raises:
            _Stop: a limit is reached.
            Paused: the run is paused.
            HousekeepingError: too many rows fail.
        """
        self._check_budget()
        started = self.run.monotonic()
        try:
            result = self._attempt(keys)
        except RowError as error:
            if len(keys) > 1:
                return keys
            self._leave(keys[0], error)
            return []
        self._record(result, len(keys))
        self._pace(self.run.monotonic() - started)
        return []

    def _check_budget(self) -> None:
        if (reason := self.run.has_to_stop(self.limits.max_seconds)) is not None:
            raise _Stop(reason)
        if self.limits.max_rows is not None and self._row_count >= self.limits.max_rows:
            raise _Stop("max_rows")

    def _pace(self, seconds: float) -> None:
        if seconds > SECONDS_A_BATCH:
            self._batch_size = max(1, self._batch_size // 2)
        elif seconds < SECONDS_A_BATCH / 4:
            self._batch_size = min(self.limits.batch_size, self._batch_size * 2)

    def _attempt(self, keys: list[Key]) -> BatchResult:
        """One transaction, tried again where PostgreSQL says that this may help.

        Raises:
            RowError: a row cannot be deleted.
        """
        try:
            # Deleted children tell at no cost whether they keep their root. Where one does, or where they are not
            # deleted with it, each root is asked before.
            late = self._keep_rule_is_followed and not self.run.dry_run
            return self._transaction(keys, Recheck.AFTER if late else Recheck.BEFORE)
        except NeedsRecheck:
            return self._transaction(keys, Recheck.BEFORE)

    @property
    def _keep_rule_is_followed(self) -> bool:
        """Whether the children that may keep a root are deleted with it."""
        rule = self.policy.keep_rule
        return rule is not None and any(
            (key.child, key.columns, key.parent) == (rule.table.oid, (rule.key,), self.plan.root.oid)
            for key in self.plan.followed
        )

    def _transaction(self, keys: list[Key], recheck: Recheck) -> BatchResult:
        try:
            for attempt in retry_context(
                on=database_errors.is_transient,
                # Of several, the halves are the next attempts.
                attempts=ATTEMPTS if len(keys) == 1 else 1,
                timeout=None,
                wait_initial=0.05,
                wait_max=1.0,
                wait_jitter=0.2,
            ):
                with attempt, self.run.connection.begin():
                    result = Batch(self._context, recheck).execute(keys)
                    self._check_rows_left(result)
                    # Again: a table that is emptied meanwhile would make an orphan of each row that refers to it.
                    guards.check_references(self.run.connection, self.policy.references, self.limits)
                    return result
        except sa.exc.DBAPIError as error:
            if not database_errors.is_about_a_row(error):
                raise
            skip_reason = "locked" if database_errors.is_transient(error) else "failed"
            raise RowError(skip_reason, database_errors.describe(error)) from None
        raise AssertionError("unreachable")

    def _check_rows_left(self, result: BatchResult) -> None:
        """Stop before a budget is exceeded, not after: raising rolls the batch back."""
        if self.limits.max_rows is None:
            return
        rows = sum(result.counts.values())
        if self._row_count + rows <= self.limits.max_rows:
            return
        if len(result.roots) == 1 and rows <= self.limits.max_rows:
            raise _Stop("max_rows")
        raise RowError("budget", f"deleting it would take more than max_rows = {self.limits.max_rows:,} rows")

    def _leave(self, key: Key, error: RowError) -> None:
        """Count a root that stays.

        Raises:
            HousekeepingError: too many rows fail, or are locked.
        """
        name = item_name(self.plan.root, key)
        tally = self._tally
        tally.dealt_with += 1
        if error.skip_reason == "failed":
            tally.fail(name, error.reason)
            if tally.failed_count >= MAX_ROW_ERRORS:
                raise HousekeepingError(f"gave up after {MAX_ROW_ERRORS} rows could not be deleted; {error.reason}")
            return
        tally.skipped[error.skip_reason] += 1
        if error.skip_reason == "budget" and tally.skipped["budget"] <= MAX_FAILED:
            tally.warnings.append(f"{name} was skipped: {error.reason}")
        if error.skip_reason == "locked":
            self._locked_in_a_row += 1
            if self._locked_in_a_row >= MAX_LOCKED_IN_A_ROW:
                raise HousekeepingError(f"gave up after {MAX_LOCKED_IN_A_ROW} consecutive locked rows: {error.reason}")
        logger.debug("%s: %s skipped: %s", self.run.task, name, error.reason)

    def _record(self, result: BatchResult, dealt_with: int) -> None:
        tally, root = self._tally, self.plan.root
        tally.dealt_with += dealt_with
        self._locked_in_a_row = 0
        if self.run.dry_run:
            for oid, counted in self._context.counted.items():
                counted.update(result.rows.read(oid) or {})
        for reason, count in result.skipped.items():
            tally.skipped[reason] += count
        self._roots += len(result.roots)
        for label, count in result.counts.items():
            self._rows[label] = self._rows.get(label, 0) + count
        for label, count in result.further.items():
            self._further[label] = self._further.get(label, 0) + count
        for store, count in result.files.items():
            self._files[store] = self._files.get(store, 0) + count
        # Names by the million cost time; they are only shown in a dry run, or when debugging.
        shown = self.run.dry_run or logger.isEnabledFor(logging.DEBUG)
        for row in result.roots:
            if not shown and len(tally.sample) >= MAX_SAMPLE:
                break
            name = item_name(root, row.key)
            self.run.observer.on_item(name)
            tally.show(Candidate(name, None, row.age_seconds, self.policy.reason))
        self.run.observer.on_progress(self.run.task, tally.dealt_with, tally.candidates, self._row_count)
