"""The queue of watched documents: when each is due, and what the last syncs stored about it.

The platform's `document_sync_queues` has one row per file name: a document and its copies in other workspaces are
fetched once. `housekeeping.watched_documents` stores what the platform has no column for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on, insert

from housekeeping_pipelines.deletion.mirrors import MIRRORS_LOCK, find_mirrors
from housekeeping_pipelines.postgres.locks import lock_for_transaction
from housekeeping_pipelines.watched_documents.tables import watched_documents

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from housekeeping_pipelines.application.platform import MappedTable, Platform

State = Literal["active", "error", "gone", "held"]
RunStatus = Literal["success", "exited", "failed"]

# A sync takes documents in these states; the others wait for a review.
SYNCED_STATES = ("active", "error")

# As in the replaced system; the maximum is that of `watch add --every`.
MIN_INTERVAL, DEFAULT_INTERVAL, MAX_INTERVAL = timedelta(hours=1), timedelta(days=7), timedelta(hours=8760)

# An entry has its copies, but no text.
_READ_BATCH_SIZE = 200

# Our own columns of each queue entry.
watched_state = watched_documents


@dataclass(frozen=True, slots=True)
class Copy:
    """A document in one workspace; `key` is the key of its row, `doc_id` the name of its vectors."""

    key: Any
    doc_id: str
    docpath: str
    workspace: Any
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """What the last syncs stored; the columns of `housekeeping.watched_documents`."""

    content_hash: str | None = None
    generation: str | None = None
    published: str | None = None
    fetch_state: dict[str, Any] | None = None
    gone_count: int = 0
    gone_at: datetime | None = None
    last_error: str | None = None
    held: dict[str, Any] | None = None
    accepted_hash: str | None = None
    rejected_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A watched document with its copies; the one that the queue refers to comes first."""

    key: Any
    filename: str
    reference: str | None
    state: State
    stale_after: timedelta
    next_sync_at: datetime
    last_synced_at: datetime | None
    failures: int
    copies: tuple[Copy, ...]
    known: Known

    @property
    def id(self) -> str:
        return str(self.key)

    @property
    def name(self) -> str:
        """The document as messages name it."""
        return self.reference or self.filename

    @property
    def awaits_review(self) -> bool:
        """Whether no sync takes it until it is reviewed."""
        return self.state not in SYNCED_STATES

    @property
    def reason(self) -> str | None:
        """Why it is held, or the last error; None if the last sync succeeded."""
        held = self.known.held
        return held["reason"] if held and self.state == "held" else self.known.last_error


