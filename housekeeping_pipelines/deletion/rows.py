"""Rows leave their tables here, and nowhere else.

What a batch does, in one transaction but separate statements: lock the roots, skipping what others have locked; check
the policy and the holds again, now that no one can add to them; lock what hangs on them, level by level from the top;
then move it from the bottom up. With a single statement, a child that commits after its snapshot would be cascaded
away without reaching the trash.

A batch that meets trouble with a row (a hold deep inside, a key, a trigger, a lock, a budget) is rolled back and cut
in halves, down to the one root that has it, which is counted and left.
"""

from __future__ import annotations

import itertools
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import stamina

from housekeeping_pipelines.deletion import database_errors, guards
from housekeeping_pipelines.deletion.holds import HOLDS_LOCK, ActiveHolds
from housekeeping_pipelines.deletion.locks import lock_for_transaction
from housekeeping_pipelines.deletion.matching import Key, item_name, matches, text_of
from housekeeping_pipelines.deletion.report import (
    MAX_FAILED,
    MAX_SAMPLE,
    SKIP_REASONS,
    Candidate,
    FailedItem,
    ended_by,
)
from housekeeping_pipelines.deletion.schema import pauses, trash_batches, trash_references
from housekeeping_pipelines.deletion.trash import Mirror, copy_to_mirror, ensure_mirror, move_to_mirror
from housekeeping_pipelines.errors import HousekeepingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from housekeeping_pipelines.deletion.catalog import ForeignKey, Table
    from housekeeping_pipelines.deletion.holds import OwnerPaths
    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.deletion.plan import Plan
    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.deletion.progress import Observer
    from housekeeping_pipelines.deletion.report import Report, StoppedReason
    from housekeeping_pipelines.deletion.run import Run

logger = logging.getLogger(__name__)

# Below PostgreSQL's deadlock_timeout (1 s), so that we step back before the detector ends somebody else's transaction.
LOCK_TIMEOUT_MS = 500
STATEMENT_TIMEOUT_MS = 60_000

# A transaction that takes longer is followed by smaller ones; vacuum and the application's writers wait for the oldest.
SECONDS_A_BATCH = 1.0

ATTEMPTS = 3

# So many single rows in trouble are no longer the rows' fault.
MAX_TROUBLES = 100

# Each has cost three lock timeouts by then: it is the table that is locked, and the run would take hours to find out.
MAX_LOCKED_IN_A_ROW = 5

_CURSOR = "housekeeping_candidates"


def _set_locally(connection: sa.Connection, name: str, milliseconds: int) -> None:
    connection.execute(sa.select(sa.func.set_config(name, f"{milliseconds}ms", True)))


