"""A connection that asks, when an answer takes long, whether the server is still at work on it.

A half-open connection, whose other end is gone or behind a firewall that forgot it, never answers and never fails. TCP
notices that of a host that is gone, but not of a proxy or a tunnel in between. So after a minute without an answer the
server is asked by a second connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import errors, sql

if TYPE_CHECKING:
    from psycopg.abc import PQGen

RV = TypeVar("RV")

# How long an answer may take until the server is asked, and again between two questions.
QUIET_SECONDS = 60.0
# How often in a row the server must not answer the question, or say that it does nothing.
MAX_DOUBTS = 3
# As psycopg's own.
_INTERVAL_SECONDS = 0.1
_CONNECT_SECONDS = 10

# A session that waits for us to read has answered into nothing: we do wait for its answer.
_IS_AT_WORK = sql.SQL(
    "SELECT state = 'active' AND wait_event IS DISTINCT FROM 'ClientWrite' FROM pg_stat_activity WHERE pid = %s"
)


class PatientConnection(psycopg.Connection[Any]):
    """Waits for as long as the server works."""

    def wait(self, gen: PQGen[RV], interval: float = _INTERVAL_SECONDS, timeout: float | None = None) -> RV:
        """
        Raises:
            psycopg.OperationalError: the connection is lost without being closed; it is closed now.
        """
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        doubts = 0
        while True:
            try:
                return super().wait(gen, interval, QUIET_SECONDS)
            except errors._WaitTimeout:
                doubts = 0 if self._is_at_work() else doubts + 1
                if doubts >= MAX_DOUBTS:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server has stopped answering") from None

    def _is_at_work(self) -> bool:
        parameters: dict[str, Any] = {**self.info.get_parameters(), "password": self.info.password}
        parameters["connect_timeout"] = _CONNECT_SECONDS
        try:
            with psycopg.connect(**parameters) as other:
                found = other.execute(_IS_AT_WORK, [self.info.backend_pid]).fetchone()
        except psycopg.Error:
            return False
        return bool(found and found[0])
