"""Whoever found that storage is down tells everyone: a circuit breaker whose state is a row in PostgreSQL.

Each run is a process of its own, which would have to find out anew, time-out by time-out. If PostgreSQL itself does
not answer, each process counts for itself: a breaker must never be what breaks.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import pybreaker
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
    sa.Column("successes", sa.Integer, nullable=False),
    sa.Column("opened_at", TIMESTAMP(timezone=True)),
)

# A request to storage takes longer than this, mostly: the row is read about once for each.
_FRESH_SECONDS = 1.0
# How long PostgreSQL is left alone after it failed.
_ALONE_SECONDS = 30.0


class Circuit:
    """Counts calls that end in Unavailable; after `failures` of them in a row calls are refused for `reset_seconds`.

    Then calls are let through again: the first to succeed closes it, the first to fail opens it anew. Calls may run
    at the same time. Any other error counts as an answer.
    """

    def __init__(
        self, name: str, *, engine: sa.Engine | None = None, failures: int = 3, reset_seconds: float = 60.0
    ) -> None:
        """
        Args:
            name: what is called, for people and as the row's key.
            engine: where the row is; None keeps the state in this object.
        """
        self.name = name
        self._state = _State(name, engine)
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failures, reset_timeout=reset_seconds, state_storage=self._state, throw_new_error_on_trip=False
        )

    def call(self, operation: Callable[[], T]) -> T:
        """What the operation returns.

        Raises:
            Unavailable: the circuit is open, or the operation raised it.
        """
        self._admit()
        try:
            result = operation()
        except Unavailable as error:
            self._note(error)
            raise
        except Exception:
            self._note(None)
            raise
        self._note(None)
        return result

    def _admit(self) -> None:
        opened_at = self._state.opened_at
        if self._breaker.current_state != pybreaker.STATE_OPEN or opened_at is None:
            return
        until = opened_at + timedelta(seconds=self._breaker.reset_timeout)
        if utc_now() < until:
            raise Unavailable(
                f"{self.name} did not answer and is not asked again before {until:%Y-%m-%d %H:%M:%S} UTC",
                hint="it is tried again by itself; what was to be done stays to be done",
            )

    def _note(self, error: Unavailable | None) -> None:
        """Tell pybreaker how a call ended; its own `call` would let one call at a time through."""

        def replay() -> None:
            if error is not None:
                raise error

        with suppress(pybreaker.CircuitBreakerError, Unavailable):
            self._breaker.call(replay)


@dataclass(frozen=True, slots=True)
class _Row:
    state: str = pybreaker.STATE_CLOSED
    failures: int = 0
    successes: int = 0
    opened_at: datetime | None = None


class _State(pybreaker.CircuitBreakerStorage):
    """The row, and what was last known of it, which serves alone where there is no PostgreSQL."""

    def __init__(self, name: str, engine: sa.Engine | None) -> None:
        super().__init__(name)
        self._engine = engine
        self._row = _Row()
        self._read_at = self._alone_until = float("-inf")
        self._lock = threading.RLock()

    @property
    def state(self) -> str:
        return self._current().state

    @state.setter
    def state(self, state: str) -> None:
        self._write(state=state)

    @property
    def counter(self) -> int:
        return self._current().failures

    def increment_counter(self) -> None:
        self._write(add="failures")

    def reset_counter(self) -> None:
        if self._current().failures:
            self._write(failures=0)

    @property
    def success_counter(self) -> int:
        return self._current().successes

    def increment_success_counter(self) -> None:
        self._write(add="successes")

    def reset_success_counter(self) -> None:
        if self._current().successes:
            self._write(successes=0)

    @property
    def opened_at(self) -> datetime | None:
        return self._current().opened_at

    @opened_at.setter
    def opened_at(self, opened_at: datetime) -> None:
        self._write(opened_at=opened_at)

    def _current(self) -> _Row:
        with self._lock:
            if time.monotonic() - self._read_at < _FRESH_SECONDS:
                return self._row
            with self._connection() as connection:
                if connection is not None:
                    query = sa.select(*_columns()).where(circuit_breakers.c.name == self.name)
                    found = connection.execute(query).one_or_none()
                    self._row = _Row(*found) if found else _Row()
            self._read_at = time.monotonic()
            return self._row

    def _write(self, *, add: str | None = None, **values: Any) -> None:
        """Set what is given and add one to `add`: in PostgreSQL, since others count there too."""
        with self._lock:
            counted = {add: getattr(self._row, add) + 1} if add else {}
            self._row = replace(self._row, **values, **counted)
            with self._connection() as connection:
                if connection is None:
                    return
                new = insert(circuit_breakers).values(name=self.name, **asdict(self._row))
                counted = {add: circuit_breakers.c[add] + 1} if add else {}
                statement = new.on_conflict_do_update(index_elements=["name"], set_={**values, **counted})
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
                self.name,
                str(getattr(error, "orig", None) or error).split("\n")[0],
            )


def _columns() -> list[sa.Column[Any]]:
    return [circuit_breakers.c[field.name] for field in fields(_Row)]
