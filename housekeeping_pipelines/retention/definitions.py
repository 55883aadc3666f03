"""Row retention in Dagster: one op, job and asset a task; a rule of `housekeeping.yaml` becomes one more task."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Annotated

import dagster as dg
from pydantic import Field

from housekeeping_pipelines.application.config import HousekeepingConfig, RetentionRule
from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion.policy import RowPolicy
from housekeeping_pipelines.execution.database import Database
from housekeeping_pipelines.execution.progress import Observer
from housekeeping_pipelines.execution.report import Report
from housekeeping_pipelines.execution.run import Run
from housekeeping_pipelines.retention import policies, verify
from housekeeping_pipelines.retention.checks import check_retention
from housekeeping_pipelines.settings import Settings
from housekeeping_pipelines.tasks.capability import Capability
from housekeeping_pipelines.tasks.config import DeletionConfig, TaskConfig
from housekeeping_pipelines.tasks.jobs import Task
from housekeeping_pipelines.tasks.reporting import run_task

Days = Annotated[int | None, Field(ge=1, le=36500)]


class DeleteOldConversations(DeletionConfig):
    older_than_days: Days = Field(None, description="Default: CONVERSATION_RETENTION_DAYS (30).")
    age_column: policies.AgeColumn = Field(
        "last_activity",
        description="What age counts from; last_activity is the later of updated_at and the last message.",
    )


class CleanupOrphanedMessages(DeletionConfig):
    allow_empty_reference: bool = Field(False, description="Run although the table of conversations is empty.")


class CleanupInactiveUsers(DeletionConfig):
    older_than_days: Days = Field(None, description="Default: UNVERIFIED_USER_RETENTION_DAYS (7).")


def _delete(
    context: dg.OpExecutionContext,
    config: DeletionConfig,
    database: Database,
    observer: Observer,
    policy: Callable[[Platform, datetime], RowPolicy],
) -> None:
    def body(run: Run) -> Report:
        # Imported here, so that importing the definitions stays quick.
        from housekeeping_pipelines.deletion.rows import delete_rows

        return delete_rows(run, lambda catalog, now: policy(Platform(catalog, database.config), now), config.limits())

    run_task(context, database, body, dry_run=config.dry_run, observer=observer)


@dg.op
def delete_old_conversations(
    context: dg.OpExecutionContext,
    config: DeleteOldConversations,
    database: dg.ResourceParam[Database],
    observer: dg.ResourceParam[Observer],
) -> None:
    """Delete conversations unused for CONVERSATION_RETENTION_DAYS, with their messages; pinned ones stay."""
    days = config.older_than_days or database.settings.conversation_retention_days
    policy = partial(policies.conversations, older_than_days=days, age_column=config.age_column)
    _delete(context, config, database, observer, policy)


@dg.op
def cleanup_orphaned_messages(
    context: dg.OpExecutionContext,
    config: CleanupOrphanedMessages,
    database: dg.ResourceParam[Database],
    observer: dg.ResourceParam[Observer],
) -> None:
    """Delete messages of no conversation that are older than an hour."""
    _delete(context, config, database, observer, policies.orphaned_messages)


@dg.op
def cleanup_inactive_users(
    context: dg.OpExecutionContext,
    config: CleanupInactiveUsers,
    database: dg.ResourceParam[Database],
    observer: dg.ResourceParam[Observer],
) -> None:
    """Delete accounts that were never verified nor used and own nothing, after UNVERIFIED_USER_RETENTION_DAYS."""
    days = config.older_than_days or database.settings.unverified_user_retention_days
    _delete(context, config, database, observer, partial(policies.inactive_users, older_than_days=days))


@dg.op
def verify_no_orphans(context: dg.OpExecutionContext, config: TaskConfig, database: dg.ResourceParam[Database]) -> None:
    """Check that nothing refers to a conversation that does not exist."""
    run_task(context, database, lambda run: verify.verify_no_orphans(run, database.config), dry_run=config.dry_run)


def declared_task(rule: RetentionRule) -> Task:
    """A rule of `housekeeping.yaml` as a task."""

    class DeclaredRetention(DeletionConfig):
        batch_size: int = Field(rule.batch_size, ge=1, le=10_000, description="Rows of the table a transaction.")
        allow_large_deletion: bool = Field(rule.allow_large_deletion, description="As housekeeping.yaml says.")
        older_than_days: int = Field(rule.older_than_days, ge=1, le=36500, description="As housekeeping.yaml says.")

    @dg.op(
        name=rule.task,
        description=f"Delete rows of {rule.table} whose {rule.age_column} is {rule.older_than_days} days ago"
        " (a rule of housekeeping.yaml).",
    )
    def delete_by_rule(
        context: dg.OpExecutionContext,
        config: DeclaredRetention,
        database: dg.ResourceParam[Database],
        observer: dg.ResourceParam[Observer],
    ) -> None:
        used = rule.model_copy(update={"older_than_days": config.older_than_days})
        _delete(context, config, database, observer, partial(policies.declared_rule, rule=used))

    return Task(delete_by_rule, DeclaredRetention)


CONVERSATIONS = Task(
    delete_old_conversations,
    DeleteOldConversations,
    tables=("conversations", "chat_messages"),
    short_name="conversations",
    counted_as="deleted_conversations",
)
ORPHANED_MESSAGES = Task(
    cleanup_orphaned_messages,
    CleanupOrphanedMessages,
    tables=("chat_messages", "conversations"),
    short_name="messages",
    counted_as="cleaned_messages",
)
INACTIVE_USERS = Task(
    cleanup_inactive_users,
    CleanupInactiveUsers,
    tables=("users",),
    short_name="users",
    counted_as="deleted_users",
)
VERIFY_NO_ORPHANS = Task(verify_no_orphans, TaskConfig, tables=("conversations", "chat_messages"))


def capability(settings: Settings, config: HousekeepingConfig) -> Capability:
    """The built-in tasks, and one for each rule of `housekeeping.yaml`, in the order in which they stand there."""
    rules = tuple(declared_task(rule) for rule in config.retention)
    return Capability(
        tasks=(CONVERSATIONS, ORPHANED_MESSAGES, INACTIVE_USERS, VERIFY_NO_ORPHANS, *rules),
        checks=(check_retention,),
    )
