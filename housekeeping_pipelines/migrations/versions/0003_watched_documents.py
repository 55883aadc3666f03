"""What a sync knows of each watched document."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision = "0003"
down_revision = "0002"

SCHEMA = "housekeeping"


def upgrade() -> None:
    op.create_table(
        "watched_documents",
        sa.Column("queue", sa.Text, primary_key=True),
        sa.Column("content_hash", sa.Text),
        sa.Column("generation", sa.Text),
        sa.Column("published", sa.Text),
        sa.Column("fetch_state", JSONB),
        sa.Column("gone_count", sa.Integer, nullable=False, server_default="0"),
        sa.Column("gone_at", TIMESTAMP(timezone=True)),
        sa.Column("last_error", sa.Text),
        sa.Column("held", JSONB),
        sa.Column("accepted_hash", sa.Text),
        sa.Column("rejected_hash", sa.Text),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("watched_documents", schema=SCHEMA)
