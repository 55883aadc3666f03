"""The outbox: objects to remove from a store, recorded in the transaction that deletes the rows which own them.

A database cannot delete an object in its transaction. So the entry is committed with the rows, the object is removed
afterwards, and the entry is deleted when storage has confirmed that: a crash at any point leaves an entry to retry.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from housekeeping_pipelines.deletion.store import Store
from housekeeping_pipelines.deletion.tables import file_outbox, kept_files
from housekeeping_pipelines.postgres.arrays import is_one_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from housekeeping_pipelines.deletion.policy import FileColumn
    from housekeeping_pipelines.resources.object_storage import StoredObject


# As many as storage removes in one transaction (supabase-storage splits larger requests into 500).
BATCH_FILES = 500

# How long an entry is leased to a worker, which may have died; as long as in GitLab's outbox (ci_deleted_objects).
LEASE = timedelta(minutes=10)

FIRST_BACKOFF, LONGEST_BACKOFF = timedelta(minutes=1), timedelta(hours=6)

# An entry with so many attempts is reported.
STUCK_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    Attributes:
        name: the object's; that of an unresolved entry is the value of the row that named it.
        modified: the object's at the time it was chosen; None removes it whatever it is now.
        trash_name: where an attempt moves it, or has moved it, whatever the settings say now; None if none has begun.
    """

    id: int
    run_id: str
    task: str
    name: str
    bytes: int | None
    modified: datetime | None
    queued_at: datetime
    attempts: int
    unresolved: bool
    trash_name: str | None

    @property
    def is_orphan(self) -> bool:
        """Whether a search chose it: a later one finds it again. Otherwise a row that is deleted owned it."""
        return self.modified is not None


def queue(
    connection: sa.Connection,
    store: Store,
    objects: Iterable[StoredObject],
    *,
    run_id: str,
    task: str,
    now: datetime,
) -> list[Entry]:
    """Write entries for objects that the caller removes itself, at once; the caller commits.

    An entry that is there already is used again. One that is leased to another worker is not returned.
    """
    found = list(objects)
    if not found:
        return []
    known = _known(connection, store, [each.name for each in found], now)
    used_again = {entry.name for entry, _ in known}
    entries = _lease(connection, [entry.id for entry, leased in known if not leased], now)
    found = [each for each in found if each.name not in used_again]
    values: dict[str, sa.ColumnElement[Any]] = {
        "run_id": sa.literal(run_id, sa.Text),
        "task": sa.literal(task, sa.Text),
        "store": sa.literal(store.name, sa.Text),
        "queued_at": sa.literal(now),
        "next_attempt_at": sa.literal(now + LEASE),
        "attempts": sa.literal(1),
    }
    given = rows_of(
        name=("text[]", [each.name for each in found]),
        bytes=("bigint[]", [each.size for each in found]),
        modified=("timestamptz[]", [each.modified for each in found]),
        trash_name=("text[]", [store.trash_name(run_id, each.name) for each in found]),
    )
    rows = sa.select(*values.values(), *given.c)
    statement = sa.insert(file_outbox).from_select([*values, *given.c.keys()], rows).returning(*_ENTRY)
    return entries + _entries(connection.execute(statement))


def _known(connection: sa.Connection, store: Store, names: list[str], now: datetime) -> list[tuple[Entry, bool]]:
    """Entries for these objects, the oldest of each, and whether another worker has leased it."""
    wanted = sa.bindparam("names", names, pg.ARRAY(sa.Text))
    leased = sa.and_(
        file_outbox.c.last_error.is_(None),
        file_outbox.c.next_attempt_at > now,
        file_outbox.c.next_attempt_at <= now + LEASE,
    )
    statement = sa.select(*_ENTRY, leased.label("leased")).where(
        file_outbox.c.store == store.name, file_outbox.c.name == sa.any_(wanted), sa.not_(file_outbox.c.unresolved)
    )
    oldest = statement.ext(pg.distinct_on(file_outbox.c.name)).order_by(file_outbox.c.name, file_outbox.c.id)
    return [(Entry(*row[:-1]), row.leased) for row in connection.execute(oldest)]


