"""The schema of our own tables; each capability describes its tables in a module of its own."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP

OUR_SCHEMA = "housekeeping"


metadata = sa.MetaData(schema=OUR_SCHEMA)


TIMESTAMPTZ = TIMESTAMP(timezone=True)


def identity_column() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True)
