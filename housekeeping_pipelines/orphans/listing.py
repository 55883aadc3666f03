"""A store's listing in a temporary table of the database, streamed there as blocks of text by COPY."""

from __future__ import annotations

import itertools
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP

from housekeeping_pipelines.orphans.cursors import driver_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from housekeeping_pipelines.resources.object_storage import StoredObject

CHUNK = 10_000
# A transaction as long as the listing of a slow bucket would keep vacuum from removing dead rows in every table.
CHUNKS_A_TRANSACTION = 25
MAX_UNREADABLE_SHOWN = 5
OBJECT_COLUMNS = ["size", "modified", "name"]

_ESCAPED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPES = str.maketrans(_ESCAPED)


@runtime_checkable
class NamesInChunks(Protocol):
    """A store that lists the names alone much faster than with sizes and times.

    `inner_links` are links that the listing skipped and whose targets are in the store itself; `volumes` are file
    systems that are mounted below it, as beginnings of names.
    """

    inner_links: list[str]
    volumes: list[str]

    def name_chunks(self, prefix: str, size: int) -> Iterator[list[str]]:
        """Every name that begins with the prefix, at most `size` in a list."""

    def examine(self, names: Iterable[str]) -> Iterator[StoredObject]:
        """See `ObjectStorage`."""


class Listable(Protocol):
    """What has names that may be orphans: any object storage, and a vector store with its documents."""

    @property
    def label(self) -> str:
        """The name of the store in messages."""

    def check(self) -> None:
        """Check that the store can be used, so that an empty listing means an empty store."""

    def list(self, prefix: str = "", *, details: bool = True) -> Iterator[StoredObject]:
        """Every object whose name begins with the prefix, in constant memory."""


@dataclass
class Listed:
    """Counts of a listing.

    Attributes:
        scanned: all files or objects.
        recognised: those of a kind that may be deleted.
        unreadable: those whose name is not valid UTF-8, which neither a row nor the temporary table can hold.
        shown: the first unreadable names, printable.
    """

    scanned: int = 0
    recognised: int = 0
    unreadable: int = 0
    shown: list[str] = field(default_factory=list)

    def skip(self, name: str) -> None:
        """Count a name that cannot be stored."""
        self.unreadable += 1
        if len(self.shown) < MAX_UNREADABLE_SHOWN:
            self.shown.append(ascii(name))


def temporary_table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    """A temporary table of files: `name`, `size`, `modified`, and more columns."""
    return sa.Table(
        name,
        sa.MetaData(),
        # In this collation names are compared as bytes, which is also several times as fast.
        sa.Column("name", sa.Text(collation="C")),
        sa.Column("size", sa.BigInteger),
        sa.Column("modified", TIMESTAMP(timezone=True)),
        *columns,
        prefixes=["TEMPORARY"],
    )


def create(connection: sa.Connection, tables: Iterable[sa.Table]) -> None:
    """Recreate the temporary tables, in a transaction of their own."""
    with connection.begin():
        for table in tables:
            # Only what is in pg_temp is ours to drop.
            connection.exec_driver_sql(f'DROP TABLE IF EXISTS pg_temp."{table.name}"')
            table.create(connection, checkfirst=False)