@dataclass(frozen=True, slots=True)
class Change:
    """What is recorded of one sync of a document.

    Attributes:
        synced: whether the source answered, so that `last_synced_at` is set.
        metadata: is merged into the `metadata` of the copies.
    """

    state: State
    next_sync_at: datetime
    failures: int
    status: RunStatus
    result: Mapping[str, Any]
    known: Known
    synced: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Queue:
    """The queue in the live database. Its methods run in the connection's transaction.

    Raises:
        ConfigurationError: the platform lacks one of the tables, or a column.
    """

    def __init__(self, platform: Platform) -> None:
        self.documents: MappedTable = platform.table("documents")
        self.queues: MappedTable = platform.table("document_sync_queues")
        self.runs: MappedTable = platform.table("document_sync_runs")

    def count_due(self, connection: sa.Connection, now: datetime, *, limit: int) -> int:
        """The number of due documents, at most `limit`; watched documents without a queue entry are due."""
        due = sa.select(sa.literal(1)).select_from(self._joined()).where(self._is_due(now)).limit(limit)
        unqueued = self._unqueued().limit(limit)
        both = sa.union_all(due.subquery().select(), sa.select(sa.literal(1)).select_from(unqueued.subquery()))
        return min(limit, connection.scalar(sa.select(sa.func.count()).select_from(both.subquery())) or 0)

    def count_failing(self, connection: sa.Connection) -> int:
        """The number of documents that fail repeatedly or wait for a review."""
        waiting = sa.select(sa.func.count()).select_from(self._joined()).where(self.queues["state"] != "active")
        return connection.scalar(waiting) or 0

    def enqueue_missing(self, connection: sa.Connection, now: datetime, stale_after: timedelta) -> int:
        """Create missing queue entries, as for a copy whose first document was deleted; returns their number."""
        unqueued = list(connection.scalars(self._unqueued()))
        for key in unqueued:
            self.insert(connection, key, now, stale_after)
        return len(unqueued)

    def insert(self, connection: sa.Connection, document: Any, due: datetime, stale_after: timedelta) -> Any:
        """Create a queue entry; returns its key."""
        q = self.queues
        given = self._values(
            q,
            document_id=document,
            stale_after_ms=int(stale_after.total_seconds() * 1000),
            next_sync_at=due,
            consecutive_failures=0,
            state="active",
            created_at=due,
        )
        return connection.scalar(sa.insert(q.live.selectable).values(given).returning(q["id"]))

    def delete_unknown(self, connection: sa.Connection) -> None:
        """Delete the knowledge about entries that are neither in the queue nor in the trash, where undo finds them."""
        q = self.queues
        # Keeps the trash's tables from being dropped.
        connection.execute(lock_for_transaction(MIRRORS_LOCK, shared=True))
        tables = [q.live.selectable]
        for mirror in find_mirrors(connection):
            of_queue = (mirror.source_schema, mirror.source_table) == (q.live.schema, q.live.name)
            if of_queue and q["id"].name in mirror.selectable.c:
                tables.append(mirror.selectable)
        # One statement has one snapshot, in which no entry is between the queue and the trash.
        there = sa.union_all(*(sa.select(sa.cast(table.c[q["id"].name], sa.Text)) for table in tables))
        connection.execute(sa.delete(watched_state).where(watched_state.c.queue.not_in(there)))

    def due(self, connection: sa.Connection, now: datetime, *, force: bool, limit: int | None) -> list[Any]:
        """The keys of the entries to sync, ordered by due time."""
        wanted = self.queues["state"].in_(SYNCED_STATES) if force else self._is_due(now)
        keys = sa.select(self.queues["id"]).select_from(self._joined()).where(wanted)
        return list(connection.scalars(keys.order_by(self.queues["next_sync_at"], self.queues["id"]).limit(limit)))

    def read(self, connection: sa.Connection, keys: Sequence[Any]) -> Iterator[Entry]:
        """The entries of these keys, in their order; entries deleted since are left out."""
        for start in range(0, len(keys), _READ_BATCH_SIZE):
            part = keys[start : start + _READ_BATCH_SIZE]
            found = {entry.key: entry for entry in self._entries(connection, self.queues["id"].in_(part))}
            yield from (found[key] for key in part if key in found)

    def all(self, connection: sa.Connection) -> list[Entry]:
        """Every entry, ordered by due time."""
        return sorted(self._entries(connection, sa.true()), key=lambda entry: entry.next_sync_at)

    def failing(self, connection: sa.Connection, limit: int) -> list[Entry]:
        """Entries that wait for a review or failed the last time; those that wait come first."""
        q = self.queues
        wrong = sa.or_(q["state"] != "active", q["consecutive_failures"] > 0, watched_state.c.last_error.is_not(None))
        found = sa.select(q["id"]).select_from(self._with_state()).where(wrong)
        waiting_first = found.order_by(q["state"].in_(SYNCED_STATES), q["state"].desc(), q["next_sync_at"], q["id"])
        return list(self.read(connection, list(connection.scalars(waiting_first.limit(limit)))))

    def find(self, connection: sa.Connection, id_: str) -> Entry | None:
        """The entry of this id, locked for the transaction."""
        return next(iter(self._entries(connection, sa.cast(self.queues["id"], sa.Text) == id_, lock=True)), None)

    def lease(self, connection: sa.Connection, entries: Sequence[Entry]) -> list[Entry]:
        """Lock entries for the transaction; those that others locked, or changed since they were read, are left out."""
        q = self.queues
        statement = sa.select(q["id"], _finite(q["next_sync_at"]), q["state"]).with_for_update(skip_locked=True)
        rows = connection.execute(statement.where(q["id"].in_([each.key for each in entries])))
        mine = {key: (_utc(due), state) for key, due, state in rows}
        return [each for each in entries if mine.get(each.key) == (each.next_sync_at, each.state)]

    def record(self, connection: sa.Connection, changes: Sequence[tuple[Entry, Change]], now: datetime) -> None:
        """Record syncs: the queue entry, the knowledge, a run, and the copies' metadata."""
        self.reschedule(connection, changes, synced_at=now)
        self._merge_metadata(connection, changes)
        self.save_known(connection, [(entry, change.known) for entry, change in changes])
        r = self.runs
        runs = [
            self._values(
                r,
                queue_id=entry.key,
                status=change.status,
                result=json.dumps(change.result),
                created_at=now,
            )
            for entry, change in changes
        ]
        connection.execute(sa.insert(r.live.selectable), runs)

    def reschedule(
        self, connection: sa.Connection, changes: Sequence[tuple[Entry, Change]], *, synced_at: datetime | None = None
    ) -> None:
        """Set the due time and the state of entries, and `synced_at` of those that were synced."""
        q = self.queues
        # SQLAlchemy also sets a column with the name of a parameter, and a platform's columns may have any name.
        values = self._values(
            q,
            next_sync_at=sa.bindparam("bound_due"),
            consecutive_failures=sa.bindparam("bound_failures"),
            state=sa.bindparam("bound_state"),
        )
        if (last := q.get("last_synced_at")) is not None:
            values[last.name] = sa.func.coalesce(sa.bindparam("bound_synced_at", type_=last.type), last)
        rows = [
            {
                "bound_id": entry.key,
                "bound_due": change.next_sync_at,
                "bound_failures": change.failures,
                "bound_state": change.state,
                "bound_synced_at": synced_at if change.synced else None,
            }
            for entry, change in changes
        ]
        connection.execute(sa.update(q.live.selectable).where(q["id"] == sa.bindparam("bound_id")).values(values), rows)

    def save_known(self, connection: sa.Connection, known: Sequence[tuple[Entry, Known]]) -> None:
        """Store the knowledge about entries."""
        statement = insert(watched_state)
        columns = {name: statement.excluded[name] for name in Known.__slots__}
        rows = [{"queue": entry.id} | {name: getattr(each, name) for name in Known.__slots__} for entry, each in known]
        connection.execute(statement.on_conflict_do_update(index_elements=["queue"], set_=columns), rows)

    def set_watched(self, connection: sa.Connection, filename: str, *, watched: bool) -> None:
        """Set `watched` of a document and its copies."""
        d = self.documents
        connection.execute(
            sa.update(d.live.selectable).where(d["filename"] == filename).values({d["watched"].name: watched})
        )

    def unwatch(self, connection: sa.Connection, filename: str) -> list[Any]:
        """Clear `watched` of a document and its copies; returns the keys of those that had it set."""
        d = self.documents
        marked = sa.update(d.live.selectable).where(d["filename"] == filename, d["watched"])
        return list(connection.scalars(marked.values({d["watched"].name: False}).returning(d["id"])))

    def watch_again(self, connection: sa.Connection, documents: Sequence[Any]) -> None:
        """Set `watched` of documents by their keys."""
        d = self.documents
        marked = sa.update(d.live.selectable).where(d["id"].in_(documents))
        connection.execute(marked.values({d["watched"].name: True}))

    def _merge_metadata(self, connection: sa.Connection, changes: Sequence[tuple[Entry, Change]]) -> None:
        """Merge into the copies' current metadata, which the application may have changed since it was read."""
        d = self.documents
        added = {copy.key: change.metadata for entry, change in changes if change.metadata for copy in entry.copies}
        if not added:
            return
        now = sa.select(d["id"], d["metadata"]).where(d["id"].in_(added)).order_by(d["id"]).with_for_update()
        rows = [
            {"bound_id": key, "bound_metadata": json.dumps({**as_dict(about), **added[key]})}
            for key, about in connection.execute(now)
        ]
        if rows:
            values: dict[str, Any] = {d["metadata"].name: sa.bindparam("bound_metadata")}
            statement = sa.update(d.live.selectable).where(d["id"] == sa.bindparam("bound_id")).values(values)
            connection.execute(statement, rows)

    def _values(self, table: MappedTable, **values: Any) -> dict[str, Any]:
        """The values by the live table's column names; values without a column are left out."""
        return {theirs: value for name, value in values.items() if (theirs := table.names[name]) is not None}

    def _joined(self) -> sa.FromClause:
        return self.queues.live.selectable.join(
            self.documents.live.selectable, self.queues["document_id"] == self.documents["id"]
        )

    def _with_state(self) -> sa.FromClause:
        return self._joined().outerjoin(watched_state, watched_state.c.queue == sa.cast(self.queues["id"], sa.Text))

    def _is_due(self, now: datetime) -> sa.ColumnElement[bool]:
        return sa.and_(self.queues["next_sync_at"] <= now, self.queues["state"].in_(SYNCED_STATES))

    def _unqueued(self) -> sa.Select[Any]:
        """The first document of each watched file name without a queue entry."""
        d = self.documents
        others = d.live.selectable.alias("others")
        queued = (
            sa.select(sa.literal(1))
            .select_from(self.queues.live.selectable.join(others, self.queues["document_id"] == others.c[d["id"].name]))
            .where(others.c[d["filename"].name] == d["filename"])
            .correlate(d.live.selectable)
        )
        watched = sa.select(d["id"]).where(d["watched"], sa.not_(sa.exists(queued)))
        return watched.ext(distinct_on(d["filename"])).order_by(d["filename"], d["id"])

    def _entries(
        self, connection: sa.Connection, wanted: sa.ColumnElement[bool], *, lock: bool = False
    ) -> Iterator[Entry]:
        q, d = self.queues, self.documents
        last = q.get("last_synced_at")
        statement = (
            sa.select(
                q["id"].label("queue"),
                q["document_id"].label("first"),
                q["state"],
                q["stale_after_ms"],
                _finite(q["next_sync_at"]),
                (sa.null() if last is None else _finite(last)).label("last"),
                q["consecutive_failures"].label("failures"),
                d["filename"].label("filename"),
                *(watched_state.c[name] for name in Known.__slots__),
            )
            .select_from(self._with_state())
            .where(wanted)
        )
        if lock:
            statement = statement.with_for_update(of=q.live.selectable)
        rows = connection.execute(statement).all()
        copies = self._copies(connection, {row.filename for row in rows})
        for row in rows:
            # The document of the queue entry comes first: its text is the current one.
            mine = tuple(sorted(copies[row.filename], key=lambda copy: copy.key != row.first))
            known = Known(**{name: getattr(row, name) for name in Known.__slots__})
            yield Entry(
                key=row.queue,
                filename=row.filename,
                reference=mine[0].metadata.get("chunkSource") or None,
                state=row[2],
                stale_after=interval(row[3]),
                next_sync_at=_utc(row[4]),
                last_synced_at=None if row.last is None else _utc(row.last),
                failures=row.failures or 0,
                copies=mine,
                known=known if known.gone_count is not None else Known(),
            )

    def _copies(self, connection: sa.Connection, filenames: set[str]) -> dict[str, list[Copy]]:
        d = self.documents
        workspace = d.get("workspace_id")
        where = sa.null() if workspace is None else workspace
        statement = sa.select(
            d["filename"], d["id"], d["doc_id"], d["docpath"], where.label("workspace"), d["metadata"]
        )
        found: dict[str, list[Copy]] = {name: [] for name in filenames}
        rows = connection.execute(statement.where(d["filename"].in_(sorted(filenames))).order_by(d["id"]))
        for filename, key, doc_id, docpath, place, about in rows:
            found[filename].append(Copy(key, str(doc_id), docpath or "", place, as_dict(about)))
        return found


def as_dict(about: Any) -> Mapping[str, Any]:
    """The object in a JSON column of any type; empty if it holds something else."""
    if isinstance(about, str):
        try:
            about = json.loads(about)
        except ValueError:
            return {}
    return about if isinstance(about, dict) else {}


def interval(milliseconds: float | None) -> timedelta:
    """The interval that the application wrote, but at least an hour; a week if it is not a positive number."""
    hours = float(milliseconds or 0) / 3_600_000
    # NaN is not more than 0 either.
    if not hours > 0:
        return DEFAULT_INTERVAL
    return max(timedelta(hours=min(hours, MAX_INTERVAL / timedelta(hours=1))), MIN_INTERVAL)


def _finite(column: sa.ColumnElement[Any]) -> sa.ColumnElement[datetime]:
    """The column, clamped to the range of a datetime: an "infinity" in one row must not stop the others."""
    first, last = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
    return sa.func.least(sa.func.greatest(column, sa.literal(first)), sa.literal(last))


def _utc(moment: datetime) -> datetime:
    # A column without a time zone is in the session's, which is UTC.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
