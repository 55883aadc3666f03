"""Rows by their keys, for keys of any type and any number of columns.

Keys travel as text, which every type of PostgreSQL reads back as it wrote it: a Python value would lose some (an
infinite timestamp has none). `postgres.engine` fixes the session's settings that change how text looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa

from housekeeping_pipelines.foreign_text import shown
from housekeeping_pipelines.postgres.catalog import PgType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from housekeeping_pipelines.postgres.catalog import Comparison, Table

# What of a key is shown; it may be of any length.
MAX_KEY = 200

Key: TypeAlias = tuple[str, ...]
Values: TypeAlias = tuple[str | None, ...]


def text_of(table: Table, columns: Sequence[str]) -> list[sa.ColumnElement[str]]:
    """The columns as text."""
    return [sa.cast(table.selectable.c[name], sa.Text) for name in columns]


@dataclass(frozen=True)
class KeyedColumns:
    """The key of a table's rows and other columns of them, read as text by one statement."""

    table: Table
    columns: tuple[str, ...]

    @property
    def selected(self) -> list[sa.ColumnElement[str]]:
        """What to select: the key, then the columns, unless they are the key itself."""
        key = self.table.key
        return text_of(self.table, key if self.columns == key else (*key, *self.columns))

    @cached_property
    def _width(self) -> int:
        return len(self.table.key)

    def split(self, row: Sequence[Any]) -> tuple[Key, Values]:
        """A row as it was selected, as its key and the values of the columns."""
        key = tuple(row[: self._width])
        return key, tuple(row[self._width :]) or key


def matches(
    table: Table,
    columns: Sequence[str],
    keys: Iterable[Key],
    types: Sequence[str] | None = None,
    comparisons: Sequence[Comparison] = (),
) -> sa.ColumnElement[bool]:
    """The rows of `table` whose `columns` are one of `keys`.

    Args:
        types: the types of the keys, where they differ from the columns' (a referring column may be narrower).
        comparisons: how each column is compared; none: by `=`.
    """
    names = types or [table.type_of(name) for name in columns]
    values = list(keys)
    if len(columns) == 1 and not names[0].endswith("]"):
        array = sa.cast(_array([value for (value,) in values]), PgType(f"{names[0]}[]"))
        column = table.selectable.c[columns[0]]
        return comparisons[0].compare(column, sa.any_(array)) if comparisons else column == sa.any_(array)
    lists = [sa.cast(_array([value[i] for value in values]), PgType("text[]")) for i in range(len(columns))]
    names_of_fields = [f"k{i}" for i in range(len(columns))]
    given = sa.func.unnest(*lists).table_valued(*names_of_fields).render_derived()
    wanted: list[sa.ColumnElement[Any]] = [sa.cast(given.c[f"k{i}"], PgType(name)) for i, name in enumerate(names)]
    own = [table.selectable.c[name] for name in columns]
    if comparisons:
        pairs = zip(comparisons, own, wanted, strict=True)
        same = (comparison.compare(column, value) for comparison, column, value in pairs)
        return sa.select(sa.literal(1)).select_from(given).where(*same).correlate(table.selectable).exists()
    return sa.tuple_(*own).in_(sa.select(*wanted).select_from(given))


def _array(values: Sequence[str]) -> str:
    """The values as an array literal of PostgreSQL: the driver would take ten times as long to adapt each of them."""
    # A text of PostgreSQL cannot hold NUL, so NUL can separate the values while all of them are escaped at once.
    joined = "\0".join(values).replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return f'{{"{joined}"}}' if values else "{}"


def item_name(table: Table, key: Key) -> str:
    """A row's name in messages: `conversations/42`."""
    return f"{table.label}/{shown(','.join(key), limit=MAX_KEY)}"
