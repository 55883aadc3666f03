"""Which files nothing refers to, found in the database: the store's listing against every reference source.

The references are read in one snapshot that begins after the listing has ended, so that a file whose row came
meanwhile is not an orphan. Nothing is deleted here, and nothing but temporary tables is written. Memory does not grow
with the number of files or references.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.orphans import listing
from housekeeping_pipelines.resources.object_storage import StoredObject
from housekeeping_pipelines.stores.references import ReferenceSource, reference_keys, referred_to

if TYPE_CHECKING:
    from datetime import datetime, timedelta


MAX_MISSING_SAMPLE = 50
# Names at a time that are examined, and asked holds for: with fewer, a folder is opened more often.
EXAMINED_AT_ONCE = 20_000
# How many times as many may wait to be examined, until the database has to wait.
MAX_WAITING = 4
# Candidates take a file rather than memory beyond this.
MAX_IN_MEMORY_BYTES = 8 * 2**20
# Rows that the driver takes from the server at once.
_STREAMED_AT_ONCE = 1000

# What the listing and the references do not have in common, less the files that may go; `stored` is false for a
# reference without a file.
_unmatched = listing.temporary_table(
    "housekeeping_unmatched",
    sa.Column("recognised", sa.Boolean),
    sa.Column("stored", sa.Boolean),
    sa.Column("value", sa.Text(collation="C")),
    sa.Column("names", sa.BigInteger),
)
_listing = listing.temporary_table("housekeeping_listing")
_orphans = listing.temporary_table("housekeeping_orphans")

# Several cursors may be open in one session.
_cursors = itertools.count()

Held = Callable[[list[str]], set[str]]
Examine = Callable[[list[str]], Iterator[StoredObject]]


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
    storage: listing.Listable,
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
    kind = listing.Kind(prefix, pattern, recursive)
    listing.create(connection, [_listing, _unmatched, _orphans])
    listed = listing.load_listing(connection, storage, prefix, _listing, kind, on_scanned)
    if isinstance(storage, listing.NamesInChunks):
        guards.check_no_inner_links(storage.label, storage.inner_links)
    findings = Findings()
    if listed.scanned:
        later = storage.examine if isinstance(storage, listing.NamesInChunks) else None
        examine = partial(_examined, later, now - older_than)
        with closing(_Sieve(connection, examine)) as sieve:
            with _snapshot(connection):
                guards.check_sources(connection, sources, keys, storage.label, limits)
                sieve.take_in(_match(keys, kind))
            with connection.begin():
                _listing.drop(connection, checkfirst=False)
                missing_count, missing = _missing(connection)
                unrecognised = _count(connection, _unmatched, _unmatched.c.stored)
            total = sieve.let_out()
        held_count, held_bytes = _leave_held(connection, held) if held is not None else (0, 0)
        findings = Findings(
            scanned=listed.scanned,
            orphaned=total.files - held_count,
            orphaned_bytes=total.bytes - held_bytes,
            young=total.young,
            unrecognised=unrecognised + listed.unreadable,
            held=held_count,
            missing_count=missing_count,
            missing=missing,
            warnings=_warnings(listed),
        )
        guards.check_fraction(f"entries of {storage.label}", findings.orphaned, listed.recognised, limits)
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
    guards.check_sources(connection, sources, reference_keys(sources), store, limits)
    return set(names) - referred_to(connection, sources, names)


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
        # A hash table that the processor's cache holds, a part at a time, is twice as fast as one that memory holds.
        connection.exec_driver_sql("SET LOCAL work_mem = '2MB'; SET LOCAL hash_mem_multiplier = 1")
        yield


def _match(keys: sa.CompoundSelect[Any], kind: listing.Kind) -> sa.Select[Any]:
    """What the listing and the references do not have in common, both ways at once.

    The statement yields the files that may go as it finds them, and writes the rest to its table.
    """
    files, references = _listing.alias("files"), keys.subquery("references")
    has_file, has_row = files.c.name.is_not(None), references.c.key.is_not(None)
    unmatched = (
        sa.select(
            sa.func.coalesce(files.c.name, references.c.key).label("name"),
            files.c.size,
            files.c.modified,
            kind.holds(files.c.name).label("recognised"),
            has_file.label("stored"),
            references.c.value,
            references.c.names,
        )
        .select_from(files.join(references, files.c.name == references.c.key, full=True))
        # A reference that is no name is null, and matches nothing either.
        .where(has_file != has_row, sa.or_(has_file, sa.func.starts_with(references.c.key, kind.prefix)))
        .cte("unmatched")
    )
    may_go = sa.and_(unmatched.c.stored, unmatched.c.recognised)
    columns = list(_unmatched.c.keys())
    rest = sa.insert(_unmatched).from_select(
        columns, sa.select(*(unmatched.c[name] for name in columns)).where(sa.not_(may_go))
    )
    return sa.select(unmatched.c.name, unmatched.c.size, unmatched.c.modified).where(may_go).add_cte(rest.cte("rest"))


def _count(connection: sa.Connection, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(table).where(*conditions)) or 0


def _missing(connection: sa.Connection) -> tuple[int, tuple[str, ...]]:
    """How many values have no file under any of their names, and the first of them."""
    value = sa.func.coalesce(_unmatched.c.value, _unmatched.c.name).label("value")
    found = sa.func.count(_unmatched.c.name.distinct())
    missing = (
        sa.select(value)
        .where(sa.not_(_unmatched.c.stored))
        .group_by(value)
        .having(found == sa.func.max(_unmatched.c.names))
        .subquery()
    )
    first = sa.select(missing.c.value, sa.func.count().over()).order_by(missing.c.value).limit(MAX_MISSING_SAMPLE)
    rows = connection.execute(first).all()
    return rows[0][1] if rows else 0, tuple(value for value, _ in rows)


@dataclass(frozen=True)
class _Examined:
    """Unmatched files that are old enough, as a block of COPY, and how many they and the young ones are."""

    block: bytes = b""
    files: int = 0
    bytes: int = 0
    young: int = 0

    def __add__(self, other: _Examined) -> _Examined:
        """The counts of both; blocks are not kept."""
        return _Examined(files=self.files + other.files, bytes=self.bytes + other.bytes, young=self.young + other.young)


def _examined(later: Examine | None, floor: datetime, rows: list[Any]) -> _Examined:
    files = map(_stored, rows) if later is None else later(sorted(row[0] for row in rows))
    old: list[StoredObject] = []
    young = 0
    for file in files:
        if file.modified is not None and file.modified < floor:
            old.append(file)
        else:
            young += 1
    return _Examined(listing.objects_block(old), len(old), sum(file.size or 0 for file in old), young)


class _Sieve:
    """Unmatched files are examined in a thread while the database still finds them, and then the old ones written."""

    def __init__(self, connection: sa.Connection, examine: Callable[[list[Any]], _Examined]) -> None:
        self._connection = connection
        self._examine = examine
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[_Examined]] = deque()
        # The connection is busy with the matches until they end.
        self._old = SpooledTemporaryFile(MAX_IN_MEMORY_BYTES)  # noqa: SIM115
        self._total = _Examined()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._old.close()

    def take_in(self, matches: sa.Select[Any]) -> None:
        """Go through the matches in the transaction that is open."""
        with closing(_streamed(self._connection, matches, EXAMINED_AT_ONCE)) as batches:
            for rows in batches:
                self._waiting.append(self._thread.submit(self._examine, rows))
                while len(self._waiting) > MAX_WAITING or (self._waiting and self._waiting[0].done()):
                    self._keep_first()

    def let_out(self) -> _Examined:
        """Write the table of orphans; what it holds and how many were young."""
        while self._waiting:
            self._keep_first()
        self._old.seek(0)
        with listing.copying(self._connection, _orphans, listing.OBJECT_COLUMNS) as write:
            while block := self._old.read(2**16):
                write(block)
        return self._total

    def _keep_first(self) -> None:
        examined = self._waiting.popleft().result()
        self._old.write(examined.block)
        self._total += examined


def _leave_held(connection: sa.Connection, held: Held) -> tuple[int, int]:
    """Take what is held from the table of orphans; how many files and bytes that is."""
    files = size = 0
    for rows in _held_cursor(connection, sa.select(_orphans.c.name), EXAMINED_AT_ONCE):
        if kept := held([name for (name,) in rows]):
            names = sa.bindparam("names", sorted(kept), ARRAY(sa.Text))
            statement = sa.delete(_orphans).where(_orphans.c.name == sa.any_(names)).returning(_orphans.c.size)
            with _transaction(connection):
                sizes = connection.scalars(statement).all()
            files, size = files + len(sizes), size + sum(each or 0 for each in sizes)
    return files, size


def _streamed(connection: sa.Connection, statement: sa.Select[Any], batch_size: int) -> Generator[list[Any]]:
    """The rows in batches as the server finds them; the transaction that is open must stay so."""
    compiled = statement.compile(connection, compile_kwargs={"render_postcompile": True})
    at_once = _STREAMED_AT_ONCE if psycopg.capabilities.has_stream_chunked() else 1
    with listing.driver_errors(connection, str(compiled)) as driver, driver.cursor() as cursor:
        rows = cursor.stream(str(compiled).encode(), compiled.params, size=at_once)
        while batch := list(itertools.islice(rows, batch_size)):
            yield batch


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
