"""What a sync knows of each watched document."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from housekeeping_pipelines.postgres.schema import TIMESTAMPTZ, metadata

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
    sa.Column("gone_at", TIMESTAMPTZ),
    sa.Column("last_error", sa.Text),
    sa.Column("held", JSONB),
    sa.Column("accepted_hash", sa.Text),
    sa.Column("rejected_hash", sa.Text),
)
