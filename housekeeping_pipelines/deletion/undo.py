"""Undo of one run: its transactions are reversed one by one, the last first.

When a row was deleted, the rows that it refers to existed or were deleted in the same transaction, so in this order
each row finds its parents. Existing rows are never overwritten. A row that cannot be restored exactly as it was stays
in the trash, and the result names it with the reason.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.ext.compiler import compiles

from housekeeping_pipelines.deletion.mirrors import (
    BATCH_COLUMN,
    Mirror,
    find_mirrors,
    keep_publishable,
    prefer_indexes,
    summarize_mirrors,
)
from housekeeping_pipelines.deletion.restored_rows import RestoredRows, delete_own_rows
from housekeeping_pipelines.deletion.tables import file_outbox, trash_batches, trash_references, trashed_files
from housekeeping_pipelines.deletion.trash import undo_lock
from housekeeping_pipelines.deletion.unvalidated_keys import MissingParent, UnvalidatedKeys
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.execution.report import FailedItem
from housekeeping_pipelines.halving import in_halves
from housekeeping_pipelines.postgres import errors as database_errors
from housekeeping_pipelines.postgres.catalog import Catalog, ForeignKey, PgType, Table
from housekeeping_pipelines.postgres.keys import Key, item_name, matches
from housekeeping_pipelines.postgres.locks import shared_lock
from housekeeping_pipelines.postgres.schema import OUR_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

# People read the list of conflicts; the rest is only counted.
MAX_CONFLICTS = 50


@dataclass
class UndoResult:
    """Restored rows by table, files by store, and what could not be restored."""

    run_id: str
    restored: dict[str, int] = field(default_factory=dict)
    conflicts: list[FailedItem] = field(default_factory=list)
    conflict_count: int = 0

    def conflict(self, item: str, reason: str, count: int = 1) -> None:
        self.conflict_count += count
        if len(self.conflicts) < MAX_CONFLICTS:
            self.conflicts.append(FailedItem(item, reason))

    def add(self, other: UndoResult) -> None:
        """Add what a part of the undo restored."""
        for name, count in other.restored.items():
            self.restored[name] = self.restored.get(name, 0) + count
        self.conflicts = [*self.conflicts, *other.conflicts][:MAX_CONFLICTS]
        self.conflict_count += other.conflict_count

    def to_dict(self) -> dict[str, Any]:
        """`{run_id, restored, conflicts, conflict_count}`."""
        return {
            "run_id": self.run_id,
            "restored": self.restored,
            "conflicts": [{"item": c.item, "reason": c.reason} for c in self.conflicts],
            "conflict_count": self.conflict_count,
        }


class RestoreMismatch(Exception):
    """Rows would not be restored as they were."""


class SchemaMismatch(Exception):
    """No row of a table can be restored."""


def find_run(connection: sa.Connection, prefix: str) -> str:
    """The one run in the trash whose id starts with `prefix`.

    Raises:
        ConfigurationError: no run or several runs do.
    """
    ids = [table.c.run_id for table in (trash_batches, trashed_files, file_outbox)]
    begins = [sa.select(run_id).where(run_id.startswith(prefix, autoescape=True)) for run_id in ids]
    found = list(connection.scalars(sa.union(*begins).limit(2)))
    if len(found) == 1:
        return str(found[0])
    if prefix in found:
        return prefix
    problem = "several runs in the trash start with" if found else "the trash has nothing of a run"
    raise ConfigurationError(f"{problem} {prefix!r}", hint="choose one that `housekeeping trash list` shows")


def undo_run(
    connection: sa.Connection,
    run_id: str,
    *,
    result: UndoResult | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    may_go_on: Callable[[], bool] = lambda: True,
) -> UndoResult:
    """Restore what a run deleted, one transaction for each of its transactions.

    Running it again continues where it ended: what is restored is no longer in the trash.

    Args:
        result: to which each transaction is added once it is committed, so that an error takes no count away.
    """
    result = UndoResult(run_id) if result is None else result
    statement = sa.select(trash_batches.c.id).where(trash_batches.c.run_id == run_id)
    numbers = list(connection.scalars(statement.order_by(trash_batches.c.id.desc())))
    catalog = Catalog(connection)
    mirrors = {mirror.id: mirror for mirror in find_mirrors(connection)}
    summarize_mirrors(connection)
    keep_publishable(connection)
    connection.commit()
    with shared_lock(connection, undo_lock(run_id)):
        for done, number in enumerate(numbers, start=1):
            if not may_go_on():
                break
            part = UndoResult(run_id)
            with INTERRUPTION.step():
                with connection.begin():
                    restore_batch(connection, catalog, mirrors, number, part)
                result.add(part)
            if on_progress is not None:
                on_progress(done, len(numbers))
    return result


def restore_batch(
    connection: sa.Connection,
    catalog: Catalog,
    mirrors: dict[int, Mirror],
    number: int,
    result: UndoResult,
    *,
    made_since: str | None = None,
) -> None:
    """Reverse one transaction of a run; the caller commits.

    Where constraints can be deferred, the rows come back before they are checked: some hold only for all of them. If
    they do not hold then, each row is checked as it is inserted, which tells those that cannot come back.

    Args:
        made_since: a transaction number; rows of earlier ones were not made by triggers of this restoration.
    """
    deferred = UndoResult(result.run_id)
    if connection.scalar(_DEFERRABLE):
        try:
            with connection.begin_nested():
                _Batch(connection, catalog, mirrors, number, deferred, made_since, is_deferred=True).restore()
        except sa.exc.DBAPIError as error:
            logger.info("batch %d is checked row by row, because %s", number, _reason(error))
        else:
            result.add(deferred)
            return
    _Batch(connection, catalog, mirrors, number, result, made_since).restore()


_DEFERRABLE = sa.text(
    "SELECT EXISTS (SELECT FROM pg_constraint c WHERE c.condeferrable AND c.contype IN ('f', 't', 'u'))"
)


class _OverridingSelect(sa.Select[Any]):
    """A SELECT to insert from that restores identity columns too; SQLAlchemy has no construct for it."""

    inherit_cache = True


@compiles(_OverridingSelect)
def _compile_overriding(element: _OverridingSelect, compiler: Any, **options: Any) -> str:
    return "OVERRIDING SYSTEM VALUE " + str(compiler.visit_select(element, **options))


def _reason(error: Exception) -> str:
    """One line; an error that ended the connection is raised again."""
    if not isinstance(error, sa.exc.DBAPIError):
        return str(error)
    if error.connection_invalidated:
        raise error
    return database_errors.describe(error)


def _name(table: Table, key: Key) -> str:
    return item_name(table, key) if key else f"a row of {table.label}"


def _changed(table: Table) -> str:
    return (
        f"it would be restored changed: the type of a column, a generated column or a trigger of {table.label} is not"
        " what it was"
    )


def _changed_since(table: Table) -> str:
    return f"rows are restored changed, by a trigger; what they were stays in the trash of {table.label}"


def _at(source: sa.TableClause, ctids: list[str]) -> sa.ColumnElement[bool]:
    return source.c.ctid == sa.any_(sa.cast(ctids, PgType("tid[]")))


class _Batch:
    """One transaction of the run, to be reversed."""

    def __init__(
        self,
        connection: sa.Connection,
        catalog: Catalog,
        mirrors: dict[int, Mirror],
        number: int,
        result: UndoResult,
        made_since: str | None = None,
        *,
        is_deferred: bool = False,
    ) -> None:
        self.made_since = made_since
        self.is_deferred = is_deferred
        self.connection = connection
        self.catalog = catalog
        self.unvalidated = UnvalidatedKeys(connection, catalog)
        self.mirrors = mirrors
        self.number = number
        self.result = result
        # Which rows of each mirror are restored, to be removed from it at the end.
        self.restored: dict[int, sa.ColumnElement[bool]] = {}
        self.postponed: list[tuple[Mirror, Table, list[str]]] = []
        # Whether a trigger may have acted on the rows that were restored so far.
        self.may_have_changed = False

    def restore(self) -> None:
        statement = sa.select(trash_batches.c.contents).where(trash_batches.c.id == self.number).with_for_update()
        contents = self.connection.scalar(statement)
        if contents is None:
            return
        # A deferred key would fail only at the end, without telling which row is the cause.
        self.connection.exec_driver_sql(f"SET CONSTRAINTS ALL {'DEFERRED' if self.is_deferred else 'IMMEDIATE'}")
        prefer_indexes(self.connection)
        order = [(self.mirrors[mirror_id], count) for mirror_id, count in reversed(contents)]
        stays: dict[int, int] = {}
        for position, (mirror, count) in enumerate(order):
            later = {(m.source_schema, m.source_table) for m, _ in order[position + 1 :]}
            stays[mirror.id] = count - self._restore_table(mirror, count, later)
        for mirror, table, columns in self.postponed:
            self._set_postponed(mirror, table, columns)
        references_left = self._restore_references()
        if self.is_deferred:
            self.connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        if self.may_have_changed:
            for mirror, _ in order:
                stays[mirror.id] += self._compare_again(mirror)
        left = [[mirror.id, stays[mirror.id]] for mirror, _ in reversed(order) if stays[mirror.id]]
        for mirror, _ in order:
            if mirror.id in self.restored:
                self.connection.execute(sa.delete(mirror.selectable).where(self._own(mirror), self.restored[mirror.id]))
        if left or references_left:
            keep = sa.update(trash_batches).where(trash_batches.c.id == self.number)
            self.connection.execute(keep.values(contents=left))
        else:
            self.connection.execute(sa.delete(trash_batches).where(trash_batches.c.id == self.number))

    def _restore_table(self, mirror: Mirror, count: int, later: set[tuple[str, str]]) -> int:
        """Returns how many of the rows are restored."""
        table = self.catalog.find_exactly(mirror.source_schema, mirror.source_table)
        if table is None:
            name = f"{mirror.source_schema}.{mirror.source_table}"
            self.result.conflict(name, "the table no longer exists", count)
            return 0
        nulled = self._nulled_first(table, later)
        try:
            with self.connection.begin_nested():
                self._check_shape(mirror, table)
                if self.may_have_changed:
                    delete_own_rows(self.connection, table, self.made_since)
                restored = self.unvalidated.write(
                    table,
                    lambda: self._insert(mirror, table, nulled, sa.true()),
                    (mirror.selectable, self._own(mirror)),
                    without=frozenset(nulled),
                )
            self.restored[mirror.id] = sa.true()
        except SchemaMismatch as error:
            self.result.conflict(table.label, str(error), count)
            return 0
        except (RestoreMismatch, MissingParent, sa.exc.DBAPIError) as error:
            reason = _reason(error)
            if isinstance(error, sa.exc.DBAPIError) and not database_errors.is_about_a_row(error):
                self.result.conflict(table.label, reason, count)
                return 0
            logger.info("%s: restoring in smaller parts, because %s", table.label, reason)
            restored = self._restore_in_parts(mirror, table, nulled)
        if nulled:
            self.postponed.append((mirror, table, nulled))
        self.may_have_changed |= bool(table.insert_triggers)
        if restored:
            self.result.restored[table.label] = self.result.restored.get(table.label, 0) + restored
        return restored

    def _nulled_first(self, table: Table, later: set[tuple[str, str]]) -> list[str]:
        """Columns that refer to a table which is restored only after this one."""
        found: list[str] = []
        for key in self.catalog.foreign_keys:
            if key.child != table.oid or key.parent == table.oid or not key.clears:
                continue
            parent = self.catalog.table(key.parent)
            if (parent.schema, parent.name) in later:
                found += [name for name in key.cleared if not table.column(name).not_null]
        return found

    def _check_shape(self, mirror: Mirror, table: Table) -> None:
        """
        Raises:
            SchemaMismatch: a column that has values no longer exists, or a new one has no default.
        """
        live = {column.name for column in table.columns}
        source = mirror.selectable
        for name, _ in mirror.columns:
            if name in live:
                continue
            has_value = sa.select(sa.literal(True)).where(self._own(mirror), source.c[name].is_not(None)).limit(1)
            if self.connection.scalar(has_value):
                raise SchemaMismatch(f"the column {name} no longer exists, but rows in the trash have a value in it")
        kept = {name for name, _ in mirror.columns}
        for column in table.columns:
            new = column.name not in kept
            if new and column.not_null and not (column.has_default or column.identity or column.generated):
                raise SchemaMismatch(f"the column {column.name} was added since; it is NOT NULL and has no default")

    def _insert(self, mirror: Mirror, table: Table, nulled: list[str], which: sa.ColumnElement[bool]) -> int:
        """Insert rows of the mirror, and compare the result with them; what triggers changed is set back.

        Raises:
            RestoreMismatch: a row differs.
        """
        source = mirror.selectable
        live = {column.name: column for column in table.columns}
        shared = [name for name, _ in mirror.columns if name in live]
        given = [name for name in shared if not live[name].generated]
        compared = [name for name in shared if name not in nulled]
        mine = sa.and_(self._own(mirror), which)
        types = self._types(mirror)
        taken = [
            sa.null()
            if name in nulled
            else source.c[name]
            if types[name] == live[name].type_oid
            # Through text, which every type reads as it wrote it: a recreated enum can be cast in no other way.
            else sa.cast(sa.cast(source.c[name], sa.Text), PgType(live[name].bare_type))
            for name in given
        ]
        values = _OverridingSelect(*taken).where(mine)
        if "ctid" not in mirror.key and all(name in live for name in mirror.key):
            insert = sa.insert(table.selectable).from_select(given, values)
            restored = self.connection.execute(insert.execution_options(preserve_rowcount=True)).rowcount
            if not self._restored(mirror, table, mine, compared).set_all_back(self._referring(table)):
                raise RestoreMismatch(_changed(table))
            return int(restored)
        inserted = (
            sa.insert(table.selectable)
            .from_select(given, values)
            .returning(*(sa.cast(table.selectable.c[name], sa.Text).label(f"c{i}") for i, name in enumerate(compared)))
            .cte("inserted")
        )
        deleted = sa.select(*(sa.cast(source.c[name], sa.Text) for name in compared)).where(mine)
        lost = sa.except_all(deleted, sa.select(inserted)).subquery()
        counts = sa.select(
            sa.select(sa.func.count()).select_from(inserted).scalar_subquery(),
            sa.select(sa.func.count()).select_from(lost).scalar_subquery(),
        )
        restored, changed = self.connection.execute(counts).one()
        if changed:
            raise RestoreMismatch(_changed(table))
        return int(restored)

    def _restored(
        self, mirror: Mirror, table: Table, which: sa.ColumnElement[bool], compared: list[str]
    ) -> RestoredRows:
        live, types = {column.name: column for column in table.columns}, self._types(mirror)
        same_type = frozenset(name for name in live if types.get(name) == live[name].type_oid)
        return RestoredRows(self.connection, mirror, table, which, compared, same_type)

    def _referring(self, table: Table) -> set[str]:
        """The columns of the table's foreign keys."""
        return {name for key in self.catalog.foreign_keys if key.child == table.oid for name in key.columns}

    def _compare_again(self, mirror: Mirror) -> int:
        """Set back what triggers of other rows changed; returns how many rows still differ, which stay in the trash."""
        table = self.catalog.find_exactly(mirror.source_schema, mirror.source_table)
        which = self.restored.get(mirror.id)
        if table is None or which is None or "ctid" in mirror.key:
            return 0
        live = {column.name for column in table.columns}
        compared = [name for name, _ in mirror.columns if name in live]
        rows = self._restored(mirror, table, sa.and_(self._own(mirror), which), compared)
        try:
            with self.connection.begin_nested():
                rows.set_all_back(self._referring(table))
        except sa.exc.DBAPIError as error:
            logger.info("%s: not set back, because %s", table.label, _reason(error))
        places = rows.different()
        if places:
            self.restored[mirror.id] = sa.and_(which, sa.not_(_at(mirror.selectable, places)))
            self.result.conflict(table.label, _changed_since(table), len(places))
        return len(places)

    def _types(self, mirror: Mirror) -> dict[str, int]:
        """The type oids of a mirror's columns; their names may belong to other types by now."""
        statement = sa.text(
            "SELECT a.attname, a.atttypid::bigint AS atttypid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = :schema AND c.relname = :name AND a.attnum > 0 AND NOT a.attisdropped"
        )
        found = self.connection.execute(statement, {"schema": OUR_SCHEMA, "name": mirror.name})
        return {row.attname: row.atttypid for row in found}

    def _restore_in_parts(self, mirror: Mirror, table: Table, nulled: list[str]) -> int:
        """Insert in halves, down to the rows that cannot be restored, which become conflicts."""
        source = mirror.selectable
        names = [sa.cast(source.c[name], sa.Text) for name in mirror.key if name in source.c and name != "ctid"]
        rows = self.connection.execute(sa.select(sa.cast(source.c.ctid, sa.Text), *names).where(self._own(mirror)))
        keys: dict[str, tuple[str, ...]] = {ctid: tuple(key) for ctid, *key in rows}
        refers_to_itself = any(key.child == key.parent == table.oid for key in self.catalog.foreign_keys)
        restored: list[str] = []
        missing = self._without_parents(mirror, table, nulled)
        for ctid, reason in missing.items():
            self.result.conflict(_name(table, keys[ctid]), reason)
        left = [ctid for ctid in keys if ctid not in missing]
        reasons: dict[str, str] = {}
        while left:
            inserted, reasons = self._insert_halves(mirror, table, nulled, left)
            restored += inserted
            left = list(reasons)
            # A row may have been tried before the one that it refers to.
            if not inserted or not refers_to_itself:
                break
        for ctid in left:
            self.result.conflict(_name(table, keys[ctid]), reasons[ctid])
        self.restored[mirror.id] = _at(source, restored)
        return len(restored)

    def _without_parents(self, mirror: Mirror, table: Table, nulled: list[str]) -> dict[str, str]:
        """The rows that refer to a row which does not exist, found at once: by their place, with the reason."""
        source, found = mirror.selectable, dict[str, str]()
        for key in self.catalog.foreign_keys:
            known = all(name in source.c and name not in nulled for name in key.columns)
            if key.child != table.oid or key.parent == table.oid or not (key.validated and key.declared and known):
                continue
            parent = self.catalog.table(key.parent)
            there = parent.selectable.alias()
            exists = sa.select(sa.literal(1)).select_from(there).where(*key.same(source, there)).correlate(source)
            given = (source.c[name].is_not(None) for name in key.columns)
            which = sa.and_(self._own(mirror), *given, ~exists.exists())
            places = self.connection.scalars(sa.select(sa.cast(source.c.ctid, sa.Text)).where(which)).all()
            if places:
                run_id = self._run_that_has(key, mirror, parent, which)
                where = f": it is in the trash of run {run_id}, undo that one first" if run_id else ""
                reason = f"the row of {parent.label} that it refers to by {key.name} does not exist{where}"
                found |= dict.fromkeys(places, reason)
        return found

    def _run_that_has(self, key: ForeignKey, child: Mirror, parent: Table, which: sa.ColumnElement[bool]) -> str | None:
        """A run in whose trash rows are to which rows of a mirror refer; None if none has them."""
        for mirror in self.mirrors.values():
            of_parent = (mirror.source_schema, mirror.source_table) == (parent.schema, parent.name)
            rows = mirror.selectable.alias()
            if not of_parent or not all(name in rows.c for name in key.targets):
                continue
            statement = sa.select(trash_batches.c.run_id).join_from(
                trash_batches, rows, rows.c[BATCH_COLUMN] == trash_batches.c.id
            )
            statement = statement.join(child.selectable, sa.and_(*key.same(child.selectable, rows)))
            run_id = self.connection.scalar(
                statement.where(which, trash_batches.c.run_id != self.result.run_id).limit(1)
            )
            if run_id is not None:
                return str(run_id)
        return None

    def _insert_halves(
        self, mirror: Mirror, table: Table, nulled: list[str], ctids: list[str]
    ) -> tuple[list[str], dict[str, str]]:
        """Returns which rows are restored, and why the others are not."""
        restored: list[str] = []
        reasons: dict[str, str] = {}

        def attempt(part: list[str]) -> list[str]:
            try:
                with self.connection.begin_nested():
                    self._insert(mirror, table, nulled, _at(mirror.selectable, part))
            except (RestoreMismatch, sa.exc.DBAPIError) as error:
                reason = _reason(error)
                if len(part) > 1:
                    return part
                reasons[part[0]] = reason
            else:
                restored.extend(part)
            return []

        in_halves(ctids, attempt)
        return restored, reasons

    def _set_postponed(self, mirror: Mirror, table: Table, columns: list[str]) -> None:
        """Set references to rows that are restored later; one that cannot be set is recorded as a cleared reference."""
        source, live = mirror.selectable, table.selectable
        same = sa.and_(*(source.c[name] == live.c[name] for name in mirror.key))
        mine = sa.and_(self._own(mirror), self.restored[mirror.id])
        statement = sa.update(live).values({name: source.c[name] for name in columns}).where(mine, same)
        try:
            self.unvalidated.write(
                table, lambda: self.connection.execute(statement), (source, mine), only=frozenset(columns)
            )
        except (MissingParent, sa.exc.DBAPIError) as error:
            logger.info("%s: recording references one by one, because %s", table.label, _reason(error))
        else:
            return
        as_text = [sa.cast(source.c[name], sa.Text) for name in columns]
        kept = sa.select(
            sa.literal(self.number, sa.BigInteger),
            sa.literal(table.schema, sa.Text),
            sa.literal(table.name, sa.Text),
            sa.literal(list(mirror.key), ARRAY(sa.Text)),
            array([sa.cast(source.c[name], sa.Text) for name in mirror.key]),
            sa.literal(columns, ARRAY(sa.Text)),
            array(as_text),
            sa.literal([None] * len(columns), ARRAY(sa.Text)),
        ).where(mine, sa.or_(*(value.is_not(None) for value in as_text)))
        names = ["batch_id", "source_schema", "source_table", "key_columns", "key", "columns", "was", "became"]
        self.connection.execute(sa.insert(trash_references).from_select(names, kept))

    def _restore_references(self) -> int:
        """Set cleared references again where the row has not changed since; returns how many are left."""
        statement = sa.select(trash_references).where(trash_references.c.batch_id == self.number)
        stays = 0
        for row in self.connection.execute(statement).all():
            table = self.catalog.find_exactly(row.source_schema, row.source_table)
            reason = self._set_reference(table, row) if table else "its table no longer exists"
            if reason is None:
                self.connection.execute(sa.delete(trash_references).where(trash_references.c.id == row.id))
                continue
            stays += 1
            name = item_name(table, tuple(row.key)) if table else row.source_table
            self.result.conflict(name, f"{', '.join(row.columns)} was not restored: {reason}")
        return stays

    def _set_reference(self, table: Table, row: Any) -> str | None:
        """Returns why it could not be set; None if it was."""
        live = table.selectable
        try:
            types = [PgType(table.type_of(name)) for name in row.columns]
            same_row = matches(table, row.key_columns, [tuple(row.key)])
        except KeyError as error:
            return f"the column {error.args[0]} no longer exists"
        values = {name: sa.cast(was, kind) for name, was, kind in zip(row.columns, row.was, types, strict=True)}
        as_left = [
            live.c[name].is_not_distinct_from(sa.cast(became, kind))
            for name, became, kind in zip(row.columns, row.became, types, strict=True)
        ]
        statement = sa.update(live).values(values).where(same_row, *as_left)
        try:
            set_again = self.unvalidated.write(
                table,
                lambda: self.connection.execute(statement).rowcount,
                (live, same_row),
                only=frozenset(row.columns),
            )
        except (MissingParent, sa.exc.DBAPIError) as error:
            return _reason(error)
        return None if set_again else "the row has changed since, or no longer exists"

    def _own(self, mirror: Mirror) -> sa.ColumnElement[bool]:
        return mirror.selectable.c[BATCH_COLUMN] == self.number
