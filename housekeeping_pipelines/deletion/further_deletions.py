"""Rows that a transaction deletes and that the engine did not name: PostgreSQL counts them for each table.

A trigger, a rule or a key that compares in another way may delete rows that reach no trash. So what was really deleted
is compared with what was recorded, before the commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.errors import Refused
from housekeeping_pipelines.postgres.schema import OUR_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from housekeeping_pipelines.postgres.catalog import Table

# The counters go on until the server's statistics take them, which it does between transactions. A savepoint that is
# rolled back counts too, which errs on the safe side. Of the system's tables, only that of large objects is data.
_DELETED = sa.text(
    """
    SELECT coalesce(pg_partition_root(found.oid), found.oid)::bigint AS oid, sum(found.deleted)::bigint AS deleted
    FROM (SELECT c.oid, pg_stat_get_xact_tuples_deleted(c.oid) AS deleted FROM pg_class c
          WHERE c.relkind = 'r' AND c.relpersistence <> 't'
            AND (c.oid >= 16384 OR c.oid = 'pg_largeobject_metadata'::regclass)
            AND c.relnamespace <> (SELECT n.oid FROM pg_namespace n WHERE n.nspname = :ours)) AS found
    WHERE found.deleted > 0 GROUP BY 1
    """
).bindparams(ours=OUR_SCHEMA)


class DeletionCounter:
    """What the transaction has deleted since this was made.

    Args:
        allowed: tables of which triggers may delete further rows, by oid.
    """

    def __init__(self, connection: sa.Connection, allowed: Collection[int]) -> None:
        self._connection = connection
        self._allowed = allowed
        self._before = self._read()

    def _read(self) -> dict[int, int]:
        return {row.oid: row.deleted for row in self._connection.execute(_DELETED)}

    def further(self, named: Mapping[int, int], causes: Collection[Table]) -> dict[str, int]:
        """Rows of allowed tables that were deleted besides those that the engine named, by table.

        Args:
            named: the rows that the engine deleted, by the oid of their table.
            causes: the tables of the plan, whose triggers a message names.

        Raises:
            Refused: rows of another table were.
        """
        found: dict[str, int] = {}
        for oid, count in self._read().items():
            more = count - self._before.get(oid, 0) - named.get(oid, 0)
            if more <= 0:
                continue
            label = str(self._connection.scalar(sa.text("SELECT CAST(:oid AS oid)::regclass::text"), {"oid": oid}))
            if oid not in self._allowed:
                triggers = [f"{name} of {table.label}" for table in causes for name in table.delete_triggers]
                by = f"; the triggers are {', '.join(triggers)}" if triggers else ""
                raise Refused(
                    f"{more:,} rows of {label} would be deleted besides, and could not be restored{by}",
                    hint=f"list {label} under allowed_deletions: in housekeeping.yaml if these rows may be lost",
                )
            found[label] = found.get(label, 0) + more
        return found