@dataclass(frozen=True)
class Kind:
    """Which of the listed files may be deleted, by name; the server and this process decide alike.

    Attributes:
        prefix: the beginning of every name.
        extensions: the extensions of files that may be deleted, in any case of ASCII; None: all.
        recursive: False keeps files in folders below the prefix.
    """

    prefix: str = ""
    extensions: Collection[str] | None = None
    recursive: bool = True

    @cached_property
    def _endings(self) -> list[str] | None:
        if self.extensions is None:
            return None
        return sorted({extension.lower().removeprefix(".") for extension in self.extensions})

    def matches(self, name: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        """Whether a name, in the collation C, is of this kind."""
        conditions: list[sa.ColumnElement[bool]] = []
        if self._endings is not None:
            # The slash is for a name that has no dot.
            ending = sa.func.lower(sa.func.split_part(sa.literal("/").concat(name), ".", -1))
            conditions.append(ending.in_(self._endings))
        if not self.recursive:
            conditions.append(sa.func.strpos(sa.func.substr(name, len(self.prefix) + 1), "/") == 0)
        return sa.and_(sa.true(), *conditions)

    def count(self, block: bytes) -> int:
        """How many lines of a block of COPY, which end with the names, are of this kind."""
        if not self.recursive:
            start = len(self.prefix.translate(_ESCAPES).encode())
            lines = (line for line in block.split(b"\n") if line)
            block = b"".join(line + b"\n" for line in lines if b"/" not in line.rpartition(b"\t")[2][start:])
        everything = block.count(b"\n")
        if self._endings is None:
            return everything
        block, found = block.lower(), 0
        for ending in self._endings:
            # Most blocks have one or two extensions: once every line is counted, skip the rest.
            if found == everything:
                break
            # An extension begins after the last dot, so it cannot contain one.
            if "." not in ending:
                found += block.count(f".{ending.translate(_ESCAPES)}\n".encode())
        return found


def load_listing(
    connection: sa.Connection,
    storage: Listable,
    table: sa.Table,
    kind: Kind,
    on_scanned: Callable[[int], None] = lambda count: None,
) -> Listed:
    """Stream a store's listing into a temporary table; sizes and times that need separate calls stay null.

    Args:
        on_scanned: receives the number of files listed so far, at intervals.
    """
    listed = Listed()
    if isinstance(storage, NamesInChunks):
        blocks = (_names_block(chunk, listed) for chunk in storage.name_chunks(kind.prefix, CHUNK))
        columns = ["name"]
    else:
        objects = storage.list(kind.prefix)
        # Pages of a bucket are slow: a listing that pauses sends the chunk that it has.
        blocks = (objects_block(chunk, listed) for chunk in iter(lambda: list(itertools.islice(objects, CHUNK)), []))
        columns = OBJECT_COLUMNS
    while True:
        count = 0
        with copying(connection, table, columns) as write:
            for block in itertools.islice(blocks, CHUNKS_A_TRANSACTION):
                write(block)
                listed.recognised += kind.count(block)
                on_scanned(listed.scanned)
                count += 1
        if count < CHUNKS_A_TRANSACTION:
            return listed


@contextmanager
def copying(connection: sa.Connection, table: sa.Table, columns: Iterable[str]) -> Iterator[Callable[[bytes], None]]:
    """A transaction that writes blocks of COPY's text format to a table."""
    quote = connection.dialect.identifier_preparer.quote
    target = f"{quote(table.name)} ({', '.join(map(quote, columns))})"
    statement = f"COPY pg_temp.{target} FROM STDIN (ENCODING 'UTF8')"
    with (
        connection.begin(),
        driver_errors(connection, statement) as driver,
        driver.cursor() as cursor,
        cursor.copy(statement.encode()) as copy,
    ):
        yield copy.write


def copied_text(name: str) -> str:
    """A name as it stands in a line of COPY."""
    # Few names need escaping, and translate() is slow to find that out.
    return name if name.isprintable() and "\\" not in name else name.translate(_ESCAPES)


def objects_block(objects: Iterable[StoredObject], listed: Listed | None = None) -> bytes:
    """Files as lines of COPY for `OBJECT_COLUMNS`.

    Files whose names cannot be stored are skipped, and counted in `listed`.
    """
    lines: list[str] = []
    for found in objects:
        if listed is not None:
            listed.scanned += 1
            if not _is_text(found.name):
                listed.skip(found.name)
                continue
        size = "\\N" if found.size is None else found.size
        modified = "\\N" if found.modified is None else found.modified.isoformat()
        lines.append(f"{size}\t{modified}\t{copied_text(found.name)}\n")
    return "".join(lines).encode()


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def _names_block(names: list[str], listed: Listed) -> bytes:
    listed.scanned += len(names)
    text = "\n".join(names) + "\n"
    # Few chunks need escaping: test the whole chunk, not each name.
    if text.count("\n") == len(names) and not any(mark in text for mark in _ESCAPED if mark != "\n"):
        with suppress(UnicodeEncodeError):
            return text.encode()
    lines: list[bytes] = []
    for name in names:
        try:
            lines.append(f"{name.translate(_ESCAPES)}\n".encode())
        except UnicodeEncodeError:
            listed.skip(name)
    return b"".join(lines)
