"""Which files nothing refers to, found in the database: the store's listing against every reference source.

The references are read in one snapshot that begins after the listing has ended, so that a file whose row came
meanwhile is not an orphan. Nothing is deleted here, and nothing but temporary tables is written. Memory does not grow
with the number of files or references.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import sqlalchemy as sa

from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.errors import Refused
from housekeeping_pipelines.orphans import listing
from housekeeping_pipelines.orphans.references import ReferenceSource, check_sources, reference_keys, referred_to
from housekeeping_pipelines.resources.object_storage import StoredObject

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from housekeeping_pipelines.resources.object_storage import ObjectStorage

MAX_MISSING_SAMPLE = 50
# Names at a time that are examined and asked holds for.
EXAMINED_AT_ONCE = 10_000

# What the listing and the references do not have in common; `stored` is false for a reference without a file.
_unmatched = listing.temporary_table(
    "housekeeping_unmatched",
    sa.Column("recognised", sa.Boolean),
    sa.Column("stored", sa.Boolean),
    sa.Column("value", sa.Text),
    sa.Column("names", sa.BigInteger),
)
_orphans = listing.temporary_table("housekeeping_orphans")

# Several cursors may be open in one session.
_cursors = itertools.count()

Held = Callable[[list[str]], set[str]]


@dataclass(frozen=True)
class Findings:
    """What was found; counts are of files.

    Attributes:
        scanned: all that the store listed.
        orphaned, orphaned_bytes: nothing refers to them, they are old enough and not held: the candidates.
        young, unrecognised, held: nothing refers to them, but they are too young or of unknown age, of another kind
            or with a name that is not valid UTF-8, or held.
        missing_count: what rows refer to and the store has under none of its names.
        missing: up to 50 of these.
    """

    scanned: int = 0
    orphaned: int = 0
    orphaned_bytes: int = 0
    young: int = 0
    unrecognised: int = 0
    held: int = 0
    missing_count: int = 0
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fitting:
    """How many of the candidates, oldest first, fit a budget, and which one ends them."""

    files: int
    bytes: int
    stopped_reason: Literal["max_files", "max_gigabytes"] | None


@dataclass(frozen=True)
class Orphans:
    """The candidates of one search: they are in the session's temporary tables until the next search in it.

    The methods end the transaction that the connection is in, but for `still_orphans`.
    """

    connection: sa.Connection
    sources: Sequence[ReferenceSource]
    store: str
    limits: Limits
    findings: Findings

    def candidates(self, batch_size: int) -> Iterator[list[StoredObject]]:
        """All of them, oldest first; the caller may commit and roll back between the batches."""
        return self._read(_files().order_by(_orphans.c.modified, _orphans.c.name), batch_size)

    def chosen(
        self, batch_size: int, *, max_files: int | None = None, max_bytes: int | None = None
    ) -> Iterator[list[StoredObject]]:
        """The oldest that fit the budgets, in the order of their names' bytes; one may commit between the batches."""
        queue = _queue()
        files = sa.select(queue.c.name, queue.c.size, queue.c.modified)
        for column, budget in ((queue.c.files, max_files), (queue.c.bytes, max_bytes)):
            if budget is not None:
                files = files.where(column <= budget)
        return self._read(files.order_by(queue.c.name), batch_size)

    def fitting(self, *, max_files: int | None = None, max_bytes: int | None = None) -> Fitting:
        """How much `chosen` will yield: the first file that goes beyond a budget is not taken, nor what follows it."""
        queue = _queue()
        beyond_files = queue.c.files > max_files if max_files is not None else sa.false()
        beyond_bytes = queue.c.bytes > max_bytes if max_bytes is not None else sa.false()
        fits = sa.not_(sa.or_(beyond_files, beyond_bytes))
        statement = sa.select(
            sa.func.count().filter(fits),
            sa.func.coalesce(sa.func.max(queue.c.bytes).filter(fits), 0),
            sa.func.count().filter(beyond_files),
            sa.func.count().filter(beyond_bytes),
        ).select_from(queue)
        with _transaction(self.connection):
            files, size, over_files, over_bytes = self.connection.execute(statement).one()
        if not over_files and not over_bytes:
            return Fitting(files, int(size), None)
        return Fitting(files, int(size), "max_files" if over_files >= over_bytes else "max_gigabytes")

    def largest(self, count: int = 20) -> list[StoredObject]:
        """The candidates that take the most room, the largest first."""
        statement = _files().order_by(_orphans.c.size.desc().nulls_last(), _orphans.c.name).limit(count)
        with _transaction(self.connection):
            return [_stored(row) for row in self.connection.execute(statement)]

    def still_orphans(self, names: Sequence[str]) -> set[str]:
        """See `still_orphans`, with what this search was made with."""
        return still_orphans(self.connection, self.sources, names, store=self.store, limits=self.limits)

    def _read(self, statement: sa.Select[Any], batch_size: int) -> Iterator[list[StoredObject]]:
        return ([_stored(row) for row in rows] for rows in _held_cursor(self.connection, statement, batch_size))


