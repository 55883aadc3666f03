"""Where deleted rows stay until they expire: one typed mirror table per shape of a table.

A mirror has the columns of its table with their very types, so that what comes back is what went, byte for byte, and
a row costs what it cost before. Each row carries the number of the transaction that deleted it; undo takes these
transactions back, the last first.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP

from housekeeping_pipelines.deletion.tables import trash_batches, trash_references, trash_tables
from housekeeping_pipelines.postgres.catalog import PgType
from housekeeping_pipelines.postgres.locks import lock_for_transaction, try_lock
from housekeeping_pipelines.postgres.schema import OUR_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from housekeeping_pipelines.postgres.catalog import Table

BATCH_COLUMN = "housekeeping_batch"

# Held in share mode by every session that counts on mirrors' being there, and alone to drop one.
MIRRORS_LOCK = "mirrors"
_MAKING_LOCK = "making mirrors"

# Rows that one transaction of the purge removes: well under two seconds' work.
PURGE_ROWS = 50_000


def undo_lock(run_id: str) -> str:
    """Held in share mode by an undo of the run; the purge takes nothing of a run whose lock it does not get."""
    return f"undo {run_id}"


@dataclass(frozen=True)
class Mirror:
    """A mirror table and what it mirrors; `columns` are (name, type) as they were when it was made."""

    id: int
    name: str
    source_schema: str
    source_table: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]

    @cached_property
    def selectable(self) -> sa.TableClause:
        columns = [sa.column(name, PgType(type_name)) for name, type_name in self.columns]
        return sa.table(
            self.name,
            sa.column(BATCH_COLUMN, sa.BigInteger),
            *columns,
            sa.column("ctid", PgType("tid")),
            schema=OUR_SCHEMA,
        )


@dataclass(frozen=True, slots=True)
class TrashedRun:
    """What one task of one run left in the trash."""

    run_id: str
    task: str
    deleted_at: datetime
    expires_at: datetime
    rows: int
    files: int
    bytes: int


def ensure_mirror(connection: sa.Connection, table: Table) -> Mirror:
    """The mirror for the table's present shape, made if it is not there; the caller commits."""
    # The type's number: another type may have taken its name.
    shape = json.dumps([table.schema, table.name, [[c.name, c.type, c.type_oid] for c in table.columns], table.key])
    digest = hashlib.sha256(shape.encode()).hexdigest()[:12]
    # A name has at most 63 bytes in PostgreSQL; a cut must not leave half a character.
    name = table.name.encode()[:50].decode(errors="ignore") + "_" + digest
    known = find_mirrors(connection, name=name)
    if known:
        return known[0]
    connection.execute(lock_for_transaction(_MAKING_LOCK))
    known = find_mirrors(connection, name=name)
    if known:
        return known[0]
    _execute_quoted(
        connection,
        "CREATE TABLE {} AS SELECT NULL::bigint AS housekeeping_batch, t.* FROM {} t WITH NO DATA",
        (OUR_SCHEMA, name),
        (table.schema, table.name),
    )
    # Rows arrive in the order of their batches: a BRIN index costs a deletion nothing, where a B-tree took a fifth of
    # its time. The "multi" kind stays narrow where new batches fill the room of expired ones.
    _execute_quoted(
        connection,
        "CREATE INDEX ON {} USING brin (housekeeping_batch int8_minmax_multi_ops) WITH (pages_per_range = 32)",
        (OUR_SCHEMA, name),
    )
    connection.execute(
        sa.insert(trash_tables).values(
            mirror=name,
            source_schema=table.schema,
            source_table=table.name,
            columns=[[c.name, c.type] for c in table.columns],
            key=list(table.key),
        )
    )
    return find_mirrors(connection, name=name)[0]


