"""Where an object of the outbox is moved, so that an interrupted move can be continued by both of its names."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

SCHEMA = "housekeeping"


def upgrade() -> None:
    op.add_column("file_outbox", sa.Column("trash_name", sa.Text), schema=SCHEMA)
    for table in ("file_outbox", "trashed_files"):
        # A path may be longer than an entry of a B-tree.
        op.create_index(f"ix_{table}_trash_name", table, ["trash_name"], schema=SCHEMA, postgresql_using="hash")


def downgrade() -> None:
    for table in ("file_outbox", "trashed_files"):
        op.drop_index(f"ix_{table}_trash_name", table_name=table, schema=SCHEMA)
    op.drop_column("file_outbox", "trash_name", schema=SCHEMA)
