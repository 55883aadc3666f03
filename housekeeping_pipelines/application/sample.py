"""How the tables and folders that `housekeeping demo` made are recognised.

The sample's rows name none of a user's files, so that by them every file of a user would be an orphan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from housekeeping_pipelines.postgres.catalog import Table

# The comment on each of the sample's tables.
TABLE_COMMENT = "housekeeping sample data"
# An empty folder in each of the sample's folders.
FOLDER_MARKER = ".housekeeping-sample"


def sample_tables(connection: sa.Connection, tables: Collection[Table]) -> list[str]:
    """The labels of those that are the sample's."""
    comment = sa.text("SELECT obj_description(CAST(:oid AS oid), 'pg_class')")
    return sorted({each.label for each in tables if connection.scalar(comment, {"oid": each.oid}) == TABLE_COMMENT})


def is_sample_folder(folder: Path) -> bool:
    """Whether the demo filled it."""
    return (folder / FOLDER_MARKER).is_dir()
