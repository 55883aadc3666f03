"""What the live database says about itself: tables, columns, keys, foreign keys, indexes.

Read from pg_catalog, not from information_schema, which hides what the role does not own. Deletions are planned on what
the catalog says, never on what a mapping assumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from sqlalchemy.types import UserDefinedType

from housekeeping_pipelines.postgres.schema import OUR_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


OnDelete = Literal["no action", "restrict", "cascade", "set null", "set default"]
_ON_DELETE: dict[str, OnDelete] = {
    "a": "no action",
    "r": "restrict",
    "c": "cascade",
    "n": "set null",
    "d": "set default",
}
_KIND = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}

# Triggers and rules are gathered once for all tables: asking for those of each would take the square of their number.
_TABLES = sa.text(
    """
    WITH triggers AS (
        SELECT coalesce(pg_partition_root(t.tgrelid), t.tgrelid) AS relid,
               bool_or(t.tgtype & 10 = 10) AS before_delete, -- BEFORE, DELETE
               array_agg(DISTINCT t.tgname::text) FILTER (WHERE t.tgtype & 8 = 8) AS on_delete,
               array_agg(DISTINCT t.tgname::text) FILTER (WHERE t.tgtype & 4 = 4) AS on_insert,
               array_agg(DISTINCT t.tgname::text) FILTER (WHERE t.tgtype & 6 = 6) AS before_insert -- BEFORE, INSERT
        FROM pg_trigger t WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' GROUP BY 1
    ), rules AS (
        SELECT r.ev_class AS relid, array_agg(r.rulename::text) AS names
        FROM pg_rewrite r WHERE r.ev_type = '4' AND r.rulename <> '_RETURN' GROUP BY 1
    ), parents AS (
        SELECT DISTINCT i.inhparent AS relid FROM pg_inherits i JOIN pg_class child ON child.oid = i.inhrelid
        WHERE NOT child.relispartition
    )
    SELECT c.oid, n.nspname, c.relname, c.relkind, pg_table_is_visible(c.oid) AS visible,
           parents.relid IS NOT NULL AS inherited, coalesce(triggers.before_delete, false) AS has_delete_trigger,
           coalesce(triggers.on_delete, '{}') || coalesce(rules.names, '{}') AS delete_triggers,
           coalesce(triggers.on_insert, '{}') AS insert_triggers,
           coalesce(triggers.before_insert, '{}') AS before_insert_triggers
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN triggers ON triggers.relid = c.oid LEFT JOIN rules ON rules.relid = c.oid
    LEFT JOIN parents ON parents.relid = c.oid
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', :ours) AND n.nspname NOT LIKE 'pg\\_t%'
    ORDER BY n.nspname, c.relname
    """
).bindparams(ours=OUR_SCHEMA)

_COLUMNS = sa.text(
    """
    SELECT a.attname, a.attnum, format_type(a.atttypid, a.atttypmod) AS type, a.atttypid::bigint AS type_oid,
           format_type(a.atttypid, -1) AS bare_type, a.attnotnull,
           a.attgenerated <> '' AS generated, a.attidentity <> '' AS identity, a.atthasdef
    FROM pg_attribute a WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
    """
)

# The primary key, or else a unique index that identifies every row.
_KEY = sa.text(
    """
    SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, position)
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                 WHERE k.position <= i.indnkeyatts ORDER BY k.position)
    FROM pg_index i
    WHERE i.indrelid = :oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
      AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                      AND NOT a.attnotnull)
    ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1
    """
)

# conparentid: a partition's copy of its parent's key is not a key of its own. Columns that only newer versions have are
# read from the row as JSON, so that older versions give null.
_FOREIGN_KEYS = sa.text(
    """
    SELECT k.conname, coalesce(pg_partition_root(k.conrelid), k.conrelid)::oid AS conrelid,
           coalesce(pg_partition_root(k.confrelid), k.confrelid)::oid AS confrelid, k.confdeltype,
           EXISTS (SELECT FROM pg_class c WHERE c.oid IN (k.conrelid, k.confrelid) AND c.relispartition) AS in_part,
           coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false) AS of_period,
           coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true) AS enforced, k.convalidated,
           ARRAY(SELECT CASE WHEN o.oid IS NULL THEN NULL ELSE ARRAY[n.nspname::text, o.oprname::text] END
                 FROM unnest(k.conpfeqop) WITH ORDINALITY e(oid, position)
                 JOIN pg_operator f ON f.oid = e.oid LEFT JOIN pg_operator o ON o.oid = f.oprcom
                 LEFT JOIN pg_namespace n ON n.oid = o.oprnamespace ORDER BY e.position) AS operators,
           ARRAY(SELECT CASE WHEN NOT l.collisdeterministic AND p.attcollation <> c.attcollation
                             THEN format('%I.%I', n.nspname, l.collname) END
                 FROM unnest(k.conkey, k.confkey) WITH ORDINALITY e(child, parent, position)
                 JOIN pg_attribute c ON c.attrelid = k.conrelid AND c.attnum = e.child
                 JOIN pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = e.parent
                 LEFT JOIN pg_collation l ON l.oid = p.attcollation
                 LEFT JOIN pg_namespace n ON n.oid = l.collnamespace ORDER BY e.position) AS collations,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY c(attnum, position)
                 JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.attnum ORDER BY c.position)
               AS columns,
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY c(attnum, position)
                 JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = c.attnum ORDER BY c.position)
               AS targets,
           to_jsonb(k) -> 'confdelsetcols' AS cleared
    FROM pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0
    ORDER BY k.conrelid, k.conname
    """
)

_INDEXED = sa.text(
    """
    SELECT EXISTS (
        SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
        WHERE i.indrelid = :oid AND i.indisvalid AND i.indpred IS NULL AND m.amname IN ('btree', 'hash')
          AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text)
               FROM unnest((i.indkey::int2[])[0:cardinality(CAST(:columns AS text[])) - 1]) k(attnum)
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum)
              = (SELECT array_agg(c ORDER BY c) FROM unnest(CAST(:columns AS text[])) c))
    """
)


# The equality operator of a type's default operator class.
_EQUALITY = sa.text(
    """
    SELECT n.nspname, o.oprname
    FROM pg_opclass c JOIN pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
    JOIN pg_amop a ON a.amopfamily = c.opcfamily AND a.amopstrategy = 3
         AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype
    JOIN pg_operator o ON o.oid = a.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
    WHERE c.opcdefault AND c.opcintype = CAST(:type AS oid)
    """
)

_UNIQUE = sa.text(
    """
    SELECT EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = :oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
          AND (SELECT array_agg(a.attname::text)
               FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k(attnum)
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum) <@ CAST(:columns AS text[]))
    """
)


class PgType(UserDefinedType[Any]):
    """A type by the name that `format_type` gives it, so that values can be cast to any type of any extension."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: object) -> str:
        # The driver reads % in a statement as the start of a parameter.
        return self.name.replace("%", "%%")


