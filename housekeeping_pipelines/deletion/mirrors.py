"""Mirrors: the tables of the trash.

A mirror has the columns of its table in their own types, so that a row comes back byte for byte. A table that changes
its shape gets a further mirror: the rows in the older one keep the columns that they had.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from housekeeping_pipelines.deletion.tables import trash_tables
from housekeeping_pipelines.postgres.catalog import PgType
from housekeeping_pipelines.postgres.locks import lock_for_transaction
from housekeeping_pipelines.postgres.schema import OUR_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from housekeeping_pipelines.postgres.catalog import Table


BATCH_COLUMN = "housekeeping_batch"

# Held in share mode by every session that needs the mirrors to exist, and exclusively to drop one.
MIRRORS_LOCK = "mirrors"

_MAKING_LOCK = "making mirrors"


@dataclass(frozen=True)
class Mirror:
    """A mirror table and what it mirrors; `columns` are (name, type) as they were when it was created."""

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


def ensure_mirror(connection: sa.Connection, table: Table) -> Mirror:
    """The mirror for the table's present shape, created if it does not exist; the caller commits."""
    # The type's oid: another type may have taken its name.
    shape = json.dumps([table.schema, table.name, [[c.name, c.type, c.type_oid] for c in table.columns], table.key])
    digest = hashlib.sha256(shape.encode()).hexdigest()[:12]
    # A name has at most 63 bytes in PostgreSQL; cutting must not leave half a character.
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
    # Rows arrive in the order of their batches: a BRIN index costs a deletion nothing, a B-tree a fifth of its time.
    # The "multi" operator class stays selective where new batches fill the space of expired ones.
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
    keep_publishable(connection)
    return find_mirrors(connection, name=name)[0]


# Mirrors have no key, and PostgreSQL deletes no row of a published table that nothing identifies.
_UNIDENTIFIED = sa.text(
    """
    SELECT c.relname FROM housekeeping.trash_tables m JOIN pg_class c ON c.relname = m.mirror
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = :ours
    WHERE c.relreplident = 'd' AND EXISTS (
        SELECT FROM pg_publication p
        WHERE (p.pubdelete OR p.pubupdate) AND (p.puballtables OR EXISTS (
            SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = n.oid)))
    """
).bindparams(ours=OUR_SCHEMA)


def keep_publishable(connection: sa.Connection) -> None:
    """Let rows be deleted from mirrors that a publication of all tables has taken up; the caller commits."""
    for name in connection.scalars(_UNIDENTIFIED).all():
        _execute_quoted(connection, "ALTER TABLE {} REPLICA IDENTITY FULL", (OUR_SCHEMA, name))


def _execute_quoted(connection: sa.Connection, statement: str, *names: tuple[str, str]) -> None:
    """Execute a statement on tables for which SQLAlchemy has no construct; its dialect quotes their names."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    tables = [f"{quote(schema)}.{quote(name)}" for schema, name in names]
    # Quoting also doubles a %, which the driver would read as the start of a parameter.
    connection.exec_driver_sql(statement.format(*tables))


def drop_if_empty(connection: sa.Connection, mirror: Mirror) -> None:
    """Drop an empty mirror, since it depends on the types of its columns; commits."""
    connection.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
    try:
        connection.execute(lock_for_transaction(MIRRORS_LOCK))
        if connection.scalar(sa.select(sa.literal(True)).select_from(mirror.selectable).limit(1)) is None:
            _execute_quoted(connection, "DROP TABLE {}", (OUR_SCHEMA, mirror.name))
            connection.execute(sa.delete(trash_tables).where(trash_tables.c.id == mirror.id))
        connection.commit()
    except sa.exc.DBAPIError:
        # A run is writing to it.
        connection.rollback()


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
    """Summarize the rows that were added to the mirrors since the last time in their indexes; the caller commits.

    Without it, reading one batch would read all of these rows.
    """
    statement = sa.text(
        "SELECT brin_summarize_new_values(i.indexrelid) FROM housekeeping.trash_tables m"
        " JOIN pg_class t ON t.relname = m.mirror JOIN pg_namespace n ON n.oid = t.relnamespace"
        " JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class c ON c.oid = i.indexrelid"
        # Mirrors of older versions have a B-tree.
        " JOIN pg_am a ON a.oid = c.relam"
        " WHERE n.nspname = 'housekeeping' AND a.amname = 'brin' AND pg_has_role(t.relowner, 'USAGE')"
    )
    connection.execute(statement).all()


def prefer_indexes(connection: sa.Connection) -> None:
    """Until the transaction ends: a mirror may never have been analyzed, and the planner would scan all of it."""
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")


def copy_to_mirror(mirror: Mirror, table: Table, batch: int, which: sa.ColumnElement[bool]) -> sa.Insert:
    """A statement that copies rows to the mirror and reports how many."""
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
    """A statement that moves rows; returns how many, and how many of them satisfy a condition on their columns."""
    names = [column.name for column in table.columns]
    # Short labels: SQLAlchemy truncates those that come near PostgreSQL's 63 bytes.
    labelled = (table.selectable.c[name].label(f"c{position}") for position, name in enumerate(names))
    gone = sa.delete(table.selectable).where(which).returning(*labelled).cte("gone")
    rows = sa.select(sa.literal(batch, sa.BigInteger), *gone.c)
    put = sa.insert(mirror.selectable).from_select([BATCH_COLUMN, *names], rows).cte("put")
    condition = counted(dict(zip(names, gone.c, strict=True)))
    counts = sa.select(sa.func.count(), sa.func.count().filter(condition))
    return counts.select_from(gone).add_cte(put)


def mirrors_with_own_types(connection: sa.Connection) -> list[str]:
    """Source tables whose mirror uses a user's or an extension's type, which cannot be dropped meanwhile."""
    statement = sa.text(
        "SELECT DISTINCT m.source_table FROM housekeeping.trash_tables m"
        " JOIN pg_class c ON c.relname = m.mirror JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type e ON e.oid = t.typelem"
        # 16384 is FirstNormalObjectId: what initdb creates has a lower oid.
        " WHERE n.nspname = 'housekeeping' AND greatest(t.oid::bigint, e.oid::bigint) >= 16384 ORDER BY 1"
    )
    return list(connection.scalars(statement))