def _execute_quoted(connection: sa.Connection, statement: str, *names: tuple[str, str]) -> None:
    """Execute a statement about tables for which SQLAlchemy has no construct; it quotes their names."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    tables = [f"{quote(schema)}.{quote(name)}" for schema, name in names]
    # What quotes a name also doubles its %, which the driver would read as the start of a parameter.
    connection.exec_driver_sql(statement.format(*tables))


def find_mirrors(connection: sa.Connection, *, name: str | None = None) -> list[Mirror]:
    """The mirrors that exist, or the one of this name."""
    statement = sa.select(trash_tables).order_by(trash_tables.c.id)
    if name is not None:
        statement = statement.where(trash_tables.c.mirror == name)
    return [
        Mirror(
            row.id,
            row.mirror,
            row.source_schema,
            row.source_table,
            tuple((column, type_name) for column, type_name in row.columns),
            tuple(row.key),
        )
        for row in connection.execute(statement)
    ]


def summarize_mirrors(connection: sa.Connection) -> None:
    """Tell the mirrors' indexes of what came since they were told last; the caller commits.

    Without it each batch that is read would read all of what came since.
    """
    statement = sa.text(
        "SELECT brin_summarize_new_values(i.indexrelid) FROM housekeeping.trash_tables m"
        " JOIN pg_class t ON t.relname = m.mirror JOIN pg_namespace n ON n.oid = t.relnamespace"
        " JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class c ON c.oid = i.indexrelid"
        # Mirrors that older versions made have a B-tree.
        " JOIN pg_am a ON a.oid = c.relam"
        " WHERE n.nspname = 'housekeeping' AND a.amname = 'brin' AND pg_has_role(t.relowner, 'USAGE')"
    )
    connection.execute(statement).all()


def prefer_indexes(connection: sa.Connection) -> None:
    """Until the transaction ends: nobody may have analyzed a mirror, and the planner would read all of it."""
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")


def copy_to_mirror(mirror: Mirror, table: Table, batch: int, which: sa.ColumnElement[bool]) -> sa.Insert:
    """A statement that copies rows, which stay; it reports how many."""
    names = [column.name for column in table.columns]
    rows = sa.select(sa.literal(batch, sa.BigInteger), *(table.selectable.c[n] for n in names)).where(which)
    insert = sa.insert(mirror.selectable).from_select([BATCH_COLUMN, *names], rows)
    return insert.execution_options(preserve_rowcount=True)


def move_to_mirror(
    mirror: Mirror,
    table: Table,
    batch: int,
    which: sa.ColumnElement[bool],
    counted: Callable[[Mapping[str, sa.ColumnElement[Any]]], sa.ColumnElement[bool]],
) -> sa.Select[int, int]:
    """A statement that moves rows, and tells how many, and of how many of them a condition on their columns is true."""
    names = [column.name for column in table.columns]
    # Short labels: SQLAlchemy cuts those that come near PostgreSQL's 63 bytes.
    labelled = (table.selectable.c[name].label(f"c{position}") for position, name in enumerate(names))
    gone = sa.delete(table.selectable).where(which).returning(*labelled).cte("gone")
    rows = sa.select(sa.literal(batch, sa.BigInteger), *gone.c)
    put = sa.insert(mirror.selectable).from_select([BATCH_COLUMN, *names], rows).cte("put")
    condition = counted(dict(zip(names, gone.c, strict=True)))
    counts = sa.select(sa.func.count(), sa.func.count().filter(condition))
    return counts.select_from(gone).add_cte(put)


def list_trash(connection: sa.Connection, retention: timedelta) -> list[TrashedRun]:
    """Every run that the trash still has something of, the latest first."""
    statement = sa.text(
        "SELECT run_id, task, max(deleted_at) AS deleted_at, sum(rows)::bigint AS rows, sum(files)::bigint AS files,"
        " sum(bytes)::bigint AS bytes FROM ("
        "SELECT run_id, task, deleted_at, coalesce((SELECT sum((item ->> 1)::bigint)"
        " FROM jsonb_array_elements(contents) item), 0) AS rows, 0 AS files, 0 AS bytes FROM housekeeping.trash_batches"
        " UNION ALL SELECT run_id, task, deleted_at, 0, 1, coalesce(bytes, 0) FROM housekeeping.trashed_files"
        ") AS everything GROUP BY run_id, task ORDER BY max(deleted_at) DESC, task"
    )
    return [
        TrashedRun(r.run_id, r.task, r.deleted_at, r.deleted_at + retention, int(r.rows), int(r.files), int(r.bytes))
        for r in connection.execute(statement)
    ]


def mirrors_with_own_types(connection: sa.Connection) -> list[str]:
    """Source tables whose mirror uses a type of the user's or an extension's, which cannot be dropped meanwhile."""
    statement = sa.text(
        "SELECT DISTINCT m.source_table FROM housekeeping.trash_tables m"
        " JOIN pg_class c ON c.relname = m.mirror JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type e ON e.oid = t.typelem"
        # 16384 is FirstNormalObjectId: what initdb made has a lower number.
        " WHERE n.nspname = 'housekeeping' AND greatest(t.oid::bigint, e.oid::bigint) >= 16384 ORDER BY 1"
    )
    return list(connection.scalars(statement))


def count_expired(connection: sa.Connection, *, before: datetime, run_id: str | None = None) -> dict[str, int]:
    """Rows that `purge` would remove, by source table."""
    statement = sa.text(
        "SELECT t.source_table, sum((item ->> 1)::bigint)::bigint FROM housekeeping.trash_batches b"
        " CROSS JOIN jsonb_array_elements(b.contents) item"
        " JOIN housekeeping.trash_tables t ON t.id = (item ->> 0)::bigint"
        " WHERE CASE WHEN :run_id IS NULL THEN deleted_at < :before ELSE run_id = :run_id END GROUP BY 1 ORDER BY 1"
    ).bindparams(sa.bindparam("run_id", run_id, sa.Text), sa.bindparam("before", before, TIMESTAMP(timezone=True)))
    return {row[0]: row[1] for row in connection.execute(statement)}


def purge(
    connection: sa.Connection,
    *,
    before: datetime,
    run_id: str | None = None,
    may_go_on: Iterator[bool] | None = None,
) -> dict[str, int]:
    """Remove for good what was deleted before a moment, or the whole of one run; commits as it goes.

    Returns:
        rows removed by source table.
    """
    due = trash_batches.c.run_id == run_id if run_id else trash_batches.c.deleted_at < before
    removed: dict[str, int] = {}
    being_undone: set[str] = set()
    summarize_mirrors(connection)
    connection.commit()
    while may_go_on is None or next(may_go_on):
        statement = sa.select(trash_batches.c.id, trash_batches.c.run_id, trash_batches.c.contents)
        statement = statement.where(due, trash_batches.c.run_id.not_in(sorted(being_undone)))
        statement = statement.order_by(trash_batches.c.id).limit(1000).with_for_update(skip_locked=True)
        found = connection.execute(statement).all()
        # An undo keeps what it has not come to yet.
        kept = {name for name in {row.run_id for row in found} if not connection.scalar(try_lock(undo_lock(name)))}
        being_undone |= kept
        batches = _up_to(PURGE_ROWS, [(row.id, row.contents) for row in found if row.run_id not in kept])
        if not batches:
            connection.rollback()
            if kept:
                continue
            break
        mirrors = {mirror.id: mirror for mirror in find_mirrors(connection)}
        ids = [batch_id for batch_id, _ in batches]
        prefer_indexes(connection)
        for mirror_id in sorted({mirror_id for _, contents in batches for mirror_id, _ in contents}):
            mirror = mirrors[mirror_id]
            batch = mirror.selectable.c[BATCH_COLUMN]
            # The index is looked into once, for the range, and not for each number of the list.
            which = sa.and_(batch.between(ids[0], ids[-1]), _in(batch + 0, ids))
            gone = connection.execute(sa.delete(mirror.selectable).where(which))
            removed[mirror.source_table] = removed.get(mirror.source_table, 0) + gone.rowcount
        connection.execute(sa.delete(trash_references).where(_in(trash_references.c.batch_id, ids)))
        connection.execute(sa.delete(trash_batches).where(_in(trash_batches.c.id, ids)))
        connection.commit()
    connection.rollback()
    for mirror in find_mirrors(connection):
        _drop_if_empty(connection, mirror)
    return removed


def _up_to(rows: int, batches: Sequence[tuple[int, list[list[int]]]]) -> list[tuple[int, list[list[int]]]]:
    taken: list[tuple[int, list[list[int]]]] = []
    for batch_id, contents in batches:
        rows -= sum(count for _, count in contents)
        if taken and rows < 0:
            break
        taken.append((batch_id, contents))
    return taken


def _in(column: sa.ColumnElement[int], ids: list[int]) -> sa.ColumnElement[bool]:
    return column == sa.any_(sa.cast(ids, PgType("bigint[]")))


def _drop_if_empty(connection: sa.Connection, mirror: Mirror) -> None:
    """Drop a mirror that nothing is in, so that it does not hold on to its columns' types."""
    connection.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
    try:
        connection.execute(lock_for_transaction(MIRRORS_LOCK))
        if connection.scalar(sa.select(sa.literal(True)).select_from(mirror.selectable).limit(1)) is None:
            _execute_quoted(connection, "DROP TABLE {}", (OUR_SCHEMA, mirror.name))
            connection.execute(sa.delete(trash_tables).where(trash_tables.c.id == mirror.id))
        connection.commit()
    except sa.exc.DBAPIError:
        # Some run is writing to it: it is not as empty as it looked.
        connection.rollback()
