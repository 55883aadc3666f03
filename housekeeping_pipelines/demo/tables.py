"""The table of the demo in our schema."""

from __future__ import annotations

import sqlalchemy as sa

from housekeeping_pipelines.postgres.schema import metadata

# A hash of the key of each row that the demo made.
sample_keys = sa.Table(
    "sample_keys",
    metadata,
    sa.Column("source_table", sa.Text, nullable=False),
    sa.Column("key", sa.BigInteger, nullable=False),
)
