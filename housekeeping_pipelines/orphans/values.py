"""The references that matched no file by their key: each is read in every way, and matched again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.orphans import cursors, listing
from housekeeping_pipelines.orphans.candidates import ORPHANS, YOUNG
from housekeeping_pipelines.orphans.listing import copied_text
from housekeeping_pipelines.orphans.unmatched import LISTING, UNMATCHED, plan_for_temporary_tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from housekeeping_pipelines.stores.references import ReferenceSource

MAX_MISSING_SAMPLE = 50

# Values read at a time.
READ_BATCH_SIZE = 5_000

_text = sa.Text(collation="C")

# Different values, and how many rows have each; `plain` ones are paths with nothing to decode.
VALUES = sa.Table(
    "housekeeping_values",
    sa.MetaData(),
    sa.Column("number", sa.BigInteger),
    sa.Column("source", sa.Integer),
    sa.Column("value", _text),
    sa.Column("rows", sa.BigInteger),
    sa.Column("certain", sa.Boolean),
    sa.Column("key", _text),
    prefixes=["TEMPORARY"],
)
# The names that a value may mean; see `stores.readings` for which count.
READINGS = sa.Table(
    "housekeeping_readings",
    sa.MetaData(),
    sa.Column("number", sa.BigInteger),
    sa.Column("tier", sa.Integer),
    sa.Column("chain", sa.Integer),
    sa.Column("rank", sa.Integer),
    sa.Column("name", _text),
    prefixes=["TEMPORARY"],
)
# Which file a value means.
NAMED = sa.Table(
    "housekeeping_named",
    sa.MetaData(),
    sa.Column("number", sa.BigInteger),
    sa.Column("name", _text),
    prefixes=["TEMPORARY"],
)
TABLES = (VALUES, READINGS, NAMED)

# The chain of readings that are exact: each counts.
_EXACT = 0
# The rank of a name that is the value as it stands.
_LITERAL = -1


@dataclass(frozen=True)
class Missing:
    """Values of one source that mean no file of the store; `rows` counts the rows that have them."""

    rows: int = 0
    values: int = 0
    sample: tuple[str, ...] = ()


def read_unmatched(connection: sa.Connection, sources: Sequence[ReferenceSource]) -> None:
    """Find the files that unmatched values mean, and strike them from all tables of unmatched files."""
    with connection.begin():
        plan_for_temporary_tables(connection)
        _collect(connection)
        if not connection.scalar(sa.select(sa.exists().select_from(VALUES))):
            return
        _read_suffixes(connection)
    _read_values(connection, sources)
    with connection.begin():
        plan_for_temporary_tables(connection)
        if connection.scalar(sa.select(sa.exists().select_from(READINGS))):
            _match_readings(connection)
        named = sa.select(NAMED.c.name)
        for table in (ORPHANS, YOUNG):
            connection.execute(sa.delete(table).where(table.c.name.in_(named)))
        connection.execute(sa.delete(UNMATCHED).where(UNMATCHED.c.stored, UNMATCHED.c.name.in_(named)))


def missing(connection: sa.Connection, sources: Sequence[ReferenceSource], prefix: str) -> dict[int, Missing]:
    """By source, the values that mean no file; of those outside the prefix nothing is known."""
    found = sa.select(sa.literal(1)).where(NAMED.c.number == VALUES.c.number).exists()
    guarded = [index for index, source in enumerate(sources) if source.guarded]
    unnamed = sa.select(VALUES.c.source, VALUES.c.value, VALUES.c.rows).where(
        sa.not_(found), VALUES.c.source.in_(guarded)
    )
    if prefix:
        unnamed = unnamed.where(sa.func.starts_with(VALUES.c.key, prefix))
    values = unnamed.subquery()
    counts = sa.select(values.c.source, sa.func.sum(values.c.rows), sa.func.count()).group_by(values.c.source)
    result: dict[int, Missing] = {}
    for source, rows, count in connection.execute(counts).all():
        sample = sa.select(values.c.value).where(values.c.source == source).order_by(values.c.value)
        shown = connection.scalars(sample.limit(MAX_MISSING_SAMPLE))
        result[source] = Missing(int(rows), count, tuple(shown))
    return result


def _collect(connection: sa.Connection) -> None:
    value = sa.func.coalesce(UNMATCHED.c.value, UNMATCHED.c.name).label("value")
    columns = [UNMATCHED.c.source, value, UNMATCHED.c.certain, UNMATCHED.c.name.label("key")]
    different = (
        sa.select(sa.func.row_number().over(), *columns, sa.func.count())
        .where(sa.not_(UNMATCHED.c.stored))
        .group_by(UNMATCHED.c.source, value, UNMATCHED.c.certain, UNMATCHED.c.name)
    )
    connection.execute(
        sa.insert(VALUES).from_select(["number", "source", "value", "certain", "key", "rows"], different)
    )


def _read_suffixes(connection: sa.Connection) -> None:
    """The suffixes of plain paths, which may begin at another root: the longest that the store has is meant."""
    parts = sa.func.string_to_array(VALUES.c.key, "/", type_=ARRAY(sa.Text))
    depth = sa.func.cardinality(parts)
    starts = sa.func.generate_series(2, depth).table_valued("start", name="starts").render_derived()
    first_chain = sa.literal(_EXACT + 1, sa.Integer)
    suffix = sa.func.array_to_string(parts[starts.c.start : depth], "/")
    suffixes = (
        sa.select(VALUES.c.number, sa.literal(0, sa.Integer), first_chain, starts.c.start, suffix)
        .select_from(VALUES.join(starts, sa.true()))
        .where(sa.not_(VALUES.c.certain), VALUES.c.key.is_not(None))
    )
    connection.execute(sa.insert(READINGS).from_select(list(READINGS.c.keys()), suffixes))


def _read_values(connection: sa.Connection, sources: Sequence[ReferenceSource]) -> None:
    to_be_read = sa.select(VALUES.c.number, VALUES.c.source, VALUES.c.value).where(VALUES.c.key.is_(None))
    for rows in cursors.held_cursor(connection, to_be_read, READ_BATCH_SIZE):
        with listing.copying(connection, READINGS, list(READINGS.c.keys())) as write:
            lines = (line for number, source, value in rows for line in _lines(number, sources[source], value))
            write("".join(lines).encode())


def _lines(number: int, source: ReferenceSource, value: str) -> Iterator[str]:
    for tier, reading in enumerate(source.read(value)):
        for name in reading.exact:
            rank = _LITERAL if name in reading.literal else 0
            yield f"{number}\t{tier}\t{_EXACT}\t{rank}\t{copied_text(name)}\n"
        for chain, names in enumerate(reading.chains, start=_EXACT + 1):
            for rank, name in enumerate(names):
                yield f"{number}\t{tier}\t{chain}\t{rank}\t{copied_text(name)}\n"


def _match_readings(connection: sa.Connection) -> None:
    forms: sa.SelectBase = sa.select(LISTING.c.name, LISTING.c.name.label("canonical"))
    if connection.scalar(sa.select(sa.exists().where(_is_not_ascii(READINGS.c.name)))):
        composed = sa.func.normalize(LISTING.c.name)
        respelled = sa.select(LISTING.c.name, composed).where(_is_not_ascii(LISTING.c.name), composed != LISTING.c.name)
        forms = sa.union_all(forms, respelled)
    in_store = forms.subquery()
    found = (
        sa.select(READINGS.c.number, READINGS.c.tier, READINGS.c.chain, READINGS.c.rank, in_store.c.name)
        .join(in_store, in_store.c.canonical == READINGS.c.name)
        .subquery()
    )
    literal = sa.case((found.c.rank == _LITERAL, found.c.tier))
    last = sa.func.min(literal).over(partition_by=found.c.number)
    first = sa.func.min(found.c.rank).over(partition_by=(found.c.number, found.c.tier, found.c.chain))
    ranked = sa.select(found, last.label("last"), first.label("first")).subquery()
    meant = sa.select(ranked.c.number, ranked.c.name).where(
        ranked.c.tier <= sa.func.coalesce(ranked.c.last, ranked.c.tier),
        sa.or_(ranked.c.chain == _EXACT, ranked.c.rank == ranked.c.first),
    )
    connection.execute(sa.insert(NAMED).from_select(["number", "name"], meant.distinct()))


def _is_not_ascii(text: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    # In a database of one byte a character, which cannot normalise, this is false.
    return sa.func.octet_length(text) != sa.func.char_length(text)
