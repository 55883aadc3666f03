"""The table of what syncs store about each watched document."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from housekeeping_pipelines.postgres.schema import TIMESTAMPTZ, metadata

# One row per queue entry, by its key as text. `content_hash` and `generation` are of the text in the vector store and
# in the file; `fetch_state` belongs to the source; `held` is why the document must be reviewed.
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
