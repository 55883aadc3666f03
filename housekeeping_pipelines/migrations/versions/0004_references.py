"""Which columns have named files of a store, and entries of the outbox whose object is not known yet."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0004"
down_revision = "0003"

SCHEMA = "housekeeping"


def upgrade() -> None:
    op.create_table(
        "named_sources",
        sa.Column("store", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("named_at", TIMESTAMP(timezone=True), nullable=False),
        schema=SCHEMA,
    )
    op.add_column(
        "file_outbox",
        sa.Column("unresolved", sa.Boolean, nullable=False, server_default=sa.false()),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_column("file_outbox", "unresolved", schema=SCHEMA)
    op.drop_table("named_sources", schema=SCHEMA)