def find_orphans(
    connection: sa.Connection,
    storage: ObjectStorage,
    sources: Sequence[ReferenceSource],
    *,
    older_than: timedelta,
    now: datetime,
    limits: Limits,
    prefix: str = "",
    pattern: Collection[str] | None = None,
    recursive: bool = True,
    held: Held | None = None,
    on_scanned: Callable[[int], None] = lambda count: None,
) -> Orphans:
    """Find the files that nothing refers to, and the references that have no file.

    Args:
        connection: a session of its own, whose temporary tables stay with the result; its transaction is ended.
        older_than: files that were modified since then are young.
        prefix: only what begins so is listed, and counted as missing.
        pattern: the extensions of files that may go, in any case; None: all.
        recursive: False leaves what is in folders below the prefix, as unrecognised.
        held: which of some names are held.
        on_scanned: is told how much is listed so far, every so often.

    Raises:
        Refused: a reference table is empty or nothing in the sources names a file, while the store is not empty; or
            the candidates are more of the recognised files than `limits.max_fraction`.
        ValueError: there is no source.
        sqlalchemy.exc.DBAPIError: the references cannot be read: nothing is known to be an orphan.
        Unavailable, StorageRefused, ConfigurationError: the store cannot be listed to its end.
    """
    keys = reference_keys(sources)
    storage.check()
    _end_transaction(connection)
    listed_table = _listing_table(prefix, pattern, recursive=recursive)
    listing.create(connection, [listed_table, _unmatched, _orphans])
    listed = listing.load_listing(connection, storage, prefix, listed_table, on_scanned)
    if isinstance(storage, listing.NamesInChunks) and storage.inner_links:
        raise Refused(
            f"{storage.label} has links within itself, such as {storage.inner_links[0]}: a row may name a file by one",
            hint="replace them by what they lead to",
        )
    findings = Findings()
    if listed.scanned:
        with _snapshot(connection):
            check_sources(connection, sources, storage.label, limits)
            _match(connection, listed_table, keys, prefix)
        with connection.begin():
            recognised = _count(connection, listed_table, listed_table.c.recognised)
            listed_table.drop(connection, checkfirst=False)
            missing_count, missing = _missing(connection)
            unrecognised = _count(connection, _unmatched, _unmatched.c.stored, sa.not_(_unmatched.c.recognised))
        has_details = not isinstance(storage, listing.NamesInChunks)
        counts = _sift(connection, None if has_details else storage, now - older_than, held)
        findings = Findings(
            scanned=listed.scanned,
            unrecognised=unrecognised + listed.unreadable,
            missing_count=missing_count,
            missing=missing,
            warnings=_warnings(listed),
            **counts,
        )
        check_fraction(storage.label, findings.orphaned, recognised, limits)
    return Orphans(connection, tuple(sources), storage.label, limits, findings)


def still_orphans(
    connection: sa.Connection,
    sources: Sequence[ReferenceSource],
    names: Sequence[str],
    *,
    store: str,
    limits: Limits,
) -> set[str]:
    """Those of the names that nothing refers to now.

    It reads every source whole unless a column is indexed as it is compared, so thousands of names at a time are best.
    The transaction that the connection is in must be READ COMMITTED, as sessions of `make_engine` are: another would
    show the references as they were at its start.

    Raises:
        Refused: a source was emptied meanwhile.
    """
    check_sources(connection, sources, store, limits)
    return set(names) - referred_to(connection, sources, names)


def check_fraction(store: str, candidates: int, total: int, limits: Limits) -> None:
    """
    Raises:
        Refused: the run would take more of the store than `max_fraction`.
    """
    if limits.allow_large_deletion or candidates < limits.guard_minimum or candidates <= limits.max_fraction * total:
        return
    raise Refused(
        f"{candidates:,} of {total:,} files of {store} are candidates, more than {limits.max_fraction:.0%}",
        hint="with allow_large_deletion: true it would run; try that with --dry-run first",
    )


def _listing_table(prefix: str, pattern: Collection[str] | None, *, recursive: bool) -> sa.Table:
    """The kind is found as each row is written: the server has the time for it while the store is being listed."""
    name = sa.column("name", sa.Text)
    recognised = listing.is_recognised(name, prefix, pattern, recursive=recursive)
    return listing.temporary_table(
        "housekeeping_listing", sa.Column("recognised", sa.Boolean, sa.Computed(recognised, persisted=True))
    )


def _end_transaction(connection: sa.Connection) -> None:
    if connection.in_transaction():
        connection.commit()


@contextmanager
def _transaction(connection: sa.Connection) -> Iterator[None]:
    _end_transaction(connection)
    with connection.begin():
        yield


@contextmanager
def _snapshot(connection: sa.Connection) -> Iterator[None]:
    """One view of all references; even a read-only transaction may fill temporary tables."""
    with connection.begin():
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # Nothing is known of the sizes of a temporary table's matches: the planner would sort both sides, and compile.
        connection.exec_driver_sql("SET LOCAL enable_mergejoin = off; SET LOCAL jit = off")
        yield