class _Trouble(Exception):
    """What made a batch roll back; `counts_as` is where its last root is counted."""

    def __init__(self, counts_as: str, reason: str) -> None:
        super().__init__(reason)
        self.counts_as = counts_as
        self.reason = reason


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
    roots: int = 0
    dealt_with: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SKIP_REASONS, 0))
    failed: list[FailedItem] = field(default_factory=list)
    failed_count: int = 0
    sample: list[Candidate] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Rows of all tables."""
        return sum(self.rows.values())


@dataclass(frozen=True)
class _Root:
    key: Key
    age_seconds: float | None


@dataclass
class _Batch:
    """What one transaction found: the rows by table, as (own key, values that others refer to)."""

    roots: list[_Root] = field(default_factory=list)
    rows: dict[int, dict[Key, dict[str, str]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass
class RowDeletion:
    """One run of one policy over a connection that holds the task's lock.

    `trashed` False deletes for good. `clock` tells the time of day, `monotonic` seconds that only grow.
    """

    run: Run
    connection: sa.Connection
    policy: RowPolicy
    plan: Plan
    limits: Limits
    owners: OwnerPaths
    observer: Observer
    trashed: bool
    paused_by_setting: bool
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]

    def execute(self) -> Report:
        """Delete until the candidates, a budget or the administrator's patience are at an end.

        Never raises for what a user or a database can cause: the report's status says it.
        """
        self._tally = _Tally(warnings=[*self.policy.warnings, *self.plan.warnings()])
        self._mirrors: dict[int, Mirror] = {}
        self._batch_size = self.limits.batch_size
        self._locked_in_a_row = 0
        # A dry run leaves the rows where they are: what several roots would take is counted with the first.
        self._seen: dict[int, set[Key]] = {oid: set() for oid in self.plan.shared}
        ended: dict[str, Any] = {"status": "succeeded"}
        stopped: StoppedReason | None = None
        try:
            self._prepare()
            for keys in self._candidates():
                self._take(keys)
        except _Stop as stop:
            stopped = stop.reason
            if stopped != "paused":
                self._tally.skipped["budget"] += self._tally.candidates - self._tally.dealt_with
        except HousekeepingError as error:
            ended = ended_by(error)
        except sa.exc.DBAPIError as error:
            ended = ended_by(database_errors.explain(error, self.connection.engine.url))
        with suppress(sa.exc.DBAPIError):
            self.connection.rollback()
            self.connection.exec_driver_sql("CLOSE ALL")
            self.connection.commit()
        tally = self._tally
        if ended["status"] == "succeeded" and tally.failed_count:
            ended = {"status": "partial"}
        return self.run.report(
            **ended,
            table=self.policy.table.label,
            stopped_reason=stopped,
            scanned=tally.scanned,
            candidates=tally.candidates,
            deleted={} if self.run.dry_run else dict(tally.rows),
            would_delete=dict(tally.rows) if self.run.dry_run else {},
            skipped=tally.skipped,
            failed=tuple(tally.failed),
            failed_count=tally.failed_count,
            sample=tuple(tally.sample),
            warnings=tuple(tally.warnings),
        )

    def _prepare(self) -> None:
        """The guards, and the list of candidates as a cursor that outlives its transaction."""
        connection, policy, table = self.connection, self.policy, self.policy.table
        guards.check_not_paused(connection, by_setting=self.paused_by_setting)
        connection.commit()
        # One snapshot for all, so that the counts belong to the list.
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        rows = sa.select(sa.func.count()).select_from(table.selectable)
        self._tally.scanned = connection.scalar(rows) or 0
        if self._tally.scanned:
            guards.check_references(connection, policy.references, self.limits)
        eligible = self._tally.scanned
        if policy.eligible is not None:
            eligible = connection.scalar(rows.where(policy.eligible)) or 0
        held = ActiveHolds.read(connection, self.clock()).cover(table, self.owners)
        condition = policy.condition
        if held is not None:
            self._tally.skipped["held"] = connection.scalar(rows.where(condition, held)) or 0
            condition = sa.and_(condition, held.is_not(True))
        # The key decides between rows of the same age: a dry run must stop where the real run will.
        key = [table.selectable.c[name] for name in table.key]
        listing = sa.select(*text_of(table, table.key)).where(condition).order_by(policy.age_from, *key)
        compiled = listing.compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"DECLARE {_CURSOR} SCROLL CURSOR WITH HOLD FOR {compiled.string}", compiled.params)
        self._tally.candidates = connection.exec_driver_sql(f"MOVE FORWARD ALL IN {_CURSOR}").rowcount
        connection.exec_driver_sql(f"MOVE ABSOLUTE 0 IN {_CURSOR}")
        connection.commit()
        self._tally.skipped["young"] = eligible - self._tally.candidates - self._tally.skipped["held"]
        guards.check_fraction(table, self._tally.candidates, self._tally.scanned, self.limits)
        if self.trashed and not self.run.dry_run and self._tally.candidates:
            self._mirrors = {member.oid: ensure_mirror(connection, member) for member in self.plan.tables}
            connection.commit()
        self.observer.planned(self.run.task, self.plan.describe(), self._tally.candidates, dry_run=self.run.dry_run)

    def _candidates(self) -> Iterator[list[Key]]:
        while True:
            rows = self.connection.exec_driver_sql(f"FETCH FORWARD {self._batch_size} FROM {_CURSOR}").all()
            self.connection.commit()
            if not rows:
                return
            yield [tuple(row) for row in rows]

    def _take(self, keys: list[Key]) -> None:
        pending = [keys]
        while pending:
            batch = pending.pop()
            self._check_budget_and_pause()
            started = self.monotonic()
            try:
                done = self._attempt(batch)
            except _Trouble as trouble:
                if len(batch) > 1:
                    middle = len(batch) // 2
                    pending += [batch[middle:], batch[:middle]]
                else:
                    self._leave(batch[0], trouble)
                continue
            self._record(done, len(batch))
            self._pace(self.monotonic() - started)

    def _check_budget_and_pause(self) -> None:
        if self.limits.max_seconds is not None and self.monotonic() - self.run.started >= self.limits.max_seconds:
            raise _Stop("max_seconds")
        if self.limits.max_rows is not None and self._tally.total >= self.limits.max_rows:
            raise _Stop("max_rows")
        if self.paused_by_setting:
            raise _Stop("paused")

    def _pace(self, seconds: float) -> None:
        if seconds > SECONDS_A_BATCH:
            self._batch_size = max(1, self._batch_size // 2)
        elif seconds < SECONDS_A_BATCH / 4:
            self._batch_size = min(self.limits.batch_size, self._batch_size * 2)

    def _attempt(self, keys: list[Key]) -> _Batch:
        """One transaction, tried again where PostgreSQL says that trying again helps.

        Raises:
            _Trouble: with some row of it.
        """
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
                with attempt, self.connection.begin():
                    return self._transaction(keys)
        except sa.exc.DBAPIError as error:
            if not database_errors.is_about_a_row(error):
                raise
            counts_as = "locked" if database_errors.is_transient(error) else "failed"
            raise _Trouble(counts_as, database_errors.describe(error)) from None
        raise AssertionError("unreachable")

    def _transaction(self, keys: list[Key]) -> _Batch:
        connection = self.connection
        if self.run.dry_run:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            seen = self._seen.get(self.plan.root.oid, set())
            keys = [key for key in keys if key not in seen]
        _set_locally(connection, "statement_timeout", STATEMENT_TIMEOUT_MS)
        if not self.run.dry_run:
            # Whoever adds a hold is waited for: no row is to blame.
            connection.execute(lock_for_transaction(HOLDS_LOCK, shared=True))
        _set_locally(connection, "lock_timeout", LOCK_TIMEOUT_MS)
        if connection.scalar(sa.select(sa.literal(True)).select_from(pauses)):
            raise _Stop("paused")
        holds = ActiveHolds.read(connection, self.clock())
        batch = _Batch()
        root = self.plan.root
        locked = self._lock_roots(keys, batch)
        batch.roots = self._still_candidates(locked, holds)
        dropped = len(locked) - len(batch.roots)
        if dropped:
            batch.skipped["in_use"] = dropped
        if not batch.roots:
            return batch
        batch.rows[root.oid] = self._named(root, matches(root, root.key, [r.key for r in batch.roots]), lock=False)
        self._close_over(root, batch, holds)
        for table in self.plan.tables[1:]:
            if not self.plan.is_leaf(table) or (self.run.dry_run and table.oid in self.plan.shared):
                self._reach(table, batch)
        self._check_nothing_passed_by(batch, holds)
        self._check_holds_inside(batch, holds)
        if self.run.dry_run:
            batch.counts = {table.label: self._count(table, batch) for table in self.plan.tables}
        else:
            self._move(batch)
        batch.counts = {label: count for label, count in batch.counts.items() if count}
        self._check_rows_left(batch)
        return batch

    def _lock_roots(self, keys: list[Key], batch: _Batch) -> list[Key]:
        root = self.plan.root
        statement = sa.select(*text_of(root, root.key)).where(matches(root, root.key, keys))
        if self.run.dry_run:
            return [tuple(row) for row in self.connection.execute(statement)]
        locked = [tuple(row) for row in self.connection.execute(statement.with_for_update(skip_locked=True))]
        missing = set(keys) - set(locked)
        if missing:
            # What is not there any more was deleted by someone else; the rest is in somebody's hands.
            there = sa.select(sa.func.count()).select_from(root.selectable).where(matches(root, root.key, missing))
            batch.skipped["locked"] = self.connection.scalar(there) or 0
        return locked

    def _still_candidates(self, keys: Sequence[Key], holds: ActiveHolds) -> list[_Root]:
        """Those of the keys that the policy still selects, seen from after they were locked."""
        if not keys:
            return []
        root = self.plan.root
        moment = self.policy.age_from
        age = sa.case(
            (sa.func.isfinite(moment), sa.cast(sa.extract("epoch", self.clock() - moment), sa.Float)),
            else_=None,
        )
        statement = sa.select(*text_of(root, root.key), age).where(matches(root, root.key, keys), self.policy.condition)
        held = holds.cover(root, self.owners)
        if held is not None:
            statement = statement.where(held.is_not(True))
        return [_Root(tuple(key), age_seconds) for *key, age_seconds in self.connection.execute(statement)]

    def _named(self, table: Table, which: sa.ColumnElement[bool], *, lock: bool) -> dict[Key, dict[str, str]]:
        """Rows by their keys, with the values by which others refer to them."""
        referred = sorted(
            {
                name
                for key in (*self.plan.followed, *self.plan.cleared)
                if key.parent == table.oid
                for name in key.targets
            }
        )
        statement = sa.select(*text_of(table, table.key), *text_of(table, referred)).where(which)
        if lock and not self.run.dry_run:
            statement = statement.with_for_update()
        width = len(table.key)
        return {
            tuple(row[:width]): dict(zip(referred, row[width:], strict=True))
            for row in self.connection.execute(statement)
        }

    def _reach(self, table: Table, batch: _Batch) -> None:
        """Lock and name the rows of a table that hang on what is already named."""
        which = self._hanging(table, batch)
        batch.rows[table.oid] = {} if which is None else self._named(table, which, lock=True)
        self._close_over(table, batch, None)

    def _hanging(self, table: Table, batch: _Batch) -> sa.ColumnElement[bool] | None:
        """Which rows of a table hang on the rows named above it; None if no row can."""
        conditions = [
            condition
            for key in self.plan.upward(table)
            if (condition := self._refers(key, batch.rows.get(key.parent, {}))) is not None
        ]
        return sa.or_(*conditions) if conditions else None

    def _refers(self, key: ForeignKey, rows: dict[Key, dict[str, str]]) -> sa.ColumnElement[bool] | None:
        """Which rows of a key's child refer to the rows; values are of the parent's types, which may be wider."""
        targets = [tuple(row[name] for name in key.targets) for row in rows.values()]
        targets = [target for target in targets if None not in target]
        if not targets:
            return None
        parent, child = self.plan.members[key.parent], self.plan.members[key.child]
        return matches(child, key.columns, targets, [parent.type_of(name) for name in key.targets])

    def _close_over(self, table: Table, batch: _Batch, holds: ActiveHolds | None) -> None:
        """Add the rows of a table that refer to its rows in the batch, and those that refer to them.

        Rows of the root's own table come only along when the policy selects them too.
        """
        keys = self.plan.self_references(table)
        frontier = batch.rows[table.oid]
        while keys and frontier:
            conditions = [which for key in keys if (which := self._refers(key, frontier)) is not None]
            found = self._named(table, sa.or_(*conditions), lock=True) if conditions else {}
            frontier = {own: values for own, values in found.items() if own not in batch.rows[table.oid]}
            if frontier and holds is not None and len(self._still_candidates(list(frontier), holds)) < len(frontier):
                raise _Trouble("in_use", f"a row of {table.label} that is to stay refers to it")
            batch.rows[table.oid] |= frontier

    def _check_nothing_passed_by(self, batch: _Batch, holds: ActiveHolds) -> None:
        """Look again, now that no one can refer to a row that goes: a key that is not followed might cascade."""
        if self.plan.passed_by - {self.plan.root.oid}:
            keys = [root.key for root in batch.roots]
            if len(self._still_candidates(keys, holds)) < len(keys):
                raise _Trouble("in_use", "a row refers to it since")

    def _check_holds_inside(self, batch: _Batch, holds: ActiveHolds) -> None:
        if not holds:
            return
        for table in self.plan.tables:
            held = holds.cover(table, self.owners)
            which = self._in_batch(table, batch)
            if held is None or which is None:
                continue
            statement = sa.select(sa.literal(True)).select_from(table.selectable).where(which, held).limit(1)
            if self.connection.scalar(statement):
                raise _Trouble("held", f"a row of {table.label} that would go with it is held")

    def _in_batch(self, table: Table, batch: _Batch) -> sa.ColumnElement[bool] | None:
        """Which rows of a table go with the batch; None if none does."""
        rows = batch.rows.get(table.oid)
        if rows is None:
            return self._hanging(table, batch)
        return matches(table, table.key, rows) if rows else None

    def _count(self, table: Table, batch: _Batch) -> int:
        if table.oid in batch.rows:
            return len(batch.rows[table.oid].keys() - self._seen.get(table.oid, set()))
        which = self._in_batch(table, batch)
        if which is None:
            return 0
        return self.connection.scalar(sa.select(sa.func.count()).select_from(table.selectable).where(which)) or 0

    def _move(self, batch: _Batch) -> None:
        """Move or delete the batch's rows from the bottom up, and write down what was done."""
        connection, contents = self.connection, []
        number = connection.scalar(
            sa.text("SELECT nextval(pg_get_serial_sequence('housekeeping.trash_batches', 'id'))")
        )
        copied = [table for table in self.plan.tables if self.trashed and self.plan.is_cleared_before_it_goes(table)]
        for table in copied:
            if (which := self._in_batch(table, batch)) is not None:
                statement = copy_to_mirror(self._mirrors[table.oid], table, number, which)
                self._check_went(table, batch, connection.execute(statement).rowcount)
        for table in reversed(self.plan.tables):
            which = self._in_batch(table, batch)
            if which is None:
                continue
            cleared = self._references_to_clear(table, batch) if self.trashed else []
            if self.trashed and table not in copied:
                gone = connection.execute(move_to_mirror(self._mirrors[table.oid], table, number, which)).rowcount
            else:
                gone = connection.execute(sa.delete(table.selectable).where(which)).rowcount
            self._check_went(table, batch, gone)
            self._write_references(number, cleared)
            batch.counts[table.label] = gone
            if self.trashed and gone:
                contents.append([self._mirrors[table.oid].id, gone])
        if self.trashed:
            connection.execute(
                sa.insert(trash_batches).values(
                    id=number, run_id=self.run.run_id, task=self.run.task, deleted_at=self.clock(), contents=contents
                ).inline()
            )  # fmt: skip

    def _check_went(self, table: Table, batch: _Batch, count: int) -> None:
        """
        Raises:
            _Trouble: rows that were locked and named are not among those that went.
        """
        stayed = len(batch.rows.get(table.oid, ())) - count
        if table.oid in batch.rows and stayed:
            raise _Trouble("failed", f"{stayed:,} rows of {table.label} stayed when they were deleted, as by a trigger")

    def _references_to_clear(self, table: Table, batch: _Batch) -> list[tuple[ForeignKey, Key, tuple[str | None, ...]]]:
        """The rows that stay and lose their reference to rows of `table`, with the values that they lose."""
        found: list[tuple[ForeignKey, Key, tuple[str | None, ...]]] = []
        for key in self.plan.loses_references_to(table):
            which = self._refers(key, batch.rows[table.oid])
            if which is None:
                continue
            child = self.plan.members[key.child]
            going = batch.rows.get(key.child)
            statement = sa.select(*text_of(child, child.key), *text_of(child, key.cleared)).where(which)
            if going:
                statement = statement.where(~matches(child, child.key, going))
            width = len(child.key)
            found += [
                (key, tuple(row[:width]), tuple(row[width:]))
                for row in self.connection.execute(statement.with_for_update())
            ]
        return found

    def _write_references(self, number: int, cleared: list[tuple[ForeignKey, Key, tuple[str | None, ...]]]) -> None:
        for key, grouped in itertools.groupby(cleared, key=lambda entry: entry[0]):
            child = self.plan.members[key.child]
            entries = {own: was for _, own, was in grouped}
            # What a default became is known only afterwards.
            width = len(child.key)
            statement = sa.select(*text_of(child, child.key), *text_of(child, key.cleared)).where(
                matches(child, child.key, entries)
            )
            became = {tuple(row[:width]): list(row[width:]) for row in self.connection.execute(statement)}
            written = [
                {
                    "batch_id": number,
                    "source_schema": child.schema,
                    "source_table": child.name,
                    "key_columns": list(child.key),
                    "key": list(own),
                    "columns": list(key.cleared),
                    "was": list(was),
                    "became": became[own],
                }
                for own, was in entries.items()
                if own in became
            ]
            if written:
                self.connection.execute(sa.insert(trash_references), written)

    def _check_rows_left(self, batch: _Batch) -> None:
        """`total + size > budget` stops before, not after: raising rolls the batch back."""
        if self.limits.max_rows is None:
            return
        rows = sum(batch.counts.values())
        if self._tally.total + rows <= self.limits.max_rows:
            return
        if len(batch.roots) == 1 and rows <= self.limits.max_rows:
            raise _Stop("max_rows")
        raise _Trouble("budget", f"more than max_rows = {self.limits.max_rows:,} rows go with it")

    def _leave(self, key: Key, trouble: _Trouble) -> None:
        name = item_name(self.plan.root, key)
        tally = self._tally
        tally.dealt_with += 1
        if trouble.counts_as == "failed":
            tally.failed_count += 1
            if len(tally.failed) < MAX_FAILED:
                tally.failed.append(FailedItem(name, trouble.reason))
            if tally.failed_count >= MAX_TROUBLES:
                raise HousekeepingError(f"gave up after {MAX_TROUBLES} rows could not be deleted; {trouble.reason}")
            return
        tally.skipped[trouble.counts_as] += 1
        if trouble.counts_as == "budget" and tally.skipped["budget"] <= MAX_FAILED:
            tally.warnings.append(f"{name} was left: {trouble.reason}")
        if trouble.counts_as == "locked":
            self._locked_in_a_row += 1
            if self._locked_in_a_row >= MAX_LOCKED_IN_A_ROW:
                raise HousekeepingError(f"gave up after {MAX_LOCKED_IN_A_ROW} rows in a row: {trouble.reason}")
        logger.debug("%s: %s left: %s", self.run.task, name, trouble.reason)

    def _record(self, batch: _Batch, dealt_with: int) -> None:
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
        for found in batch.roots:
            name = item_name(root, found.key)
            self.observer.took(name)
            if len(tally.sample) < MAX_SAMPLE:
                tally.sample.append(Candidate(name, None, found.age_seconds, self.policy.reason))
        self.observer.advanced(self.run.task, tally.dealt_with, tally.candidates, tally.total)
