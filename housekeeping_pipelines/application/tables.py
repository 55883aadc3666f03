"""The platform's tables under their default names, with only the columns that a task needs.

Nothing here is ever created in a user's database: the sample data uses these definitions, and the mapping resolves
each of these names to what the live database has. Keys that a live database does not declare are followed as
declared here.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

metadata = sa.MetaData()

_timestamp = TIMESTAMP(timezone=True)


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True)


def _created_at() -> sa.Column[object]:
    return sa.Column("created_at", _timestamp, nullable=False, server_default=sa.func.now())


users = sa.Table(
    "users",
    metadata,
    _id(),
    sa.Column("username", sa.Text, nullable=False, unique=True),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("is_staff", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("is_superuser", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("email_verified_at", _timestamp),
    sa.Column("date_joined", _timestamp, nullable=False, server_default=sa.func.now()),
    sa.Column("last_login", _timestamp),
)

conversations = sa.Table(
    "conversations",
    metadata,
    _id(),
    sa.Column("user_id", sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("title", sa.Text, nullable=False, server_default=""),
    _created_at(),
    sa.Column("updated_at", _timestamp, nullable=False, server_default=sa.func.now()),
    sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()),
)

chat_messages = sa.Table(
    "chat_messages",
    metadata,
    _id(),
    sa.Column("conversation_id", sa.ForeignKey("conversations.id"), index=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    _created_at(),
)

workspaces = sa.Table(
    "workspaces",
    metadata,
    _id(),
    sa.Column("slug", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
)

documents = sa.Table(
    "documents",
    metadata,
    _id(),
    sa.Column("doc_id", sa.Text, nullable=False, unique=True),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("docpath", sa.Text, nullable=False),
    sa.Column("workspace_id", sa.ForeignKey("workspaces.id"), nullable=False, index=True),
    sa.Column("metadata", JSONB),
    sa.Column("watched", sa.Boolean, nullable=False, server_default=sa.false()),
    _created_at(),
)

document_sync_queues = sa.Table(
    "document_sync_queues",
    metadata,
    _id(),
    sa.Column("document_id", sa.ForeignKey("documents.id", ondelete="CASCADE"), nullable=False, unique=True),
    sa.Column("stale_after_ms", sa.BigInteger, nullable=False, server_default="604800000"),
    sa.Column("next_sync_at", _timestamp, nullable=False, index=True),
    sa.Column("last_synced_at", _timestamp),
    sa.Column("consecutive_failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("state", sa.Text, nullable=False, server_default="active"),
    _created_at(),
)

document_sync_runs = sa.Table(
    "document_sync_runs",
    metadata,
    _id(),
    sa.Column("queue_id", sa.ForeignKey("document_sync_queues.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("status", sa.Text, nullable=False, server_default="unknown"),
    sa.Column("result", JSONB),
    _created_at(),
)

parsed_files = sa.Table(
    "parsed_files",
    metadata,
    _id(),
    sa.Column("filename", sa.Text, nullable=False, unique=True),
    sa.Column("workspace_id", sa.ForeignKey("workspaces.id"), index=True),
    _created_at(),
)

upload_sessions = sa.Table(
    "upload_sessions",
    metadata,
    sa.Column("session_key", sa.String(40), primary_key=True),
    _created_at(),
    sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("last_activity", _timestamp, nullable=False, server_default=sa.func.now()),
)

processed_documents = sa.Table(
    "processed_documents",
    metadata,
    _id(),
    sa.Column("session_key", sa.ForeignKey("upload_sessions.session_key"), nullable=False, index=True),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("file_type", sa.Text, nullable=False),
    sa.Column("file_size", sa.BigInteger, nullable=False),
    sa.Column("processing_status", sa.Text, nullable=False, server_default="pending"),
    sa.Column("retry_count", sa.Integer, nullable=False, server_default="0"),
    sa.Column("source_file_path", sa.Text),
    sa.Column("excel_file_path", sa.Text),
    sa.Column("pdf_file_path", sa.Text),
    sa.Column("doc_file_path", sa.Text),
    _created_at(),
)

security_events = sa.Table(
    "security_events",
    metadata,
    _id(),
    sa.Column("risk_level", sa.Text, nullable=False),
    sa.Column("risk_score", sa.Integer, nullable=False),
    sa.Column("summary", sa.Text),
    sa.Column("started_at", _timestamp, nullable=False),
    sa.Column("clip_path", sa.Text),
)

detections = sa.Table(
    "detections",
    metadata,
    _id(),
    sa.Column("event_id", sa.ForeignKey("security_events.id"), nullable=False, index=True),
    sa.Column("file_path", sa.Text),
    sa.Column("thumbnail_path", sa.Text),
    sa.Column("detected_at", _timestamp, nullable=False),
)

# Optional columns that name files: that there is none has to be said, since the files of one with another name would
# look unreferenced.
FILE_COLUMNS = {
    "processed_documents": ("excel_file_path", "pdf_file_path", "doc_file_path"),
    "detections": ("thumbnail_path",),
}
# Optional columns that keep rows: that there is none has to be said if a column has a similar name.
KEEPING_COLUMNS = {
    "users": ("is_staff", "is_superuser", "email_verified_at", "last_login"),
    "conversations": ("user_id", "updated_at", "pinned"),
}

# The columns that a user's own table may lack, and what the tasks assume without them.
OPTIONAL_COLUMNS: dict[str, dict[str, str]] = {
    "users": {
        "username": "accounts are named by their key",
        "email": "not needed",
        "is_staff": "no account counts as staff",
        "is_superuser": "no account counts as a superuser",
        "email_verified_at": "is_active = false counts as never verified",
        "last_login": "no login is known of any account",
    },
    "conversations": {
        "user_id": "a hold on a user does not cover conversations",
        "title": "not needed",
        "updated_at": "the newest message, or created_at, is the last activity",
        "pinned": "no conversation counts as pinned",
    },
    "chat_messages": {"role": "not needed", "content": "not needed"},
    "workspaces": {"name": "not needed"},
    "documents": {"workspace_id": "a document is in no workspace", "created_at": "not needed"},
    "document_sync_queues": {"last_synced_at": "not needed", "created_at": "not needed"},
    "document_sync_runs": {"created_at": "not needed"},
    "parsed_files": {"workspace_id": "not needed", "created_at": "not needed"},
    "upload_sessions": {
        "created_at": "not needed",
        "is_active": "not needed",
    },
    "processed_documents": {
        "filename": "not needed",
        "file_type": "not needed",
        "file_size": "not needed",
        "retry_count": "not needed",
        "excel_file_path": "no such outputs",
        "pdf_file_path": "no such outputs",
        "doc_file_path": "no such outputs",
        "created_at": "a session's age is that of its last activity",
    },
    "security_events": {
        "risk_level": "not needed",
        "risk_score": "not needed",
        "summary": "not needed",
        "started_at": "not needed",
    },
    "detections": {"thumbnail_path": "there are no thumbnails", "detected_at": "not needed"},
}
