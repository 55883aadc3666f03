"""Our own tables, all in the schema `housekeeping` of the platform's database."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from housekeeping_pipelines.postgres.schema import TIMESTAMPTZ, identity_column, metadata

# One mirror table a shape of a table: the columns as they were when the mirror was made.
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

# References that were cleared because the row they pointed at went.
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

# At most one row: whether everything is paused.
pauses = sa.Table(
    "pauses",
    metadata,
    sa.Column("only_one", sa.Boolean, sa.CheckConstraint("only_one"), primary_key=True, server_default=sa.true()),
    sa.Column("paused_at", TIMESTAMPTZ, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)


# What is to leave a store: written with the deletion of the rows that owned it, removed when storage confirmed it.
# `modified` is what the object was when it was chosen; null: whatever it is now.
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
)

# Files and objects that can come back: `trash_name` is where the store has it now.
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
)

# Objects that stay although the row that named them went: their being unnamed makes them no orphans.
kept_files = sa.Table(
    "kept_files",
    metadata,
    sa.Column("store", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("kept_at", TIMESTAMPTZ, nullable=False),
)
