"""A circuit breaker whose state is a row in PostgreSQL, shared by all processes.

Each run is a process of its own, which would otherwise wait for its own time-outs to learn that storage is down. If
PostgreSQL itself does not answer, each process keeps its own state: the breaker must not cause failures.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP, insert

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import Unavailable
from housekeeping_pipelines.postgres.schema import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_log = logging.getLogger(__name__)

T = TypeVar("T")

circuit_breakers = sa.Table(
    "circuit_breakers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    # Not used: one success closes the circuit.
    sa.Column("successes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("opened_at", TIMESTAMP(timezone=True)),
)

_CLOSED, _OPEN = "closed", "open"

# Most requests to storage take longer than this, so the row is read about once for each.
_FRESH_SECONDS = 1.0
# How long PostgreSQL is left alone after it failed.
_ALONE_SECONDS = 30.0


class Circuit:
    """Counts calls that end in Unavailable; after `failures` of them in a row, calls are refused for `reset_seconds`.

    Then calls are allowed again: the first to succeed closes the circuit, the first to fail opens it again. Calls
    may run at the same time. Any other error counts as an answer.
    """

    def __init__(
        self, name: str, *, engine: sa.Engine | None = None, failures: int = 3, reset_seconds: float = 60.0
    ) -> None:
        """
        Args:
            name: the service that is called, for messages and as the row's key.
            engine: where the row is; None keeps the state in this object.
        """
        self.name = name
        self._max_failures = failures
        self._reset_after = timedelta(seconds=reset_seconds)
        self._row = _SharedRow(name, engine)
        self._recording = threading.Lock()

    def call(self, operation: Callable[[], T]) -> T:
        """What the operation returns.

        Raises:
            Unavailable: the circuit is open, or the operation raised it.
        """
        self._check_state()
        try:
            result = operation()
        except Unavailable:
            self._record_result(answered=False)
            raise
        except Exception:
            self._record_result(answered=True)
            raise
        self._record_result(answered=True)
        return result

    def _check_state(self) -> None:
        if (until := self._refused_until(self._row.read())) is not None:
            raise Unavailable(
                f"{self.name} did not answer and is not called again before {until:%Y-%m-%d %H:%M:%S} UTC",
                hint="it is retried automatically; pending work is kept",
            )

    def _record_result(self, *, answered: bool) -> None:
        with self._recording:
            row = self._row.read()
            if self._refused_until(row) is not None:
                # This call began before the circuit was opened: its result is older.
                return
            if answered:
                if row.state != _CLOSED or row.failures:
                    self._row.update(state=_CLOSED, failures=0)
                return
            row = self._row.add_failure()
            if row.state != _CLOSED or row.failures >= self._max_failures:
                self._row.update(state=_OPEN, opened_at=utc_now())

    def _refused_until(self, row: _Row) -> datetime | None:
        """When calls are allowed again; None if they are allowed now."""
        if row.state != _OPEN or row.opened_at is None:
            return None
        until = row.opened_at + self._reset_after
        return until if utc_now() < until else None


@dataclass(frozen=True, slots=True)
class _Row:
    state: str = _CLOSED
    failures: int = 0
    opened_at: datetime | None = None


class _SharedRow:
    """The row, and its last known values, which are all there is without PostgreSQL."""

    def __init__(self, name: str, engine: sa.Engine | None) -> None:
        self._name = name
        self._engine = engine
        self._row = _Row()
        self._read_at = self._alone_until = float("-inf")
        self._lock = threading.Lock()

    def read(self) -> _Row:
        """The row as it was at most a second ago."""
        with self._lock:
            if time.monotonic() - self._read_at >= _FRESH_SECONDS:
                with self._connection() as connection:
                    if connection is not None:
                        query = sa.select(*_columns()).where(circuit_breakers.c.name == self._name)
                        found = connection.execute(query).one_or_none()
                        self._row = _Row(*found) if found else _Row()
                self._read_at = time.monotonic()
            return self._row

    def update(self, **values: Any) -> None:
        """Set some of the row's columns."""
        with self._lock:
            self._write(replace(self._row, **values), values)

    def add_failure(self) -> _Row:
        """Count a failure, in PostgreSQL, since other processes count there too."""
        with self._lock:
            counted = replace(self._row, failures=self._row.failures + 1)
            self._write(counted, {"failures": circuit_breakers.c.failures + 1})
            return self._row

    def _write(self, row: _Row, changes: dict[str, Any]) -> None:
        """Insert `row`, or make `changes` where there is one."""
        self._row = row
        with self._connection() as connection:
            if connection is not None:
                new = insert(circuit_breakers).values(name=self._name, **asdict(row))
                statement = new.on_conflict_do_update(index_elements=["name"], set_=changes)
                self._row = _Row(*connection.execute(statement.returning(*_columns())).one())
                self._read_at = time.monotonic()

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection | None]:
        """A transaction of its own, or None; an error of PostgreSQL's ends the block and nothing else."""
        if self._engine is None or time.monotonic() < self._alone_until:
            yield None
            return
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            self._alone_until = time.monotonic() + _ALONE_SECONDS
            _log.warning(
                "the state of circuit breaker %s is kept in this process, since PostgreSQL fails: %s",
                self._name,
                str(getattr(error, "orig", None) or error).split("\n")[0],
            )


def _columns() -> list[sa.Column[Any]]:
    return [circuit_breakers.c[field.name] for field in fields(_Row)]
