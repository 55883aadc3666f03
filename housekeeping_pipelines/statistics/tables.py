"""The snapshots of the counters."""

from __future__ import annotations

import sqlalchemy as sa

from housekeeping_pipelines.postgres.schema import TIMESTAMPTZ, identity_column, metadata

statistics_snapshots = sa.Table(
    "statistics_snapshots",
    metadata,
    identity_column(),
    sa.Column("taken_at", TIMESTAMPTZ, nullable=False, index=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("total_users", sa.BigInteger),
    sa.Column("total_conversations", sa.BigInteger),
    sa.Column("total_messages", sa.BigInteger),
    sa.Column("recent_conversations_24h", sa.BigInteger),
    sa.Column("recent_messages_24h", sa.BigInteger),
)