@dataclass(frozen=True, slots=True)
class Column:
    """One column as it is now; `type` as `format_type` writes it, `bare_type` without a length or a precision."""

    name: str
    type: str
    bare_type: str
    type_oid: int
    not_null: bool
    generated: bool
    identity: bool
    has_default: bool


@dataclass(frozen=True)
class Table:
    """One table as it is now.

    Attributes:
        inherited: other tables inherit from it (partitions apart).
        key: the columns that identify a row: the primary key, or else a unique index over columns that are never null,
            or else `ctid`, which is stable only while the row is locked.
        has_delete_trigger: a trigger may block or alter the delete of a row.
        delete_triggers, insert_triggers: triggers, and rules on DELETE, that may act on other rows.
        before_insert_triggers: those of them that may change or refuse a row that is inserted.
    """

    oid: int
    schema: str
    name: str
    kind: str
    visible: bool
    inherited: bool
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    has_delete_trigger: bool = False
    delete_triggers: tuple[str, ...] = ()
    insert_triggers: tuple[str, ...] = ()
    before_insert_triggers: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name as a user writes it: the schema only where it is needed."""
        return self.name if self.visible else f"{self.schema}.{self.name}"

    @cached_property
    def selectable(self) -> sa.TableClause:
        """The table for SQLAlchemy, which quotes every name."""
        columns: list[sa.ColumnClause[Any]] = [sa.column(c.name, PgType(c.type)) for c in self.columns]
        return sa.table(self.name, *columns, sa.column("ctid", PgType("tid")), schema=self.schema)

    @property
    def has_key(self) -> bool:
        return self.key != ("ctid",)

    def column(self, name: str) -> Column:
        """The column of this name.

        Raises:
            KeyError: the table has no such column.
        """
        return next((c for c in self.columns if c.name == name), None) or _raise(KeyError(name))

    def type_of(self, name: str) -> str:
        """The type to cast a value to; with a length, the cast would cut a longer value to that of another row."""
        return "tid" if name == "ctid" else self.column(name).bare_type

    def holds_moments(self, name: str) -> bool:
        """Whether an age can be counted from the column: it is a date or a timestamp."""
        kind = self.type_of(name)
        return kind in ("date", "timestamp with time zone", "timestamp without time zone")

    def nearest(self, name: str) -> str:
        """For a message about a missing column: the nearest existing names."""
        return _nearest(name, [column.name for column in self.columns])

    def similar(self, name: str, others: Collection[str | None]) -> list[str]:
        """The columns whose names look like variants of this one, the closest first, without `others`."""
        names = [column.name for column in self.columns if column.name not in others]
        return get_close_matches(name, names, n=3, cutoff=_VARIANT)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two columns are compared.

    Attributes:
        schema, operator: the operator with the child's column on its left.
        collation: the one to compare in, quoted, where it is not that of the child's column.
    """

    schema: str
    operator: str
    collation: str | None = None

    @property
    def is_default(self) -> bool:
        """Whether `=` means it, whatever the search path."""
        return (self.schema, self.operator, self.collation) == ("pg_catalog", "=", None)

    def compare(self, child: sa.ColumnElement[Any], other: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """The condition."""
        quoted = self.schema.replace('"', '""').replace("%", "%%")
        operator = f'OPERATOR("{quoted}".{self.operator.replace("%", "%%")})'
        left = child if self.collation is None else child.op("COLLATE")(sa.literal_column(self.collation))
        return left.op(operator, is_comparison=True)(other)


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A key from `columns` of the table `child` to `targets` of the table `parent` (both by oid).

    Attributes:
        comparisons: how PostgreSQL compares each column of the child with the parent's; empty: by `=` as it is found.
        validated: False for a key that is NOT VALID: it may have rows without a parent.
        problem: why the referring rows cannot be found by their values, if so.
    """

    name: str
    child: int
    columns: tuple[str, ...]
    parent: int
    targets: tuple[str, ...]
    on_delete: OnDelete
    cleared: tuple[str, ...] = ()
    declared: bool = True
    problem: str | None = None
    comparisons: tuple[Comparison, ...] = ()
    validated: bool = True

    def same(self, child: sa.FromClause, parent: sa.FromClause) -> list[sa.ColumnElement[bool]]:
        """The conditions by which a row of the child refers to one of the parent."""
        pairs = [(child.c[own], parent.c[target]) for own, target in zip(self.columns, self.targets, strict=True)]
        if not self.comparisons:
            return [own == target for own, target in pairs]
        return [each.compare(own, target) for each, (own, target) in zip(self.comparisons, pairs, strict=True)]

    @property
    def clears(self) -> bool:
        """Whether deleting the parent row only clears the reference: the referring row stays."""
        return self.on_delete in ("set null", "set default")


class Catalog:
    """The live catalog as one transaction sees it; a table is read when it is first asked for."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self._rows = {row.oid: row for row in connection.execute(_TABLES)}
        self._tables: dict[int, Table] = {}
        self.foreign_keys: list[ForeignKey] = [
            ForeignKey(
                name=row.conname,
                child=row.conrelid,
                columns=tuple(row.columns),
                parent=row.confrelid,
                targets=tuple(row.targets),
                on_delete=_ON_DELETE[row.confdeltype],
                cleared=self._cleared(row),
                declared=row.enforced,
                problem=_problem(row),
                comparisons=_comparisons(row),
                validated=row.convalidated,
            )
            for row in connection.execute(_FOREIGN_KEYS)
        ]

    def _cleared(self, row: Any) -> tuple[str, ...]:
        if _ON_DELETE[row.confdeltype] not in ("set null", "set default"):
            return ()
        if not row.cleared:
            return tuple(row.columns)
        names = sa.text("SELECT attname FROM pg_attribute WHERE attrelid = :oid AND attnum = ANY (:numbers)")
        return tuple(self.connection.scalars(names, {"oid": row.conrelid, "numbers": row.cleared}))

    def table(self, oid: int) -> Table:
        """The table of this oid."""
        if oid not in self._tables:
            row = self._rows[oid]
            columns = tuple(
                Column(c.attname, c.type, c.bare_type, c.type_oid, c.attnotnull, c.generated, c.identity, c.atthasdef)
                for c in self.connection.execute(_COLUMNS, {"oid": oid})
            )
            key = self.connection.scalar(_KEY, {"oid": oid})
            self._tables[oid] = Table(
                oid=oid,
                schema=row.nspname,
                name=row.relname,
                kind=_KIND[row.relkind],
                visible=row.visible,
                inherited=row.inherited,
                columns=columns,
                key=tuple(key) if key else ("ctid",),
                has_delete_trigger=row.has_delete_trigger,
                delete_triggers=tuple(row.delete_triggers),
                insert_triggers=tuple(row.insert_triggers),
                before_insert_triggers=tuple(row.before_insert_triggers),
            )
        return self._tables[oid]

    def find(self, name: str) -> Table | None:
        """The table that a user calls `table` or `schema.table`; None if it does not exist."""
        visible = [oid for oid, row in self._rows.items() if row.visible and row.relname == name]
        named = [oid for oid, row in self._rows.items() if f"{row.nspname}.{row.relname}" == name]
        return self.table([*visible, *named][0]) if visible or named else None

    def find_exactly(self, schema: str, name: str) -> Table | None:
        """The table of this schema and name; None if it does not exist."""
        for oid, row in self._rows.items():
            if (row.nspname, row.relname) == (schema, name):
                return self.table(oid)
        return None

    def nearest(self, name: str) -> str:
        """For a message about a missing table: the nearest existing names."""
        names = [row.relname if row.visible else f"{row.nspname}.{row.relname}" for row in self._rows.values()]
        return _nearest(name, names)

    def is_indexed(self, key: ForeignKey) -> bool:
        """Whether the referring columns lead an index, in any order; without one, each parent row costs a scan."""
        return bool(self.connection.scalar(_INDEXED, {"oid": key.child, "columns": list(key.columns)}))

    def comparison(self, child: Column, parent: Column) -> Comparison | None:
        """How a key that is not declared compares; None: by `=` as it is found, which is that of the type."""
        if child.type_oid != parent.type_oid:
            return None
        found = self.connection.execute(_EQUALITY, {"type": child.type_oid}).one_or_none()
        comparison = None if found is None else Comparison(*found)
        return None if comparison is None or comparison.is_default else comparison

    def is_unique(self, table: Table, columns: Sequence[str]) -> bool:
        """Whether values of the columns identify at most one row."""
        return bool(self.connection.scalar(_UNIQUE, {"oid": table.oid, "columns": list(columns)}))


def _comparisons(row: Any) -> tuple[Comparison, ...]:
    """Empty where all columns are compared as usual."""
    found = tuple(
        Comparison(operator[0], operator[1], collation)
        for operator, collation in zip(row.operators, row.collations, strict=True)
        if operator is not None
    )
    return () if all(each.is_default for each in found) else found


def _problem(row: Any) -> str | None:
    if any(operator is None for operator in row.operators):
        return "the operator by which it compares has no commutator"
    if row.in_part:
        return "it belongs to one partition alone"
    if row.of_period:
        return "it refers to a period"
    if not row.enforced and _ON_DELETE[row.confdeltype] in ("set null", "set default"):
        return "it is not enforced, so nothing would clear it"
    return None


# `pinned` and `is_pinned` are more alike than this, `updated_at` and `deleted_at` are not.
_VARIANT = 0.75


def _nearest(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, n=3, cutoff=0.4)
    return f"; the nearest names are {', '.join(near)}" if near else ""


def _raise(error: Exception) -> Any:
    raise error
