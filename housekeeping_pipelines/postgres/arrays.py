"""Lists as array parameters: one statement of one shape, however long the list is."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from housekeeping_pipelines.postgres.catalog import PgType


def is_one_of(column: sa.ColumnElement[int], ids: list[int]) -> sa.ColumnElement[bool]:
    """Whether a bigint column is one of `ids`."""
    # IN would take a parameter an id, of which the protocol allows 65,535.
    return column == sa.any_(sa.cast(ids, PgType("bigint[]")))


def rows_of(**columns: tuple[str, list[Any]]) -> sa.TableValuedAlias:
    """Lists of the same length as the columns of a table; each is given as its array type and its values."""
    lists = [sa.cast(values, PgType(kind)) for kind, values in columns.values()]
    return sa.func.unnest(*lists).table_valued(*columns).render_derived()
