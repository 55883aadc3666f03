"""The trash, holds, the kill switch and statistics."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

revision = "0001"
down_revision = None

SCHEMA = "housekeeping"


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True)


def _time(name: str) -> sa.Column[object]:
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=False)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _texts(name: str) -> sa.Column[list[str]]:
    return sa.Column(name, ARRAY(sa.Text), nullable=False)


def upgrade() -> None:
    op.create_table(
        "trash_tables",
        _id(),
        sa.Column("mirror", sa.Text, nullable=False, unique=True),
        _text("source_schema"),
        _text("source_table"),
        sa.Column("columns", JSONB, nullable=False),
        _texts("key"),
        schema=SCHEMA,
    )
    op.create_table(
        "trash_batches",
        _id(),
        _text("run_id"),
        _text("task"),
        _time("deleted_at"),
        sa.Column("contents", JSONB, nullable=False),
        schema=SCHEMA,
    )
    op.create_index("ix_housekeeping_trash_batches_run_id", "trash_batches", ["run_id"], schema=SCHEMA)
    op.create_index("ix_housekeeping_trash_batches_deleted_at", "trash_batches", ["deleted_at"], schema=SCHEMA)
    op.create_table(
        "trash_references",
        _id(),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        _text("source_schema"),
        _text("source_table"),
        _texts("key_columns"),
        _texts("key"),
        _texts("columns"),
        _texts("was"),
        _texts("became"),
        schema=SCHEMA,
    )
    op.create_index("ix_housekeeping_trash_references_batch_id", "trash_references", ["batch_id"], schema=SCHEMA)
    op.create_table(
        "holds",
        _id(),
        _text("type"),
        _text("source_schema", nullable=True),
        _text("source_table", nullable=True),
        _texts("key"),
        _text("subject"),
        _time("until"),
        _text("reason"),
        _time("created_at"),
        schema=SCHEMA,
    )
    op.create_table(
        "pauses",
        sa.Column("only_one", sa.Boolean, sa.CheckConstraint("only_one"), primary_key=True, server_default=sa.true()),
        _time("paused_at"),
        _text("reason"),
        schema=SCHEMA,
    )
    op.create_table(
        "statistics_snapshots",
        _id(),
        _time("taken_at"),
        _text("run_id"),
        *(
            sa.Column(name, sa.BigInteger)
            for name in (
                "total_users",
                "total_conversations",
                "total_messages",
                "recent_conversations_24h",
                "recent_messages_24h",
            )
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_housekeeping_statistics_snapshots_taken_at", "statistics_snapshots", ["taken_at"], schema=SCHEMA
    )


def downgrade() -> None:
    raise RuntimeError("the trash would be lost: drop the schema housekeeping by hand if that is meant")
