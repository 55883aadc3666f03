"""Values of rows that stay, changed together with a deletion: its undo sets them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.deletion.tables import trash_batches, trash_references

if TYPE_CHECKING:
    from collections.abc import Sequence

    from housekeeping_pipelines.postgres.catalog import Table


def record_change(
    connection: sa.Connection,
    run_id: str,
    table: Table,
    *,
    key_column: str,
    keys: Sequence[str],
    column: str,
    was: str,
    became: str,
) -> None:
    """Record that a run changed a column of rows, so that undoing the run sets it back.

    Undo changes a row only where it is still as the run left it, and reports the others as conflicts. A run that has
    nothing in the trash cannot be undone: then nothing is recorded.

    Args:
        key_column, keys: what names the rows, the values as text.
        was, became: the column's value before and after, as text.
    """
    batch = connection.scalar(sa.select(sa.func.max(trash_batches.c.id)).where(trash_batches.c.run_id == run_id))
    if batch is None or not keys:
        return
    row = {
        "batch_id": batch,
        "source_schema": table.schema,
        "source_table": table.name,
        "key_columns": [key_column],
        "columns": [column],
        "was": [was],
        "became": [became],
    }
    connection.execute(sa.insert(trash_references), [{**row, "key": [key]} for key in keys])
