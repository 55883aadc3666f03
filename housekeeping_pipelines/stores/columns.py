"""How the columns of a table hold the names of files, by their types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from housekeeping_pipelines.postgres.catalog import Table
    from housekeeping_pipelines.stores.references import Shape

_TYPES = sa.text(
    """
    WITH RECURSIVE base AS (
        SELECT a.attname, a.atttypid AS type, false AS is_array FROM pg_attribute a
        WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT b.attname, CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END,
               b.is_array OR t.typtype <> 'd'
        FROM base b JOIN pg_type t ON t.oid = b.type
        WHERE t.typtype = 'd' OR (t.typcategory = 'A' AND NOT b.is_array)
    )
    SELECT b.attname AS name, CASE WHEN b.is_array THEN 'array' WHEN t.typname IN ('json', 'jsonb') THEN 'json'
                              ELSE 'text' END AS shape
    FROM base b JOIN pg_type t ON t.oid = b.type
    WHERE t.typtype <> 'd' AND (t.typcategory = 'S' OR t.typtype = 'e' OR t.typname IN ('json', 'jsonb', 'uuid'))
    """
)


def shapes(connection: sa.Connection, table: Table) -> dict[str, Shape]:
    """The columns that can hold names of files: text, enumerations, uuid, JSON, arrays of these, domains over them."""
    return {row.name: row.shape for row in connection.execute(_TYPES, {"oid": table.oid})}


def shape_of(connection: sa.Connection, table: Table, column: str) -> Shape:
    """
    Raises:
        ConfigurationError: values of the column's type are not names of files.
    """
    found = shapes(connection, table).get(column)
    if found is None:
        kind = table.column(column).type
        raise ConfigurationError(
            f"{table.label}.{column} is {kind}, which cannot be read as the name of a file",
            hint="name a column of text, text[], json or jsonb, or a view that makes one",
        )
    return found
