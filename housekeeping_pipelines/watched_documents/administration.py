"""Administration of the queue: the sensor's probe, and list, add, remove and review."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from housekeeping_pipelines.application.config import load_config
from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.execution.database import probe
from housekeeping_pipelines.postgres import errors as database_errors
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.watched_documents.queue import Change, Queue, as_dict
from housekeeping_pipelines.watched_documents.removal import stop_watching
from housekeeping_pipelines.watched_documents.sources.references import parse_reference

if TYPE_CHECKING:
    from datetime import datetime

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.execution.runner import TaskRunner
    from housekeeping_pipelines.settings import Settings
    from housekeeping_pipelines.watched_documents.queue import Entry
    from housekeeping_pipelines.watched_documents.removal import Removal
    from housekeeping_pipelines.watched_documents.sources.references import Reference

# Enough for a sensor to know that there is work.
PROBE_LIMIT = 10_000

Decision = Literal["accept", "reject", "retry"]


def probe_due(settings: Settings) -> int:
    """How many documents are due, at most PROBE_LIMIT; read-only, with a statement timeout.

    Raises:
        HousekeepingError: the database does not answer in time, or the platform has no such tables.
    """
    config = load_config(settings)
    with probe(settings) as connection:
        return Queue(Platform(Catalog(connection), config)).count_due(connection, utc_now(), limit=PROBE_LIMIT)


@dataclass(frozen=True)
class Watched:
    """The result of `add`: whether it `created` the document, and whether that was `already` watched."""

    id: str
    documents: int
    created: bool
    already: bool
    stale_after: timedelta


@dataclass(frozen=True)
class WatchAdministration:
    """The queue of the live database, in the connection's transaction."""

    connection: sa.Connection
    queue: Queue
    platform: Platform

    @classmethod
    def on(cls, connection: sa.Connection, config: HousekeepingConfig) -> WatchAdministration:
        """
        Raises:
            ConfigurationError: the platform lacks one of the tables.
        """
        platform = Platform(Catalog(connection), config)
        return cls(connection, Queue(platform), platform)

    def entries(self) -> list[Entry]:
        """Every watched document, ordered by due time."""
        return self.queue.all(self.connection)

    def add(self, text: str, *, workspace: str | None, stale_after: timedelta | None, default: timedelta,
            now: datetime) -> Watched:  # fmt: skip
        """Watch the documents of a reference; create one in the workspace if it has none.

        A document that is already watched gets the interval, if one is given.

        Raises:
            ConfigurationError: it is not a valid reference, there is no such document or workspace, or the platform
                refuses a new document.
        """
        reference = parse_reference(text)
        workspace_key = None if workspace is None else self._workspace(workspace)
        filename = self._filename(reference, workspace_key)
        created = filename is None
        if filename is None:
            if workspace_key is None:
                raise ConfigurationError(
                    f"no document comes from {reference.text}", hint="give --workspace SLUG to create one"
                )
            filename = self._create(reference, workspace_key, now)
        entry = next((each for each in self.entries() if each.filename == filename), None)
        self.queue.set_watched(self.connection, filename, watched=True)
        if entry is not None:
            if stale_after is not None:
                self._set_interval(entry, stale_after, now)
            return Watched(entry.id, len(entry.copies), created, True, stale_after or entry.stale_after)
        documents = self.queue.documents
        keys = sa.select(documents["id"]).where(documents["filename"] == filename).order_by(documents["id"])
        found = list(self.connection.scalars(keys))
        interval = stale_after or default
        key = self.queue.insert(self.connection, found[0], now, interval)
        return Watched(str(key), len(found), created, False, interval)

    def decide(self, entry: Entry, decision: Decision, now: datetime) -> str:
        """Apply a decision that does not end the watch; returns what happens next, for the user.

        Raises:
            ConfigurationError: the document needs no decision.
        """
        if entry.state == "active" and decision != "retry":
            raise ConfigurationError(f"{entry.name} needs no decision", hint="`housekeeping watch list` shows which do")
        known = entry.known
        held = known.held or {}
        due, message = now, "the next sync fetches it again"
        if decision == "accept":
            known = replace(known, accepted_hash=held.get("hash"), rejected_hash=None)
            message = "the next sync fetches it again and writes it"
        elif decision == "reject" and entry.state == "held":
            known = replace(known, rejected_hash=held.get("hash"), accepted_hash=None)
            due, message = now + entry.stale_after, "the current text is kept until the source has another one"
        elif decision == "reject":
            due, message = now + entry.stale_after, "it is kept, and fetched again when it is due"
        known = replace(known, held=None, gone_count=0, gone_at=None)
        change = Change("active", due, 0, "exited", {}, known)
        self.queue.reschedule(self.connection, [(entry, change)])
        self.queue.save_known(self.connection, [(entry, known)])
        return message

    def find(self, id_: str) -> Entry:
        """The watched document of this id, locked for the transaction.

        Raises:
            ConfigurationError: there is none.
        """
        entry = self.queue.find(self.connection, id_)
        if entry is None:
            raise ConfigurationError(
                f"there is no watched document {id_}", hint="run `housekeeping watch list` to see their ids"
            )
        return entry

    def _set_interval(self, entry: Entry, stale_after: timedelta, now: datetime) -> None:
        q = self.queue.queues
        last = entry.last_synced_at or now
        values: dict[str, Any] = {q["stale_after_ms"].name: int(stale_after.total_seconds() * 1000)}
        if entry.state == "active" and not entry.failures:
            values[q["next_sync_at"].name] = last + stale_after
        statement = sa.update(q.live.selectable).where(q["id"] == entry.key)
        self.connection.execute(statement.values(values))

    def _workspace(self, slug: str) -> Any:
        workspaces = self.platform.table("workspaces")
        statement = sa.select(workspaces["id"], workspaces["slug"]).order_by(workspaces["slug"])
        found = {name: key for key, name in self.connection.execute(statement.limit(1000))}
        key = self.connection.scalar(sa.select(workspaces["id"]).where(workspaces["slug"] == slug))
        if key is None:
            names = ", ".join(list(found)[:10])
            raise ConfigurationError(
                f"there is no workspace {slug!r}", hint=f"the workspaces are {names}" if names else None
            )
        return key

    def _filename(self, reference: Reference, workspace: Any) -> str | None:
        """The file name of a document of the reference, in the workspace if one is given; None if there is none."""
        d = self.queue.documents
        # The column may hold text that is not JSON: search it as text, and parse what was found.
        found = {json.dumps(reference.text, ensure_ascii=escaped) for escaped in (True, False)}
        about = sa.cast(d["metadata"], sa.Text)
        statement = sa.select(d["filename"], d["metadata"]).where(
            sa.or_(*(sa.func.strpos(about, each) > 0 for each in sorted(found)))
        )
        if workspace is not None:
            statement = statement.where(d["workspace_id"] == workspace)
        for filename, metadata in self.connection.execute(statement.order_by(d["id"])):
            if as_dict(metadata).get("chunkSource") == reference.text:
                return str(filename)
        return None

    def _create(self, reference: Reference, workspace: Any, now: datetime) -> str:
        d = self.queue.documents
        words = re.sub(r"[^a-z0-9]+", "-", f"{reference.host}{reference.path}".lower()).strip("-")[:80]
        doc_id = str(uuid.uuid4())
        filename = f"{words or reference.scheme}-{doc_id}.json"
        about = {"title": reference.address[:200], "chunkSource": reference.text}
        values = {
            "doc_id": doc_id,
            "filename": filename,
            "docpath": f"custom-documents/{filename}",
            "workspace_id": workspace,
            "metadata": json.dumps(about),
            "watched": True,
            "created_at": now,
        }
        given = {theirs: value for name, value in values.items() if (theirs := d.names[name]) is not None}
        try:
            with self.connection.begin_nested():
                self.connection.execute(sa.insert(d.live.selectable).values(given))
        except sa.exc.DBAPIError as error:
            raise ConfigurationError(
                f"{d.live.label} refuses a new document: {database_errors.describe(error)}",
                hint="add the document in the application, then watch it",
            ) from None
        return filename