def _lease(connection: sa.Connection, ids: list[int], now: datetime) -> list[Entry]:
    statement = sa.update(file_outbox).where(is_one_of(file_outbox.c.id, ids))
    leased = statement.values(next_attempt_at=now + LEASE, attempts=file_outbox.c.attempts + 1).returning(*_ENTRY)
    return _entries(connection.execute(leased))


def queue_files_of_rows(
    connection: sa.Connection,
    columns: Iterable[tuple[FileColumn, sa.ColumnElement[bool]]],
    *,
    run_id: str,
    task: str,
    now: datetime,
) -> dict[str, int]:
    """Write entries for the objects that rows name, in the transaction that deletes the rows.

    Which objects these are is known only to the store: an entry has the row's value until it is resolved. Objects
    that the policy keeps are recorded as kept instead.

    Returns:
        entries by store.
    """
    queued: dict[str, int] = {}
    for column, which in columns:
        names = _names_in(column, which)
        if column.kept:
            given = [sa.literal(column.store, sa.Text), names.c.name, sa.literal(run_id, sa.Text), sa.literal(now)]
            kept = pg.insert(kept_files).from_select(["store", "name", "run_id", "kept_at"], sa.select(*given))
            connection.execute(kept.on_conflict_do_nothing())
            continue
        values: dict[str, sa.ColumnElement[Any]] = {
            "run_id": sa.literal(run_id, sa.Text),
            "task": sa.literal(task, sa.Text),
            "store": sa.literal(column.store, sa.Text),
            "name": names.c.name,
            "queued_at": sa.literal(now),
            "next_attempt_at": sa.literal(now),
            "unresolved": sa.true(),
        }
        insert = sa.insert(file_outbox).from_select(list(values), sa.select(*values.values()))
        count = connection.execute(insert.execution_options(preserve_rowcount=True)).rowcount
        queued[column.store] = queued.get(column.store, 0) + count
    return queued


def count_files_of_rows(
    connection: sa.Connection, columns: Iterable[tuple[FileColumn, sa.ColumnElement[bool]]]
) -> dict[str, int]:
    """How many entries `queue_files_of_rows` would write, by store."""
    counts: dict[str, int] = {}
    for column, which in columns:
        if not column.kept:
            count = connection.scalar(sa.select(sa.func.count()).select_from(_names_in(column, which))) or 0
            counts[column.store] = counts.get(column.store, 0) + count
    return counts


def _names_in(column: FileColumn, which: sa.ColumnElement[bool]) -> sa.Subquery:
    """Each value once."""
    name = sa.cast(column.table.selectable.c[column.column], sa.Text)
    return sa.select(name.label("name")).where(which, name != "").distinct().subquery()


def take(
    connection: sa.Connection, store: str, *, now: datetime, run_id: str | None = None, limit: int = BATCH_FILES
) -> list[Entry]:
    """Lease entries that are due, the longest waiting first, skipping those that other workers lock; commits."""
    due = sa.select(file_outbox.c.id).where(file_outbox.c.store == store, file_outbox.c.next_attempt_at <= now)
    if run_id is not None:
        due = due.where(file_outbox.c.run_id == run_id)
    due = due.order_by(file_outbox.c.next_attempt_at, file_outbox.c.id).limit(limit).with_for_update(skip_locked=True)
    statement = (
        sa.update(file_outbox)
        .where(file_outbox.c.id.in_(due.scalar_subquery()))
        .values(next_attempt_at=now + LEASE, attempts=file_outbox.c.attempts + 1)
        .returning(*_ENTRY)
    )
    found = _entries(connection.execute(statement))
    connection.commit()
    return found


