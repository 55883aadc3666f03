"""Alembic's entry: runs the revisions on the connection that `ensure_schema` hands over."""

from __future__ import annotations

from alembic import context

from housekeeping_pipelines.postgres.schema import OUR_SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table_schema=OUR_SCHEMA,
    include_schemas=True,
    transaction_per_migration=False,
)
context.run_migrations()
