"""One schema and one metadata for all our tables, so that Alembic sees them together; each package adds its own."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP

OUR_SCHEMA = "housekeeping"

metadata = sa.MetaData(schema=OUR_SCHEMA)

TIMESTAMPTZ = TIMESTAMP(timezone=True)


def identity_column() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True)
