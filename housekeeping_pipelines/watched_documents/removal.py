"""Ends a watch: the queue entry and its runs go to the trash, the document is kept.

`documents.watched` is cleared first: a sync that starts in between would create a new entry for a watched document
without one. Undo restores the entry, its runs and `documents.watched`; the knowledge of the last syncs stays in
`housekeeping.watched_documents` for as long as the entry is in the trash.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion.changed_values import record_change
from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.deletion.policy import RowPolicy
from housekeeping_pipelines.deletion.rows import delete_rows
from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError, Refused, Unavailable
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.watched_documents.queue import Queue

if TYPE_CHECKING:
    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.execution.report import Report
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.execution.runner import TaskRunner
    from housekeeping_pipelines.watched_documents.queue import Entry

# The task of the run, as the trash names it.
TASK = "remove_watched_document"

_ERRORS = {kind.__name__: kind for kind in (ConfigurationError, Refused, Unavailable)}


@dataclass(frozen=True)
class Removal:
    """A document that is no longer watched.

    Attributes:
        run_id: of the run to undo; None if TRASH_RETENTION_DAYS is 0, which permits no undo.
    """

    entry: Entry
    run_id: str | None


def stop_watching(
    runner: TaskRunner, config: HousekeepingConfig, entry: Entry, *, only_as_read: bool = False
) -> Removal:
    """Move the queue entry of a document and its runs to the trash.

    Args:
        only_as_read: refuse if the document's state has changed since `entry` was read.

    Raises:
        Refused: everything is paused, the document is held, a privilege is missing, or DRY_RUN is true.
        HousekeepingError: another session has locked the entry, or the database refuses; nothing was removed.
    """
    run_id = str(uuid.uuid4())

    def body(run: Run) -> Report:
        if run.dry_run:
            raise Refused("nothing is removed while DRY_RUN is true", hint="set DRY_RUN=false")
        with INTERRUPTION.step():
            return _remove(run, config, entry, only_as_read=only_as_read)

    report = runner.run(TASK, run_id, body)
    if not report.deleted or report.status != "succeeded":
        raise _why_not(report, entry)
    return Removal(entry, run_id if runner.trashed else None)


def _remove(run: Run, config: HousekeepingConfig, entry: Entry, *, only_as_read: bool) -> Report:
    connection, removed = run.connection, False
    with connection.begin():
        queue = Queue(Platform(Catalog(connection), config))
        marked = queue.unwatch(connection, entry.filename)
    try:
        report: Report = delete_rows(
            run, lambda catalog, _: _policy(Platform(catalog, config), entry, only_as_read=only_as_read), Limits()
        )
        removed = bool(report.deleted)
    finally:
        if not removed:
            connection.rollback()
            with connection.begin():
                queue.watch_again(connection, marked)
    if removed and run.trashed:
        documents = queue.documents
        with connection.begin():
            record_change(
                connection,
                run.run_id,
                documents.live,
                key_column=str(documents["id"].key),
                keys=[str(key) for key in marked],
                column=str(documents["watched"].key),
                was="true",
                became="false",
            )
    return report


def _policy(platform: Platform, entry: Entry, *, only_as_read: bool) -> RowPolicy:
    """The one row at any age, since a user named it."""
    queues, users = platform.table("document_sync_queues"), platform.find("users")
    created = queues.get("created_at")
    eligible = queues["id"] == entry.key
    return RowPolicy(
        table=queues.live,
        age_from=queues["next_sync_at"] if created is None else created,
        old=sa.true(),
        eligible=sa.and_(eligible, queues["state"] == entry.state) if only_as_read else eligible,
        reason="a user removed it",
        undeclared=platform.undeclared_keys(),
        users=users.live if users else None,
    )


def _why_not(report: Report, entry: Entry) -> HousekeepingError:
    if report.status == "skipped":
        return HousekeepingError("another document is being removed now", hint="try again")
    if report.message:
        return _ERRORS.get(report.error_type or "", HousekeepingError)(report.message)
    if report.failed:
        return HousekeepingError(f"{entry.name} is still watched: {report.failed[0].reason}")
    if report.stopped_reason == "paused":
        return Refused(f"{entry.name} is still watched: deletion is paused", hint="run `housekeeping resume`")
    if report.skipped["held"]:
        return Refused(f"{entry.name} is held", hint="`housekeeping hold list` shows the hold")
    if report.skipped["locked"]:
        return HousekeepingError(f"{entry.name} is locked by another session", hint="try again")
    return HousekeepingError(f"{entry.name} has changed", hint="`housekeeping watch list` shows how it is now")
