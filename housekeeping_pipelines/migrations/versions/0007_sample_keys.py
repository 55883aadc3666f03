"""The keys of the rows that the demo made, so that it drops no table with others."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

SCHEMA = "housekeeping"


def upgrade() -> None:
    op.create_table(
        "sample_keys",
        sa.Column("source_table", sa.Text, nullable=False),
        sa.Column("key", sa.BigInteger, nullable=False),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("sample_keys", schema=SCHEMA)
