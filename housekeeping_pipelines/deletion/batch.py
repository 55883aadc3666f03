"""One transaction of a deletion.

It locks the roots, skipping what others have locked; checks the policy and the holds again, now that no one can add to
them; locks what hangs on them, level by level from the top; then moves it from the bottom up, in separate statements.
With a single statement, a child that commits after its snapshot would be cascaded away without reaching the trash.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from housekeeping_pipelines.deletion.file_outbox import count_files_of_rows, queue_files_of_rows
from housekeeping_pipelines.deletion.holds import HOLDS_LOCK, ActiveHolds
from housekeeping_pipelines.deletion.mirrors import Mirror, copy_to_mirror, move_to_mirror
from housekeeping_pipelines.deletion.tables import pauses, trash_batches, trash_references
from housekeeping_pipelines.postgres.keys import Key, matches, text_of
from housekeeping_pipelines.postgres.locks import lock_for_transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from housekeeping_pipelines.deletion.holds import OwnerPaths
    from housekeeping_pipelines.deletion.plan import Plan
    from housekeeping_pipelines.deletion.policy import FileColumn, RowPolicy
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.postgres.catalog import ForeignKey, Table

# Below PostgreSQL's deadlock_timeout (1 s), so that we step back before the detector ends somebody else's transaction.
LOCK_TIMEOUT_MS = 500
STATEMENT_TIMEOUT_MS = 60_000


class RowError(Exception):
    """What made a batch roll back; `skip_reason` is where its last root is counted."""

    def __init__(self, skip_reason: str, reason: str) -> None:
        super().__init__(reason)
        self.skip_reason = skip_reason
        self.reason = reason


class NeedsRecheck(Exception):
    """Among what went there was something that keeps a root: the batch is to look more closely."""


class Paused(Exception):
    """Everything was paused meanwhile."""


class Root(NamedTuple):
    """A row that the policy selects."""

    key: Key
    age_seconds: float | None
    values: Key


@dataclass
class Batch:
    """One transaction over a connection that holds the task's lock.

    Attributes:
        mirrors: where each table's rows go, by oid; none where they go for good.
        closely: look at what hangs on each root before anything goes, and not at what went.
        seen: what a dry run has counted of the tables that several roots share.
        roots: what it found, and what went with it: `rows` by table as own key and the values of `_referred`,
            `counts` by table, `skipped` by reason, `files` by store.
    """

    run: Run
    policy: RowPolicy
    plan: Plan
    owners: OwnerPaths
    mirrors: dict[int, Mirror]
    seen: dict[int, set[Key]]
    closely: bool = True
    roots: list[Root] = field(default_factory=list)
    rows: dict[int, dict[Key, Key]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    _kept_by_children: int = 0

    @property
    def dry_run(self) -> bool:
        return self.run.dry_run

    @property
    def trashed(self) -> bool:
        return bool(self.mirrors)

    def execute(self, keys: list[Key]) -> None:
        """Do all of it, in a transaction that the caller commits.

        Raises:
            RowError: with some row of it.
            NeedsRecheck: some root is to stay; only where it was not to look closely.
            Paused: everything was paused meanwhile.
        """
        connection = self.run.connection
        if self.dry_run:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            seen = self.seen.get(self.plan.root.oid, set())
            keys = [key for key in keys if key not in seen]
        # No batch waits for the disk: one that a crash of the server takes back is whole again in its tables, and the
        # run waits for all of them at its end.
        # Compiling costs a statement with a long list of keys more than it gives.
        _set_locally(connection, statement_timeout=f"{STATEMENT_TIMEOUT_MS}ms", synchronous_commit="off", jit="off")
        if not self.dry_run:
            # Whoever adds a hold is waited for: no row is to blame.
            connection.execute(lock_for_transaction(HOLDS_LOCK, shared=True))
        _set_locally(connection, lock_timeout=f"{LOCK_TIMEOUT_MS}ms")
        if connection.scalar(sa.select(sa.literal(True)).select_from(pauses)):
            raise Paused
        holds = ActiveHolds.read(connection, self.run.clock())
        root = self.plan.root
        locked = self._lock_roots(keys)
        self.roots = self._still_candidates(locked, holds)
        self.skipped["in_use"] = len(locked) - len(self.roots)
        if not self.roots:
            return
        self.rows[root.oid] = {found.key: found.values for found in self.roots}
        self._close_over(root, holds)
        for table in self.plan.tables[1:]:
            if not self.plan.is_leaf(table) or (self.dry_run and table.oid in self.plan.shared):
                self._reach(table)
        self._check_unfollowed_tables(holds)
        self._check_holds_inside(holds)
        if self.dry_run:
            self.counts = {table.label: self._count(table) for table in self.plan.tables}
            self.files = count_files_of_rows(connection, self._files())
        else:
            self._move()
        self.counts = {label: count for label, count in self.counts.items() if count}

    def _lock_roots(self, keys: list[Key]) -> list[Key]:
        """Those of the keys that are there and, but for a dry run, ours now; in their order."""
        root = self.plan.root
        statement = sa.select(*text_of(root, root.key)).where(matches(root, root.key, keys))
        if not self.dry_run:
            statement = statement.with_for_update(skip_locked=True)
            # Mostly it is all of them, which a number tells sooner than their names do.
            count = sa.select(sa.func.count()).select_from(statement.subquery())
            if self.run.connection.scalar(count) == len(keys):
                return keys
        found = {tuple(row) for row in self.run.connection.execute(statement).all()}
        missing = [key for key in keys if key not in found]
        if missing and not self.dry_run:
            # What is not there any more was deleted by someone else; the rest is in somebody's hands.
            there = sa.select(sa.func.count()).select_from(root.selectable).where(matches(root, root.key, missing))
            self.skipped["locked"] = self.run.connection.scalar(there) or 0
        return [key for key in keys if key in found]

    def _still_candidates(self, keys: Sequence[Key], holds: ActiveHolds) -> list[Root]:
        """Those of the keys that the policy still selects, seen from after they were locked."""
        if not keys:
            return []
        root = self.plan.root
        moment = self.policy.age_from
        age = sa.case(
            (sa.func.isfinite(moment), sa.cast(sa.extract("epoch", self.run.clock() - moment), sa.Float)),
            else_=None,
        )
        condition = self.policy.condition if self.closely else self.policy.own_condition
        statement = sa.select(age, *self._names(root)).where(matches(root, root.key, keys), condition)
        held = holds.cover(root, self.owners)
        if held is not None:
            statement = statement.where(held.is_not(True))
        end, start = 1 + len(root.key), -len(self._referred(root))
        found = {row[1:end]: row for row in self.run.connection.execute(statement).all()}
        return [Root(key, row[0], row[start:]) for key in keys if (row := found.get(key)) is not None]

    def _referred(self, table: Table) -> list[str]:
        """The columns by which others refer to rows of a table; its key if nothing does."""
        keys = (*self.plan.followed, *self.plan.cleared)
        found = {name for key in keys if key.parent == table.oid for name in key.targets}
        return sorted(found) or list(table.key)

    def _names(self, table: Table) -> list[sa.ColumnElement[str]]:
        """The key as text, and after it what others refer by, unless that is the same."""
        referred = self._referred(table)
        return text_of(table, table.key if tuple(referred) == table.key else [*table.key, *referred])

    def _named(self, table: Table, which: sa.ColumnElement[bool]) -> dict[Key, Key]:
        """Rows by their keys, locked, with the values by which others refer to them."""
        statement = sa.select(*self._names(table)).where(which)
        if not self.dry_run:
            statement = statement.with_for_update()
        end, start = len(table.key), -len(self._referred(table))
        return {row[:end]: row[start:] for row in self.run.connection.execute(statement).all()}

    def _reach(self, table: Table) -> None:
        """Lock and name the rows of a table that hang on what is already named."""
        which = self._hanging(table)
        self.rows[table.oid] = {} if which is None else self._named(table, which)
        self._close_over(table, None)

    def _hanging(self, table: Table) -> sa.ColumnElement[bool] | None:
        """Which rows of a table hang on the rows named above it; None if no row can."""
        conditions = [
            condition
            for key in self.plan.keys_to_parents(table)
            if (condition := self._refers(key, self.rows.get(key.parent, {}))) is not None
        ]
        return sa.or_(*conditions) if conditions else None

    def _refers(self, key: ForeignKey, rows: dict[Key, Key]) -> sa.ColumnElement[bool] | None:
        """Which rows of a key's child refer to the rows; values are of the parent's types, which may be wider."""
        parent, child = self.plan.members[key.parent], self.plan.members[key.child]
        referred = self._referred(parent)
        targets = list(rows.values())
        if list(key.targets) != referred:
            places = [referred.index(name) for name in key.targets]
            targets = [tuple([row[place] for place in places]) for row in targets]
        targets = [target for target in targets if None not in target]
        if not targets:
            return None
        return matches(child, key.columns, targets, [parent.type_of(name) for name in key.targets])

    def _close_over(self, table: Table, holds: ActiveHolds | None) -> None:
        """Add the rows of a table that refer to its rows in the batch, and those that refer to them.

        Rows of the root's own table come only along when the policy selects them too.
        """
        keys = self.plan.self_references(table)
        frontier = self.rows[table.oid]
        while keys and frontier:
            conditions = [which for key in keys if (which := self._refers(key, frontier)) is not None]
            found = self._named(table, sa.or_(*conditions)) if conditions else {}
            frontier = {own: values for own, values in found.items() if own not in self.rows[table.oid]}
            if frontier and holds is not None and len(self._still_candidates(list(frontier), holds)) < len(frontier):
                raise RowError("in_use", f"a row of {table.label} that is to stay refers to it")
            self.rows[table.oid] |= frontier

    def _check_unfollowed_tables(self, holds: ActiveHolds) -> None:
        """Look again, now that no one can refer to a row that goes: a key that is not followed might cascade."""
        if self.plan.unfollowed_tables - {self.plan.root.oid}:
            keys = [root.key for root in self.roots]
            if len(self._still_candidates(keys, holds)) < len(keys):
                raise RowError("in_use", "a row refers to it since")

    def _check_holds_inside(self, holds: ActiveHolds) -> None:
        if not holds:
            return
        for table in self.plan.tables:
            held = holds.cover(table, self.owners)
            which = self._in_batch(table)
            if held is None or which is None:
                continue
            statement = sa.select(sa.literal(True)).select_from(table.selectable).where(which, held).limit(1)
            if self.run.connection.scalar(statement):
                raise RowError("held", f"a row of {table.label} that would go with it is held")

    def _in_batch(self, table: Table) -> sa.ColumnElement[bool] | None:
        """Which rows of a table go with the batch; None if none does."""
        rows = self.rows.get(table.oid)
        if rows is None:
            return self._hanging(table)
        return matches(table, table.key, rows) if rows else None

    def _count(self, table: Table) -> int:
        if table.oid in self.rows:
            return len(self.rows[table.oid].keys() - self.seen.get(table.oid, set()))
        which = self._in_batch(table)
        if which is None:
            return 0
        return self.run.connection.scalar(sa.select(sa.func.count()).select_from(table.selectable).where(which)) or 0

    def _move(self) -> None:
        """Move or delete the batch's rows from the bottom up, and write down what was done."""
        connection, contents = self.run.connection, []
        self.files = queue_files_of_rows(
            connection, self._files(), run_id=self.run.run_id, task=self.run.task, now=self.run.clock()
        )
        number = connection.scalar(
            sa.text("SELECT nextval(pg_get_serial_sequence('housekeeping.trash_batches', 'id'))")
        )
        copied = [table for table in self.plan.tables if self.trashed and self.plan.is_cleared_before_it_goes(table)]
        for table in copied:
            if (which := self._in_batch(table)) is not None:
                statement = copy_to_mirror(self.mirrors[table.oid], table, number, which)
                self._check_went(table, connection.execute(statement).rowcount)
        for table in reversed(self.plan.tables):
            which = self._in_batch(table)
            if which is None:
                continue
            cleared = self._references_to_clear(table) if self.trashed else []
            gone = self._take(table, which, None if table in copied else number)
            self._check_went(table, gone)
            self._write_references(number, cleared)
            self.counts[table.label] = gone
            if self.trashed and gone:
                contents.append([self.mirrors[table.oid].id, gone])
        self._check_nothing_kept()
        if self.trashed:
            connection.execute(
                sa.insert(trash_batches).values(
                    id=number,
                    run_id=self.run.run_id,
                    task=self.run.task,
                    deleted_at=self.run.clock(),
                    contents=contents,
                ).inline()
            )  # fmt: skip

    def _take(self, table: Table, which: sa.ColumnElement[bool], number: int | None) -> int:
        """Move rows to the trash under a batch's number, or delete them; returns how many."""
        keep_rule = self.policy.keep_rule if self._is_of_keep_rule(table) else None
        if not self.trashed or number is None:
            delete = sa.delete(table.selectable).where(which)
            if keep_rule is None:
                return self.run.connection.execute(delete).rowcount
            gone = delete.returning(table.selectable.c[keep_rule.column].label("c")).cte("gone")
            keeps = sa.func.count().filter(keep_rule.keeps(gone.c.c))
            statement = sa.select(sa.func.count(), keeps).select_from(gone)
        else:
            statement = move_to_mirror(
                self.mirrors[table.oid],
                table,
                number,
                which,
                lambda columns: sa.false() if keep_rule is None else keep_rule.keeps(columns[keep_rule.column]),
            )
        count, kept = self.run.connection.execute(statement).one()
        self._kept_by_children += kept
        return int(count)

    def _is_of_keep_rule(self, table: Table) -> bool:
        return self.policy.keep_rule is not None and self.policy.keep_rule.table.oid == table.oid

    def _check_nothing_kept(self) -> None:
        """
        Raises:
            NeedsRecheck, RowError: some of what went keeps a root.
        """
        if self._kept_by_children and not self.closely:
            raise NeedsRecheck
        if self._kept_by_children:
            raise RowError("in_use", "a row that keeps it came since")

    def _files(self) -> list[tuple[FileColumn, sa.ColumnElement[bool]]]:
        """The columns that name objects, and which rows of their tables go."""
        found = [(column, self._in_batch(column.table)) for column in self.policy.files]
        return [(column, which) for column, which in found if which is not None]

    def _check_went(self, table: Table, count: int) -> None:
        """
        Raises:
            RowError: rows that were locked and named are not among those that went.
        """
        stayed = len(self.rows.get(table.oid, ())) - count
        if table.oid in self.rows and stayed:
            raise RowError("failed", f"{stayed:,} rows of {table.label} stayed when they were deleted, as by a trigger")

    def _references_to_clear(self, table: Table) -> list[tuple[ForeignKey, Key, tuple[str | None, ...]]]:
        """The rows that stay and lose their reference to rows of `table`, with the values that they lose."""
        found: list[tuple[ForeignKey, Key, tuple[str | None, ...]]] = []
        for key in self.plan.loses_references_to(table):
            which = self._refers(key, self.rows[table.oid])
            if which is None:
                continue
            child = self.plan.members[key.child]
            going = self.rows.get(key.child)
            statement = sa.select(*text_of(child, child.key), *text_of(child, key.cleared)).where(which)
            if going:
                statement = statement.where(~matches(child, child.key, going))
            width = len(child.key)
            found += [
                (key, tuple(row[:width]), tuple(row[width:]))
                for row in self.run.connection.execute(statement.with_for_update())
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
            became = {tuple(row[:width]): list(row[width:]) for row in self.run.connection.execute(statement)}
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
                self.run.connection.execute(sa.insert(trash_references), written)


def _set_locally(connection: sa.Connection, **settings: str) -> None:
    connection.execute(sa.select(*(sa.func.set_config(name, value, True) for name, value in settings.items())))
