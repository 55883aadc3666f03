"""The list of candidates, oldest first.

It is filled slice by slice of the table, each in a transaction of its own: vacuum waits for the oldest transaction, and
a single one over a table of millions would last as long as the list takes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.postgres.catalog import PgType

if TYPE_CHECKING:
    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.postgres.keys import Key

# 8 MB of a table, about 80,000 rows of a hundred bytes: tenths of a second.
SLICE_BLOCKS = 1000

# How often the fixed cost of a slice is paid at most, such as a scan of a child table that has no index.
MAX_SLICES = 32

# A join without indexes is by hashes; where a type has none, it would take very long.
_WITHOUT_INDEXES = (
    "SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off;"
    " SET LOCAL enable_nestloop = off; SET LOCAL statement_timeout = '60s'; SET TRANSACTION READ ONLY"
)

_LIST = "housekeeping_candidates"
_CURSOR = "housekeeping_oldest_first"


@dataclass
class CandidateList:
    """What a policy selects, kept in a temporary table of the connection's session.

    Attributes:
        scanned: rows of the table.
        eligible: rows that the policy selects at any age.
        held: rows that a hold keeps.
        candidates: rows on the list.
        listed: the list: `age`, and the columns of the key.
    """

    connection: sa.Connection
    policy: RowPolicy
    scanned: int = 0
    eligible: int = 0
    held: int = 0
    candidates: int = 0
    listed: sa.TableClause = field(init=False)

    def __post_init__(self) -> None:
        names = ["age", *(f"k{i}" for i in range(len(self.policy.table.key)))]
        self.listed = sa.table(_LIST, *(sa.column(name) for name in names), schema="pg_temp")

    def make(self, held: sa.ColumnElement[bool] | None) -> None:
        """Fill the list, without the rows that `held` covers."""
        connection, policy, table = self.connection, self.policy, self.policy.table
        columns = [policy.age_from, *(table.selectable.c[name] for name in table.key)]
        listing = sa.select(*(column.label(name) for column, name in zip(columns, self.listed.c.keys(), strict=True)))
        # The other transactions of a dry run are read-only.
        connection.exec_driver_sql("SET TRANSACTION READ WRITE")
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS pg_temp.{_LIST}")
        compiled = listing.compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"CREATE TEMP TABLE {_LIST} AS {compiled.string} WITH NO DATA", compiled.params)
        slices = self._slices()
        connection.commit()
        condition = policy.condition if held is None else sa.and_(policy.condition, held.is_not(True))
        rows = sa.select(sa.func.count()).select_from(table.selectable)
        for within in slices:
            # One snapshot a slice, so that its counts belong to its part of the list.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            scanned = connection.scalar(rows.where(within)) or 0
            self.scanned += scanned
            self.eligible += (
                scanned if policy.eligible is None else connection.scalar(rows.where(within, policy.eligible)) or 0
            )
            if held is not None:
                self.held += connection.scalar(rows.where(within, policy.condition, held)) or 0
            insert = sa.insert(self.listed).from_select(self.listed.c.keys(), listing.where(within, condition))
            self.candidates += connection.execute(insert.execution_options(preserve_rowcount=True)).rowcount
            connection.commit()

    def survivors(self) -> int:
        """How many rows of the list the policy still selects by their own columns: no index is asked.

        Raises:
            sqlalchemy.exc.DBAPIError: it takes too long.
        """
        connection, table = self.connection, self.policy.table
        same = (table.selectable.c[name] == self.listed.c[f"k{i}"] for i, name in enumerate(table.key))
        with connection.begin():
            connection.exec_driver_sql(_WITHOUT_INDEXES)
            joined = sa.select(sa.func.count()).select_from(table.selectable).join(self.listed, sa.and_(*same))
            # Rows that only a child keeps were left, too, and to ask for the children would cost a scan of theirs.
            return connection.scalar(joined.where(self.policy.own_condition)) or 0

    def _slices(self) -> list[sa.ColumnElement[bool]]:
        """Parts of the table by the position of its rows; the last is open, so that every row is in one of them."""
        place, kind = self.policy.table.selectable.c.ctid, PgType("tid")
        blocks = self._blocks()
        number = max(1, min(blocks // SLICE_BLOCKS, MAX_SLICES))
        starts = [sa.cast(f"({blocks * i // number},0)", kind) for i in range(1, number)]
        return [
            sa.and_(place >= start if start is not None else sa.true(), place < end if end is not None else sa.true())
            for start, end in zip([None, *starts], [*starts, None], strict=True)
        ]

    def _blocks(self) -> int:
        """The size of the table, or of its largest partition, in pages."""
        statement = sa.text(
            "SELECT greatest(pg_relation_size(CAST(:oid AS oid)), (SELECT max(pg_relation_size(relid))"
            " FROM pg_partition_tree(CAST(:oid AS oid)))) / current_setting('block_size')::bigint"
        )
        return int(self.connection.scalar(statement, {"oid": self.policy.table.oid}) or 0)

    def open(self) -> None:
        """Open a cursor on the list that outlives the transaction."""
        # The key orders rows of the same age: a dry run must stop where the real run will.
        age, *key = self.listed.c
        ordered = sa.select(*(sa.cast(column, sa.Text) for column in key)).order_by(age, *key)
        compiled = ordered.compile(dialect=self.connection.dialect)
        self.connection.exec_driver_sql(f"DECLARE {_CURSOR} CURSOR WITH HOLD FOR {compiled.string}", compiled.params)
        self.connection.commit()

    def next(self, number: int) -> list[Key]:
        """Up to `number` further keys; empty at the end."""
        rows = self.connection.exec_driver_sql(f"FETCH FORWARD {number} FROM {_CURSOR}").all()
        self.connection.commit()
        return [tuple(row) for row in rows]
