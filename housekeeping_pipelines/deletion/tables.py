"""The tables of deletion in our schema: the trash, holds, the pause, the outbox and the trash of files."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from housekeeping_pipelines.postgres.schema import TIMESTAMPTZ, identity_column, metadata

# One row a mirror, which has one shape of a table: the columns as they were when the mirror was created.
trash_tables = sa.Table(
    "trash_tables",
    metadata,
    identity_column(),
    sa.Column("mirror", sa.Text, nullable=False, unique=True),
    sa.Column("source_schema", sa.Text, nullable=False),
    sa.Column("source_table", sa.Text, nullable=False),
    sa.Column("columns", JSONB, nullable=False),
    sa.Column("key", ARRAY(sa.Text), nullable=False),
)

# One row a transaction that deleted something; `contents` is [[trash_tables.id, rows], ...] in the order of deletion.
trash_batches = sa.Table(
    "trash_batches",
    metadata,
    identity_column(),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("deleted_at", TIMESTAMPTZ, nullable=False, index=True),
    sa.Column("contents", JSONB, nullable=False),
)

# References that were cleared because the row that they referred to was deleted.
trash_references = sa.Table(
    "trash_references",
    metadata,
    identity_column(),
    sa.Column("batch_id", sa.BigInteger, nullable=False, index=True),
    sa.Column("source_schema", sa.Text, nullable=False),
    sa.Column("source_table", sa.Text, nullable=False),
    sa.Column("key_columns", ARRAY(sa.Text), nullable=False),
    sa.Column("key", ARRAY(sa.Text), nullable=False),
    sa.Column("columns", ARRAY(sa.Text), nullable=False),
    sa.Column("was", ARRAY(sa.Text), nullable=False),
    sa.Column("became", ARRAY(sa.Text), nullable=False),
)

holds = sa.Table(
    "holds",
    metadata,
    identity_column(),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("source_schema", sa.Text),
    sa.Column("source_table", sa.Text),
    sa.Column("key", ARRAY(sa.Text), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("until", TIMESTAMPTZ, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", TIMESTAMPTZ, nullable=False),
)

# At most one row, while deleting runs are paused.
pauses = sa.Table(
    "pauses",
    metadata,
    sa.Column("only_one", sa.Boolean, sa.CheckConstraint("only_one"), primary_key=True, server_default=sa.true()),
    sa.Column("paused_at", TIMESTAMPTZ, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)

# Objects to remove from a store: written with the deletion of the rows that own them, deleted when storage has
# confirmed the removal. `modified` is that of the object when it was chosen; null: remove it whatever it is now.
# While `unresolved`, `name` is the value of a row, and the object that it means is not known yet. From before the
# object is moved, `trash_name` is where it goes; null if it is removed for good.
file_outbox = sa.Table(
    "file_outbox",
    metadata,
    identity_column(),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("store", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger),
    sa.Column("modified", TIMESTAMPTZ),
    sa.Column("queued_at", TIMESTAMPTZ, nullable=False),
    sa.Column("next_attempt_at", TIMESTAMPTZ, nullable=False, index=True),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("last_error", sa.Text),
    sa.Column("unresolved", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("trash_name", sa.Text),
    sa.Index(None, "trash_name", postgresql_using="hash"),
)

# Files and objects that can be restored: `trash_name` is where they are in the store now.
trashed_files = sa.Table(
    "trashed_files",
    metadata,
    identity_column(),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("store", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("trash_name", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger),
    sa.Column("deleted_at", TIMESTAMPTZ, nullable=False, index=True),
    sa.Index(None, "trash_name", postgresql_using="hash"),
)

# Objects that stay although the rows that named them were deleted: they are not orphans. `name` is the row's value.
kept_files = sa.Table(
    "kept_files",
    metadata,
    sa.Column("store", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("kept_at", TIMESTAMPTZ, nullable=False),
)