def entries_of(
    connection: sa.Connection, run_id: str, store: str, *, after: int = 0, limit: int = BATCH_FILES
) -> list[Entry]:
    """The entries of a run, whether due or not, in the order of their ids."""
    mine = sa.and_(file_outbox.c.run_id == run_id, file_outbox.c.store == store, file_outbox.c.id > after)
    return _entries(connection.execute(sa.select(*_ENTRY).where(mine).order_by(file_outbox.c.id).limit(limit)))


_ENTRY = [file_outbox.c[name] for name in Entry.__slots__]


def _entries(rows: Iterable[sa.Row[Any]]) -> list[Entry]:
    return [Entry(**row._mapping) for row in rows]


def resolve(connection: sa.Connection, store: Store, entries: Iterable[Entry]) -> list[Entry]:
    """The entries with the names of objects in the place of values of rows; a value of several makes several entries.

    The names are committed before anything is removed, so that a later attempt knows them too. A value that means
    nothing in the store stays as it is. The connection must be in no transaction.

    Raises:
        Unavailable, StorageRefused, ConfigurationError: the store cannot be asked.
    """
    entries = list(entries)
    values = {entry.name for entry in entries if entry.unresolved}
    meant = store.uses.meant(values, store.stored) if values else {}
    if not any(meant.values()):
        return entries
    result: list[Entry] = []
    with connection.begin():
        for entry in entries:
            names = sorted(meant.get(entry.name, ())) if entry.unresolved else []
            if not names:
                result.append(entry)
                continue
            mine = sa.update(file_outbox).where(file_outbox.c.id == entry.id).values(name=names[0], unresolved=False)
            result += _entries(connection.execute(mine.returning(*_ENTRY)))
            result += [_copy(connection, entry.id, name) for name in names[1:]]
    return result


def _copy(connection: sa.Connection, entry_id: int, name: str) -> Entry:
    """A further entry like another, for another object."""
    names = [column.name for column in file_outbox.c if column.name not in ("id", "name")]
    same = sa.select(*(file_outbox.c[each] for each in names), sa.literal(name, sa.Text))
    rows = same.where(file_outbox.c.id == entry_id)
    statement = sa.insert(file_outbox).from_select([*names, "name"], rows).returning(*_ENTRY)
    return _entries(connection.execute(statement))[0]


def announce(connection: sa.Connection, entries: Sequence[Entry]) -> set[int]:
    """Record whose trash each object goes to, and where; the caller commits.

    Returns:
        the entries that are still leased to the caller; the others are not changed.
    """
    given = rows_of(
        id=("bigint[]", [entry.id for entry in entries]),
        attempts=("int[]", [entry.attempts for entry in entries]),
        run_id=("text[]", [entry.run_id for entry in entries]),
        task=("text[]", [entry.task for entry in entries]),
        trash_name=("text[]", [entry.trash_name for entry in entries]),
    )
    values = {name: given.c[name] for name in ("run_id", "task", "trash_name")}
    statement = sa.update(file_outbox).where(_is_leased(given)).values(values)
    return set(connection.scalars(statement.returning(file_outbox.c.id)))


def lock_leased(connection: sa.Connection, entries: Sequence[Entry]) -> set[int]:
    """Lock the entries that are still leased to the caller, until the transaction ends; returns their ids."""
    given = rows_of(
        id=("bigint[]", [entry.id for entry in entries]), attempts=("int[]", [entry.attempts for entry in entries])
    )
    statement = sa.select(file_outbox.c.id).join_from(file_outbox, given, _is_leased(given)).order_by(file_outbox.c.id)
    return set(connection.scalars(statement.with_for_update(of=file_outbox)))


def _is_leased(given: sa.TableValuedAlias) -> sa.ColumnElement[bool]:
    # A lease that ran out may have gone to another worker, and each attempt has its number.
    return sa.and_(file_outbox.c.id == given.c.id, file_outbox.c.attempts == given.c.attempts)


def backoff(attempts: int) -> timedelta:
    """How long to wait after so many failed attempts."""
    return min(FIRST_BACKOFF * (1 << min(attempts - 1, 20)), LONGEST_BACKOFF)
