"""Our own tables, all in the schema `housekeeping` of the platform's database."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

from housekeeping_pipelines.postgres.catalog import OUR_SCHEMA

metadata = sa.MetaData(schema=OUR_SCHEMA)

_timestamp = TIMESTAMP(timezone=True)


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True)


# One mirror table a shape of a table: the columns as they were when the mirror was made.
trash_tables = sa.Table(
    "trash_tables",
    metadata,
    _id(),
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
    _id(),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("deleted_at", _timestamp, nullable=False, index=True),
    sa.Column("contents", JSONB, nullable=False),
)

# References that were cleared because the row they pointed at went.
trash_references = sa.Table(
    "trash_references",
    metadata,
    _id(),
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
    _id(),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("source_schema", sa.Text),
    sa.Column("source_table", sa.Text),
    sa.Column("key", ARRAY(sa.Text), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("until", _timestamp, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", _timestamp, nullable=False),
)

# At most one row: whether everything is paused.
pauses = sa.Table(
    "pauses",
    metadata,
    sa.Column("only_one", sa.Boolean, sa.CheckConstraint("only_one"), primary_key=True, server_default=sa.true()),
    sa.Column("paused_at", _timestamp, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)

statistics_snapshots = sa.Table(
    "statistics_snapshots",
    metadata,
    _id(),
    sa.Column("taken_at", _timestamp, nullable=False, index=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("total_users", sa.BigInteger),
    sa.Column("total_conversations", sa.BigInteger),
    sa.Column("total_messages", sa.BigInteger),
    sa.Column("recent_conversations_24h", sa.BigInteger),
    sa.Column("recent_messages_24h", sa.BigInteger),
)

# What is to leave a store: written with the deletion of the rows that owned it, removed when storage confirmed it.
# `modified` is what the object was when it was chosen; null: whatever it is now.
file_outbox = sa.Table(
    "file_outbox",
    metadata,
    _id(),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("store", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger),
    sa.Column("modified", _timestamp),
    sa.Column("queued_at", _timestamp, nullable=False),
    sa.Column("next_attempt_at", _timestamp, nullable=False, index=True),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("last_error", sa.Text),
)

# Files and objects that can come back: `trash_name` is where the store has it now.
trashed_files = sa.Table(
    "trashed_files",
    metadata,
    _id(),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("store", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("trash_name", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger),
    sa.Column("deleted_at", _timestamp, nullable=False, index=True),
)

# Objects that stay although the row that named them went: their being unnamed makes them no orphans.
kept_files = sa.Table(
    "kept_files",
    metadata,
    sa.Column("store", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("kept_at", _timestamp, nullable=False),
)

# What a sync knows of a watched document, by the key of its queue as text. `content_hash` and `generation` are of what
# is in the vector store and in the file; `fetch_state` is the source's own; `held` is why a person has to look.
watched_documents = sa.Table(
    "watched_documents",
    metadata,
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("content_hash", sa.Text),
    sa.Column("generation", sa.Text),
    sa.Column("published", sa.Text),
    sa.Column("fetch_state", JSONB),
    sa.Column("gone_count", sa.Integer, nullable=False, server_default="0"),
    sa.Column("gone_at", _timestamp),
    sa.Column("last_error", sa.Text),
    sa.Column("held", JSONB),
    sa.Column("accepted_hash", sa.Text),
    sa.Column("rejected_hash", sa.Text),
)
