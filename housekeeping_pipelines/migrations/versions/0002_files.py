"""The outbox of files, their trash, and the circuit breakers of storage."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0002"
down_revision = "0001"

SCHEMA = "housekeeping"


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True)


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "file_outbox",
        _id(),
        _text("run_id"),
        _text("task"),
        _text("store"),
        _text("name"),
        sa.Column("bytes", sa.BigInteger),
        _time("modified", nullable=True),
        _time("queued_at"),
        _time("next_attempt_at"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        _text("last_error", nullable=True),
        schema=SCHEMA,
    )
    op.create_index("ix_housekeeping_file_outbox_run_id", "file_outbox", ["run_id"], schema=SCHEMA)
    op.create_index("ix_housekeeping_file_outbox_next_attempt_at", "file_outbox", ["next_attempt_at"], schema=SCHEMA)
    op.create_table(
        "trashed_files",
        _id(),
        _text("run_id"),
        _text("task"),
        _text("store"),
        _text("name"),
        _text("trash_name"),
        sa.Column("bytes", sa.BigInteger),
        _time("deleted_at"),
        schema=SCHEMA,
    )
    op.create_index("ix_housekeeping_trashed_files_run_id", "trashed_files", ["run_id"], schema=SCHEMA)
    op.create_index("ix_housekeeping_trashed_files_deleted_at", "trashed_files", ["deleted_at"], schema=SCHEMA)
    op.create_table(
        "kept_files",
        sa.Column("store", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        _text("run_id"),
        _time("kept_at"),
        schema=SCHEMA,
    )
    op.create_table(
        "circuit_breakers",
        sa.Column("name", sa.Text, primary_key=True),
        _text("state"),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("successes", sa.Integer, nullable=False, server_default="0"),
        _time("opened_at", nullable=True),
        schema=SCHEMA,
    )


def downgrade() -> None:
    raise RuntimeError("the files in the trash would be lost: restore or purge them, and drop the tables by hand")
