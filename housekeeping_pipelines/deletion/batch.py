"""One transaction of a deletion.

It locks the roots, skipping those that others have locked; checks the policy and the holds again, now that nothing can
change the roots; locks what depends on them from the top (`locked_rows`); then moves the rows to the trash from the
bottom up, in separate statements. With a single statement, a child that commits after its snapshot would be deleted by
the cascade without reaching the trash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.deletion.batch_errors import NeedsRecheck, Paused, RowError
from housekeeping_pipelines.deletion.cleared_references import find_references_to_clear, record_cleared_references
from housekeeping_pipelines.deletion.file_outbox import count_files_of_rows, queue_files_of_rows
from housekeeping_pipelines.deletion.further_deletions import DeletionCounter
from housekeeping_pipelines.deletion.guards import is_paused
from housekeeping_pipelines.deletion.holds import HOLDS_LOCK, ActiveHolds
from housekeeping_pipelines.deletion.locked_rows import LockedRow, LockedRows, lock_roots
from housekeeping_pipelines.deletion.mirrors import Mirror, copy_to_mirror, move_to_mirror
from housekeeping_pipelines.deletion.tables import trash_batches
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.postgres.fingerprint import shape
from housekeeping_pipelines.postgres.keys import Key, KeyedColumns, matches
from housekeeping_pipelines.postgres.locks import lock_for_transaction

if TYPE_CHECKING:
    from housekeeping_pipelines.deletion.holds import OwnerPaths
    from housekeeping_pipelines.deletion.plan import Plan
    from housekeeping_pipelines.deletion.policy import FileColumn, RowPolicy
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.postgres.catalog import ForeignKey, Table

# Below PostgreSQL's deadlock_timeout (1 s), so that we give way before the detector ends the other transaction.
LOCK_TIMEOUT_MS = 500
STATEMENT_TIMEOUT_MS = 60_000


class Recheck(Enum):
    """When a transaction looks for child rows that keep a root (`KeepRule`)."""

    # Each root is asked before anything is deleted.
    BEFORE = "before"
    # The deleted children are looked at, which costs nothing; `NeedsRecheck` if one of them keeps its root.
    AFTER = "after"


@dataclass(frozen=True)
class BatchContext:
    """What all transactions of a deletion work with; the connection holds the task's lock.

    Attributes:
        mirrors: where the rows of each table go, by oid; empty where they are deleted permanently.
        counted: what a dry run has counted of the tables whose rows several roots share, by oid.
    """

    run: Run
    policy: RowPolicy
    plan: Plan
    owners: OwnerPaths
    mirrors: dict[int, Mirror]
    counted: dict[int, set[Key]]

    @property
    def connection(self) -> sa.Connection:
        return self.run.connection

    @property
    def dry_run(self) -> bool:
        return self.run.dry_run

    @property
    def trashed(self) -> bool:
        return bool(self.mirrors)


@dataclass
class BatchResult:
    """What one transaction deleted, or would delete.

    Attributes:
        roots: the roots, in the order of the candidates.
        rows: the roots and the rows that depend on them.
        counts: rows by table, of those that have any.
        skipped: candidates that stay, by reason.
        files: entries of the outbox by store.
        further: rows that triggers deleted besides, as they may, by table.
        number: of the batch in the trash; None where nothing was deleted.
    """

    roots: list[LockedRow]
    rows: LockedRows
    counts: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    further: dict[str, int] = field(default_factory=dict)
    number: int | None = None


class Batch:
    """One transaction, which the caller begins and commits."""

    def __init__(self, context: BatchContext, recheck: Recheck) -> None:
        self._context = context
        self._recheck = recheck
        self._rows = LockedRows(context.connection, context.plan, context.dry_run)
        self._kept_by_children = 0

    def execute(self, keys: list[Key]) -> BatchResult:
        """Delete the roots of these keys that are still candidates, with all that depends on them.

        Raises:
            RowError: a row cannot be deleted.
            NeedsRecheck: a root is to stay (only with `Recheck.AFTER`).
            Paused: all deleting runs were paused meanwhile.
            Refused: more rows would be deleted than the plan names.
            HousekeepingError: a table was changed since the plan was made.
        """
        context = self._context
        root = context.plan.root
        if context.dry_run:
            context.connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            counted = context.counted.get(root.oid, set())
            keys = [key for key in keys if key not in counted]
        holds = self._begin()
        locked = lock_roots(context.connection, root, keys, dry_run=context.dry_run)
        roots = self._still_candidates(locked.keys, holds)
        result = BatchResult(roots, self._rows)
        result.skipped = {"locked": locked.locked_by_others, "in_use": len(locked.keys) - len(roots)}
        if not roots:
            return result
        self._rows.add_roots(roots, lambda keys: self._still_candidates(keys, holds))
        self._rows.lock_dependents()
        self._check_unfollowed_tables(roots, holds)
        self._check_owners()
        self._check_holds_on_dependents(holds)
        if context.dry_run:
            counts = {table.label: self._count(table) for table in context.plan.tables}
            result.files = count_files_of_rows(context.connection, self._files())
        else:
            result.files = queue_files_of_rows(
                context.connection,
                self._files(),
                run_id=context.run.run_id,
                task=context.run.task,
                now=context.run.clock(),
            )
            counter = DeletionCounter(context.connection, {table.oid for table in context.policy.also_deleted})
            counts = self._move_to_trash(result)
            # What is deferred may delete, too.
            context.connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
            oids = {table.label: table.oid for table in context.plan.tables}
            named = {oids[label]: count for label, count in counts.items()}
            result.further = counter.further(named, context.plan.tables)
        result.counts = {label: count for label, count in counts.items() if count}
        return result

    def _begin(self) -> ActiveHolds:
        """Set the transaction up, and read what may stop it.

        Raises:
            Paused: all deleting runs are paused.
            HousekeepingError: a table was changed since the plan was made.
        """
        connection = self._context.connection
        # No batch waits for the disk: one that a crash of the server undoes is whole again in its tables, and the run
        # waits for all of them at its end.
        # Compiling costs a statement with a long list of keys more than it gains.
        _set_locally(connection, statement_timeout=f"{STATEMENT_TIMEOUT_MS}ms", synchronous_commit="off", jit="off")
        if not self._context.dry_run:
            # Before the lock timeout is set: waiting for concurrent hold writers is not a row's error.
            connection.execute(lock_for_transaction(HOLDS_LOCK, shared=True))
        _set_locally(connection, lock_timeout=f"{LOCK_TIMEOUT_MS}ms")
        if is_paused(connection):
            raise Paused
        if not self._context.dry_run:
            self._check_shape()
        return ActiveHolds.read(connection, self._context.run.clock())

    def _check_shape(self) -> None:
        """Lock the tables as a deletion does, so that no migration can change them, and compare them with the plan.

        Raises:
            HousekeepingError: a table was changed since the plan was made.
        """
        plan, connection = self._context.plan, self._context.connection
        quote = connection.dialect.identifier_preparer.format_table
        tables = ", ".join(quote(table.selectable) for table in plan.tables)
        connection.exec_driver_sql(f"LOCK TABLE {tables} IN ROW EXCLUSIVE MODE")
        if shape(connection, plan.members) != plan.shape:
            raise HousekeepingError(
                f"{plan.root.label} or a table below it was changed while the run was going on",
                hint="run it again when the migration is done; what was deleted so far is in the trash",
            )

    def _still_candidates(self, keys: list[Key], holds: ActiveHolds) -> list[LockedRow]:
        """The rows of these keys that the policy selects and no hold covers, as they are now that they are locked."""
        if not keys:
            return []
        context, policy = self._context, self._context.policy
        root = context.plan.root
        moment = policy.age_from
        age = sa.case(
            (sa.func.isfinite(moment), sa.cast(sa.extract("epoch", context.run.clock() - moment), sa.Float)),
            else_=None,
        )
        columns = KeyedColumns(root, context.plan.referred_columns(root))
        condition = policy.condition if self._recheck is Recheck.BEFORE else policy.own_condition
        statement = sa.select(age, *columns.selected).where(matches(root, root.key, keys), condition)
        held = holds.cover(root, context.owners)
        if held is not None:
            statement = statement.where(held.is_not(True))
        found: dict[Key, LockedRow] = {}
        for row in context.connection.execute(statement).all():
            key, referred = columns.split(row[1:])
            found[key] = LockedRow(key, referred, row[0])
        return [found[key] for key in keys if key in found]

    def _check_unfollowed_tables(self, roots: list[LockedRow], holds: ActiveHolds) -> None:
        """Check the roots again, now that nothing can refer to a row of the batch: an unfollowed key might cascade.

        Raises:
            RowError: a root is no longer a candidate.
        """
        plan = self._context.plan
        if plan.unfollowed_tables - {plan.root.oid}:
            keys = [row.key for row in roots]
            if len(self._still_candidates(keys, holds)) < len(keys):
                raise RowError("in_use", "a row has come to refer to it")

    def _check_owners(self) -> None:
        """Leave rows to the row that owns them: one that stays keeps what a key reaches from elsewhere.

        Raises:
            RowError: a row of the batch belongs to a row that stays.
        """
        for table in self._context.plan.tables[1:]:
            owners = self._context.plan.owner_keys(table)
            which = self._rows.condition(table)
            if not owners or which is None:
                continue
            own = [condition for key in owners if (condition := self._rows.referring(key)) is not None]
            others = [self._is_there(key) for key in owners]
            strange = sa.and_(which, *(condition.is_not(True) for condition in own), sa.or_(*others))
            statement = sa.select(sa.literal(True)).select_from(table.selectable).where(strange).limit(1)
            if self._context.connection.scalar(statement):
                raise RowError("in_use", f"a row of {table.label} that refers to it belongs to a row that stays")

    def _is_there(self, key: ForeignKey) -> sa.ColumnElement[bool]:
        """Whether the row exists to which a row of the key's child refers."""
        members = self._context.plan.members
        child, parent = members[key.child].selectable, members[key.parent].selectable.alias()
        same = key.same(child, parent)
        return sa.select(sa.literal(1)).select_from(parent).where(*same).correlate(child).exists()

    def _check_holds_on_dependents(self, holds: ActiveHolds) -> None:
        """
        Raises:
            RowError: a hold covers a row of the batch.
        """
        if not holds:
            return
        for table in self._context.plan.tables:
            held = holds.cover(table, self._context.owners)
            which = self._rows.condition(table)
            if held is None or which is None:
                continue
            statement = sa.select(sa.literal(True)).select_from(table.selectable).where(which, held).limit(1)
            if self._context.connection.scalar(statement):
                raise RowError("held", f"a row of {table.label} that depends on it is held")
        for column, which in self._files():
            if holds.any_name(column.store):
                value = sa.cast(column.table.selectable.c[column.column], sa.Text)
                values = self._context.connection.scalars(sa.select(value).where(which, value != "").distinct())
                if any(holds.names(column.store, column.may_mean(each)) for each in values):
                    raise RowError("held", f"a file that a row of {column.table.label} names is held")

    def _count(self, table: Table) -> int:
        """How many rows of a table a dry run would delete and has not counted with an earlier batch."""
        context = self._context
        rows = self._rows.read(table.oid)
        if rows is not None:
            return len(rows.keys() - context.counted.get(table.oid, set()))
        which = self._rows.condition(table)
        if which is None:
            return 0
        return context.connection.scalar(sa.select(sa.func.count()).select_from(table.selectable).where(which)) or 0

    def _files(self) -> list[tuple[FileColumn, sa.ColumnElement[bool]]]:
        """The columns that name objects, and which rows of their tables are deleted."""
        found = [(column, self._rows.condition(column.table)) for column in self._context.policy.files]
        return [(column, which) for column, which in found if which is not None]

    def _move_to_trash(self, result: BatchResult) -> dict[str, int]:
        """Move or delete the rows from the bottom up, and record them as one batch of the trash.

        Returns:
            deleted rows by table.

        Raises:
            RowError: some rows could not be deleted, or keep a root.
            NeedsRecheck: some deleted rows keep a root (only with `Recheck.AFTER`).
        """
        context = self._context
        connection, tables = context.connection, context.plan.tables
        number = connection.scalar(
            sa.text("SELECT nextval(pg_get_serial_sequence('housekeeping.trash_batches', 'id'))")
        )
        result.number = number
        copied: dict[int, int] = {}
        for table in tables if context.trashed else ():
            which = self._rows.condition(table) if context.plan.is_changed_before_delete(table) else None
            if which is not None:
                statement = copy_to_mirror(context.mirrors[table.oid], table, number, which)
                copied[table.oid] = connection.execute(statement).rowcount
                self._check_deleted(table, copied[table.oid])
        counts: dict[str, int] = {}
        contents: list[list[int]] = []
        for table in reversed(tables):
            which = self._rows.condition(table)
            if which is None:
                continue
            cleared = find_references_to_clear(self._rows, table) if context.trashed else []
            deleted = self._move(table, which, None if table.oid in copied else number)
            self._check_deleted(table, deleted)
            if deleted != copied.get(table.oid, deleted):
                raise RowError("failed", f"rows of {table.label} were changed while they were deleted")
            record_cleared_references(connection, context.plan, number, cleared)
            counts[table.label] = deleted
            if context.trashed and deleted:
                contents.append([context.mirrors[table.oid].id, deleted])
        self._check_nothing_keeps_a_root()
        if context.trashed:
            connection.execute(
                sa.insert(trash_batches).values(
                    id=number,
                    run_id=context.run.run_id,
                    task=context.run.task,
                    deleted_at=context.run.clock(),
                    contents=contents,
                ).inline()
            )  # fmt: skip
        return counts

    def _move(self, table: Table, which: sa.ColumnElement[bool], number: int | None) -> int:
        """Move rows to the trash under a batch's number, or delete them where there is none; returns how many."""
        context = self._context
        rule = context.policy.keep_rule
        if rule is not None and rule.table.oid != table.oid:
            rule = None
        if not context.trashed or number is None:
            delete = sa.delete(table.selectable).where(which)
            if rule is None:
                return context.connection.execute(delete).rowcount
            gone = delete.returning(table.selectable.c[rule.column].label("c")).cte("gone")
            keeping = sa.func.count().filter(rule.keeps(gone.c.c))
            statement = sa.select(sa.func.count(), keeping).select_from(gone)
        else:
            statement = move_to_mirror(
                context.mirrors[table.oid],
                table,
                number,
                which,
                lambda columns: sa.false() if rule is None else rule.keeps(columns[rule.column]),
            )
        count, kept_by_children = context.connection.execute(statement).one()
        self._kept_by_children += kept_by_children
        return int(count)

    def _check_deleted(self, table: Table, count: int) -> None:
        """
        Raises:
            RowError: rows that were locked are not among the deleted ones.
        """
        rows = self._rows.read(table.oid)
        if rows is not None and (stayed := len(rows) - count):
            raise RowError("failed", f"{stayed:,} rows of {table.label} were not deleted; a trigger may keep them")

    def _check_nothing_keeps_a_root(self) -> None:
        """
        Raises:
            NeedsRecheck, RowError: a deleted row keeps a root.
        """
        if self._kept_by_children and self._recheck is Recheck.AFTER:
            raise NeedsRecheck
        if self._kept_by_children:
            raise RowError("in_use", "a row that keeps it was added meanwhile")


def _set_locally(connection: sa.Connection, **settings: str) -> None:
    connection.execute(sa.select(*(sa.func.set_config(name, value, True) for name, value in settings.items())))
