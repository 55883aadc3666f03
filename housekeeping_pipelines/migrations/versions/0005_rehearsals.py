"""When each task's plan was last rehearsed, and on which catalog."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0005"
down_revision = "0004"

SCHEMA = "housekeeping"


def upgrade() -> None:
    op.create_table(
        "rehearsals",
        sa.Column("task", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("rehearsed_at", TIMESTAMP(timezone=True), nullable=False),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("rehearsals", schema=SCHEMA)