def _match(connection: sa.Connection, table: sa.Table, keys: sa.CompoundSelect[Any], prefix: str) -> None:
    """Write what the listing and the references do not have in common, both ways at once."""
    files, references = table.alias("files"), keys.subquery("references")
    has_file, has_row = files.c.name.is_not(None), references.c.key.is_not(None)
    unmatched = (
        sa.select(
            sa.func.coalesce(files.c.name, references.c.key),
            files.c.size,
            files.c.modified,
            files.c.recognised,
            has_file,
            references.c.value,
            references.c.names,
        )
        .select_from(files.join(references, files.c.name == references.c.key, full=True))
        # A reference that is no name is null, and matches nothing either.
        .where(has_file != has_row, sa.or_(has_file, sa.func.starts_with(references.c.key, prefix)))
    )
    connection.execute(sa.insert(_unmatched).from_select(list(_unmatched.c.keys()), unmatched))


def _count(connection: sa.Connection, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(table).where(*conditions)) or 0


def _missing(connection: sa.Connection) -> tuple[int, tuple[str, ...]]:
    """How many values have no file under any of their names, and the first of them."""
    found = sa.func.count(_unmatched.c.name.distinct())
    values = sa.select(_unmatched.c.value).where(sa.not_(_unmatched.c.stored))
    missing = values.group_by(_unmatched.c.value).having(found == sa.func.max(_unmatched.c.names)).subquery()
    count = connection.scalar(sa.select(sa.func.count()).select_from(missing)) or 0
    first = sa.select(missing.c.value).order_by(missing.c.value).limit(MAX_MISSING_SAMPLE)
    return count, tuple(connection.scalars(first)) if count else ()


def _sift(
    connection: sa.Connection, examining: ObjectStorage | None, floor: datetime, held: Held | None
) -> dict[str, int]:
    """Write the unmatched files that may go to the table of orphans, with sizes and times; count them and the rest."""
    counts = {"orphaned": 0, "orphaned_bytes": 0, "young": 0, "held": 0}
    unmatched = (
        sa.select(_unmatched.c.name, _unmatched.c.size, _unmatched.c.modified)
        .where(_unmatched.c.stored, _unmatched.c.recognised)
        .order_by(_unmatched.c.name)
    )
    for rows in _held_cursor(connection, unmatched, EXAMINED_AT_ONCE):
        files = [_stored(row) for row in rows] if examining is None else examining.examine(row[0] for row in rows)
        old: list[StoredObject] = []
        for file in files:
            if file.modified is not None and file.modified < floor:
                old.append(file)
            else:
                counts["young"] += 1
        if held is not None and old and (kept := held([file.name for file in old])):
            counts["held"] += sum(file.name in kept for file in old)
            old = [file for file in old if file.name not in kept]
        counts["orphaned"] += len(old)
        counts["orphaned_bytes"] += sum(file.size or 0 for file in old)
        _end_transaction(connection)
        with listing.copying(connection, _orphans, ["name", "size", "modified"]) as write:
            write(listing.objects_block(old))
    return counts


def _held_cursor(connection: sa.Connection, statement: sa.Select[Any], batch_size: int) -> Iterator[list[Any]]:
    """The rows in batches, from a cursor that outlives transactions."""
    compiled = statement.compile(connection, compile_kwargs={"render_postcompile": True})
    _end_transaction(connection)
    with listing.driver_errors(connection, str(compiled)) as driver:
        cursor = driver.cursor(f"housekeeping_files_{next(_cursors)}", withhold=True)
        try:
            cursor.execute(str(compiled).encode(), compiled.params)
            driver.commit()
            while rows := _apart(driver, lambda: cursor.fetchmany(batch_size)):
                yield rows
        finally:
            _apart(driver, cursor.close)


def _apart(driver: psycopg.Connection[Any], act: Callable[[], Any]) -> Any:
    """Do something in a transaction of its own, unless the caller has one open, which stays as it is."""
    idle = driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    result = act()
    if idle:
        driver.commit()
    return result


def _files() -> sa.Select[Any]:
    return sa.select(_orphans.c.name, _orphans.c.size, _orphans.c.modified)


def _queue() -> sa.Subquery:
    """The candidates with how many files and bytes it is up to each of them, oldest first."""
    so_far: dict[str, Any] = {"order_by": (_orphans.c.modified, _orphans.c.name), "rows": (None, 0)}
    return (
        _files()
        .add_columns(
            sa.func.row_number().over(order_by=so_far["order_by"]).label("files"),
            sa.func.sum(sa.func.coalesce(_orphans.c.size, 0)).over(**so_far).label("bytes"),
        )
        .subquery()
    )


def _stored(row: Any) -> StoredObject:
    name, size, modified = row
    return StoredObject(name, size, modified and modified.astimezone(UTC))


def _warnings(listed: listing.Listed) -> tuple[str, ...]:
    if not listed.unreadable:
        return ()
    names = ", ".join(listed.shown)
    return (f"{listed.unreadable:,} files have names that are not valid UTF-8, and are left: {names}",)