@dataclass(frozen=True)
class Reviewed:
    """The result of a review: the document as it was, and what happens next.

    Attributes:
        run_id: of the run to undo, if the decision ended the watch.
    """

    entry: Entry
    message: str
    run_id: str | None = None


def remove(runner: TaskRunner, config: HousekeepingConfig, id_: str) -> Removal:
    """Watch a document no longer; see `stop_watching`.

    Raises:
        ConfigurationError: there is no watched document of this id.
        HousekeepingError: as `stop_watching`.
    """
    with runner.engine.begin() as connection:
        entry = WatchAdministration.on(connection, config).find(id_)
    return stop_watching(runner, config, entry)


def review(runner: TaskRunner, config: HousekeepingConfig, id_: str, decision: Decision) -> Reviewed:
    """Apply a decision about a document that is held, gone or in error.

    Raises:
        ConfigurationError: there is no watched document of this id, or it needs no decision.
        HousekeepingError: as `stop_watching`, if the decision ends the watch.
    """
    with runner.engine.begin() as connection:
        administration = WatchAdministration.on(connection, config)
        entry = administration.find(id_)
        if decision != "accept" or entry.state not in ("gone", "error"):
            return Reviewed(entry, administration.decide(entry, decision, runner.clock()))
    removal = stop_watching(runner, config, entry, only_as_read=True)
    return Reviewed(entry, "it is no longer watched; the document is kept", removal.run_id)
