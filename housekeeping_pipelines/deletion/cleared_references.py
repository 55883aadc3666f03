"""References that a deletion clears (SET NULL and SET DEFAULT keys), recorded so that undo can set them again.

The referring rows stay. They are locked and read before the rows that they refer to are deleted, and recorded after,
since what a default became is known only then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from housekeeping_pipelines.deletion.tables import trash_references
from housekeeping_pipelines.postgres.keys import Key, KeyedColumns, Values, matches

if TYPE_CHECKING:
    from housekeeping_pipelines.deletion.locked_rows import LockedRows
    from housekeeping_pipelines.deletion.plan import Plan
    from housekeeping_pipelines.postgres.catalog import ForeignKey, Table


class ClearedReferences(NamedTuple):
    """The rows that lose their reference by one foreign key: by their own key, what the columns were."""

    foreign_key: ForeignKey
    were: dict[Key, Values]


def find_references_to_clear(rows: LockedRows, table: Table) -> list[ClearedReferences]:
    """Lock the rows that stay and refer to the table's rows in `rows`; those that are deleted too are left out."""
    found: list[ClearedReferences] = []
    for key in rows.plan.loses_references_to(table):
        which = rows.referring(key)
        if which is None:
            continue
        child = rows.plan.members[key.child]
        columns = KeyedColumns(child, key.cleared)
        statement = sa.select(*columns.selected).where(which)
        if deleted := rows.read(key.child):
            statement = statement.where(~matches(child, child.key, deleted))
        locked = rows.connection.execute(statement.with_for_update())
        if were := dict(columns.split(row) for row in locked):
            found.append(ClearedReferences(key, were))
    return found


def record_cleared_references(
    connection: sa.Connection, plan: Plan, batch: int, cleared: list[ClearedReferences]
) -> None:
    """Record under a batch's number what the references were and what they are now."""
    for key, were in cleared:
        child = plan.members[key.child]
        columns = KeyedColumns(child, key.cleared)
        statement = sa.select(*columns.selected).where(matches(child, child.key, were))
        became = dict(columns.split(row) for row in connection.execute(statement))
        recorded = [
            {
                "batch_id": batch,
                "source_schema": child.schema,
                "source_table": child.name,
                "key_columns": list(child.key),
                "key": list(own),
                "columns": list(key.cleared),
                "was": list(was),
                "became": list(became[own]),
            }
            for own, was in were.items()
            if own in became
        ]
        if recorded:
            connection.execute(sa.insert(trash_references), recorded)
