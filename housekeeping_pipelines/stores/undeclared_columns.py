"""Columns of the live database that look as if they named files of a store, and are not declared."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from housekeeping_pipelines.postgres.schema import OUR_SCHEMA
from housekeeping_pipelines.stores.columns import shapes
from housekeeping_pipelines.stores.references import ReferenceSource

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from housekeeping_pipelines.postgres.catalog import Catalog, Table
    from housekeeping_pipelines.stores.references import Shape
    from housekeeping_pipelines.stores.uses import PlatformUses

# Values of a column that are looked at, among so many rows; longer ones are texts, not names.
SAMPLED, SAMPLED_ROWS, LONGEST = 20, 1000, 1000
# From this share of them on, a column looks as if it named files.
SHARE = 0.25
# A database with more is not gone through to its end.
MAX_COLUMNS = 2000
COLUMNS_A_QUERY = 50

_READABLE = sa.text(
    """
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', :ours) AND n.nspname NOT LIKE 'pg\\_t%'
      AND has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid)
    ORDER BY n.nspname, c.relname
    """
).bindparams(ours=OUR_SCHEMA)


class TextColumn(NamedTuple):
    """A column that can hold names of files."""

    table: Table
    column: str
    shape: Shape


class LooksLikeReference(NamedTuple):
    """A column of which some sampled values name files of the store."""

    table: str
    column: str
    named: int
    sampled: int
    example: str


def text_columns(connection: sa.Connection, catalog: Catalog) -> list[TextColumn]:
    """The columns that can hold names, of the tables that the role may read; up to `MAX_COLUMNS`."""
    oids = connection.scalars(_READABLE).all()
    tables = (catalog.table(oid) for oid in oids)
    found = (TextColumn(each, name, shape) for each in tables for name, shape in shapes(connection, each).items())
    return list(itertools.islice(found, MAX_COLUMNS))


def undeclared_columns(
    connection: sa.Connection,
    columns: Sequence[TextColumn],
    uses: PlatformUses,
    declared: Collection[str],
    stored: Callable[[Collection[str]], set[str]],
) -> list[LooksLikeReference]:
    """Sample the text columns that are not `declared`, by their labels, and look up what they name in the store.

    Args:
        stored: returns those of some names that the store has; it is asked once.
    """
    sampled: list[tuple[Table, ReferenceSource, list[str]]] = []
    sources = (
        (table, ReferenceSource.of(table, column, naming=uses.naming, shape=shape)) for table, column, shape in columns
    )
    others = ((table, source) for table, source in sources if source.label not in declared)
    while batch := list(itertools.islice(others, COLUMNS_A_QUERY)):
        for index, values in _sample(connection, [source for _, source in batch]).items():
            sampled.append((*batch[index], values))
    asked = {
        name
        for _, source, values in sampled
        for value in values
        for reading in source.read(value)
        for name in reading.names()
    }
    there = stored(asked) if asked else set()
    found: list[LooksLikeReference] = []
    for table, source, values in sampled:
        naming = [v for v in values if any(r.meant(there) for r in source.read(v))] if there else []
        if naming and len(naming) >= SHARE * len(values):
            found.append(LooksLikeReference(table.label, source.column, len(naming), len(values), naming[0]))
    return found


def _sample(connection: sa.Connection, sources: list[ReferenceSource]) -> dict[int, list[str]]:
    """Some different values of each, by its index; of those that have any."""
    parts = []
    for index, source in enumerate(sources):
        some = sa.select(source.rows.c[source.column]).select_from(source.rows).limit(SAMPLED_ROWS).subquery()
        value = source.elsewhere(some, source.label).values().c.value
        # A name has a folder or an extension; a word may be the name of a file by chance.
        looks = sa.and_(sa.func.length(value) <= LONGEST, value.regexp_match(r"[./\\%]"))
        part = sa.select(sa.literal(index).label("source"), value.label("value")).where(looks).distinct().limit(SAMPLED)
        parts.append(sa.select(part.subquery()))
    found: dict[int, list[str]] = {}
    for row in connection.execute(sa.union_all(*parts)):
        found.setdefault(row.source, []).append(row.value)
    return found
