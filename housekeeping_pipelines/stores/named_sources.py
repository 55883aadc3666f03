"""Which columns have ever named files of a store: one that did and is empty now may have been lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from housekeeping_pipelines.postgres.schema import TIMESTAMPTZ, metadata

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from housekeeping_pipelines.deletion.guards import SourceCount

named_sources = sa.Table(
    "named_sources",
    metadata,
    sa.Column("store", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("named_at", TIMESTAMPTZ, nullable=False),
)


def read(connection: sa.Connection, store: str) -> dict[str, datetime]:
    """By the label of each source that named files of the store, when it last did."""
    statement = sa.select(named_sources.c.source, named_sources.c.named_at).where(named_sources.c.store == store)
    return {row.source: row.named_at for row in connection.execute(statement)}


def record(connection: sa.Connection, store: str, sources: Sequence[SourceCount], now: datetime) -> None:
    """Remember the sources that name files now; one that is empty, as a run was allowed to find it, is forgotten."""
    named = [{"store": store, "source": each.label, "named_at": now} for each in sources if each.named]
    if named:
        insert = pg.insert(named_sources)
        latest = {"named_at": insert.excluded.named_at}
        connection.execute(insert.on_conflict_do_update(index_elements=["store", "source"], set_=latest), named)
    emptied = [each.label for each in sources if not each.values]
    forgotten = sa.and_(named_sources.c.store == store, named_sources.c.source.in_(emptied))
    connection.execute(sa.delete(named_sources).where(forgotten))
