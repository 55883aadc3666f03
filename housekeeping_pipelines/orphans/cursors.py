"""Rows in batches from the driver's own cursors, so that memory does not grow with their number."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

# Rows per fetch from the server.
FETCH_SIZE = 1000

# Several cursors may be open in one session.
_numbers = itertools.count()


def streamed(connection: sa.Connection, statement: sa.Select[Any], batch_size: int) -> Generator[list[Any]]:
    """The rows in batches as the server finds them; the transaction that is open must stay open."""
    compiled = statement.compile(connection, compile_kwargs={"render_postcompile": True})
    fetch_size = FETCH_SIZE if psycopg.capabilities.has_stream_chunked() else 1
    with driver_errors(connection, str(compiled)) as driver, driver.cursor() as cursor:
        rows = cursor.stream(str(compiled).encode(), compiled.params, size=fetch_size)
        while batch := list(itertools.islice(rows, batch_size)):
            yield batch


def held_cursor(connection: sa.Connection, statement: sa.Select[Any], batch_size: int) -> Iterator[list[Any]]:
    """The rows in batches, from a cursor that outlives transactions."""
    compiled = statement.compile(connection, compile_kwargs={"render_postcompile": True})
    end_transaction(connection)
    with driver_errors(connection, str(compiled)) as driver:
        cursor = driver.cursor(f"housekeeping_files_{next(_numbers)}", withhold=True)
        try:
            cursor.execute(str(compiled).encode(), compiled.params)
            driver.commit()
            while rows := _in_own_transaction(driver, lambda: cursor.fetchmany(batch_size)):
                yield rows
        finally:
            _in_own_transaction(driver, cursor.close)


def _in_own_transaction(driver: psycopg.Connection[Any], act: Callable[[], Any]) -> Any:
    """Do something in a transaction of its own, unless the caller has one open, which is left as it is."""
    idle = driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    result = act()
    if idle:
        driver.commit()
    return result


@contextmanager
def driver_errors(connection: sa.Connection, statement: str) -> Iterator[psycopg.Connection[Any]]:
    """The driver's connection; what it raises becomes what SQLAlchemy would raise, who learns of a lost one."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101
    try:
        yield driver
    except psycopg.Error as error:
        if driver.closed:
            connection.invalidate(error)
        raise sa.exc.DBAPIError(statement, None, error, connection_invalidated=driver.closed) from error


def end_transaction(connection: sa.Connection) -> None:
    """Commit the transaction that the connection is in, if it is in one."""
    if connection.in_transaction():
        connection.commit()


@contextmanager
def transaction(connection: sa.Connection) -> Iterator[None]:
    """A new transaction; the one that the connection is in is committed."""
    end_transaction(connection)
    with connection.begin():
        yield
