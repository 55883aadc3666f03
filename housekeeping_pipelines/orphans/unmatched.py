"""The SQL of the search: a full join of the listing and the references, less what matches."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from housekeeping_pipelines.orphans.listing import temporary_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from housekeeping_pipelines.orphans.listing import Kind

LISTING = temporary_table("housekeeping_listing")
# The unmatched rows of both sides, except files that may be deleted; `stored` is false for a reference without a file,
# whose `name` is null where its value has no key.
UNMATCHED = temporary_table(
    "housekeeping_unmatched",
    sa.Column("recognised", sa.Boolean),
    sa.Column("stored", sa.Boolean),
    sa.Column("source", sa.Integer),
    sa.Column("value", sa.Text(collation="C")),
    sa.Column("certain", sa.Boolean),
)


@contextmanager
def snapshot(connection: sa.Connection) -> Iterator[None]:
    """One snapshot of all references; a read-only transaction may still write temporary tables."""
    with connection.begin():
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        plan_for_temporary_tables(connection)
        yield


def plan_for_temporary_tables(connection: sa.Connection) -> None:
    """Choose plans for tables of which the planner has no statistics, until the transaction ends."""
    # It would sort both sides of a join, and compile with JIT.
    connection.exec_driver_sql("SET LOCAL enable_mergejoin = off; SET LOCAL jit = off")
    # Hash batches that fit the processor's cache are twice as fast as one hash table in memory.
    connection.exec_driver_sql("SET LOCAL work_mem = '2MB'; SET LOCAL hash_mem_multiplier = 1")


def match(keys: sa.CompoundSelect[Any], kind: Kind) -> sa.Select[Any]:
    """Match the listing against the references' keys, in both directions at once.

    The statement yields the files that may be deleted (name, size, modified) as it finds them, and writes the other
    unmatched rows to UNMATCHED.
    """
    files, references = LISTING.alias("files"), keys.subquery("references")
    has_file, has_row = files.c.name.is_not(None), references.c.source.is_not(None)
    # A value that is not certain may mean a file below the prefix although its key is not.
    within = sa.or_(sa.not_(references.c.certain), sa.func.starts_with(references.c.key, kind.prefix))
    unmatched = (
        sa.select(
            sa.func.coalesce(files.c.name, references.c.key).label("name"),
            files.c.size,
            files.c.modified,
            kind.matches(files.c.name).label("recognised"),
            has_file.label("stored"),
            references.c.source,
            references.c.value,
            references.c.certain,
        )
        .select_from(files.join(references, files.c.name == references.c.key, full=True))
        .where(has_file != has_row, sa.or_(has_file, within))
        .cte("unmatched")
    )
    may_go = sa.and_(unmatched.c.stored, unmatched.c.recognised)
    columns = list(UNMATCHED.c.keys())
    rest = sa.insert(UNMATCHED).from_select(
        columns, sa.select(*(unmatched.c[name] for name in columns)).where(sa.not_(may_go))
    )
    return sa.select(unmatched.c.name, unmatched.c.size, unmatched.c.modified).where(may_go).add_cte(rest.cte("rest"))


def count_on_volumes(connection: sa.Connection, kind: Kind, volumes: Sequence[str]) -> dict[str, int]:
    """How many of the listed files are on each of the volumes, and of a kind that may be deleted."""
    if not volumes:
        return {}
    counts = [sa.func.count().filter(sa.func.starts_with(LISTING.c.name, volume)) for volume in volumes]
    found = connection.execute(sa.select(*counts).where(kind.matches(LISTING.c.name))).one()
    return dict(zip(volumes, found, strict=True))


def count_unrecognised(connection: sa.Connection) -> int:
    """How many unmatched files are of a kind that may not be deleted."""
    statement = sa.select(sa.func.count()).select_from(UNMATCHED).where(UNMATCHED.c.stored)
    return connection.scalar(statement) or 0
