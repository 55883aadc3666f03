"""A connection that is half open, behind a proxy that forwards nothing any more, ends; one that works long does not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.deletion import trash
from housekeeping_pipelines.postgres import patience
from housekeeping_pipelines.postgres.engine import make_engine
from housekeeping_pipelines_tests.deletion.support import Watcher, delete, family, scalar, task_runner

if TYPE_CHECKING:
    from collections.abc import Iterator


class Proxy:
    """Forwards TCP to the server's socket until it is frozen; then it keeps every connection open, and is silent."""

    def __init__(self, server: sa.URL) -> None:
        self._path = f"{server.query['host']}/.s.PGSQL.{server.query.get('port', 5432)}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.frozen = threading.Event()
        self.url = server.set(host="127.0.0.1", port=self._listener.getsockname()[1], query={})
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            if self.frozen.is_set():
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._path)
            self._sockets.append(server)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.frozen.is_set():
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(engine: sa.Engine) -> Iterator[Proxy]:
    proxy = Proxy(engine.url)
    yield proxy
    proxy.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(patience, "_CONNECT_SECONDS", 2)
    monkeypatch.setattr(trash, "RECOVERY_SECONDS", 1.0)


@pytest.mark.usefixtures("quick")
def test_what_works_long_is_waited_for(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 7 FROM pg_sleep(2)")) == 7


@pytest.mark.usefixtures("quick")
def test_what_waits_for_a_lock_is_waited_for(engine: sa.Engine) -> None:
    with engine.connect() as holder, engine.connect() as connection:
        holder.execute(sa.text("SELECT pg_advisory_lock(1)"))
        threading.Timer(1.5, lambda: holder.execute(sa.text("SELECT pg_advisory_unlock(1)"))).start()
        connection.execute(sa.text("SELECT pg_advisory_lock(1)"))


@pytest.mark.usefixtures("quick")
def test_a_half_open_connection_ends_a_run_with_what_was_committed(engine: sa.Engine, proxy: Proxy) -> None:
    family(engine)
    frozen = make_engine(proxy.url)

    class Freezing(Watcher):
        def on_progress(self, task: str, done: int, candidates: int, rows: int) -> None:
            if done == 4:
                proxy.frozen.set()

    began = time.monotonic()
    report = delete(engine, "parents", runner=task_runner(frozen, observer=Freezing()), batch_size=1)
    assert time.monotonic() - began < 60
    assert (report.status, report.error_type) == ("failed", "Unavailable")
    assert "the server has stopped answering" in (report.message or "")
    left = scalar(engine, "SELECT count(*) FROM parents")
    # The server may be at a batch whose end nobody hears of.
    assert report.deleted["parents"] == 4 == 10 - left


def test_settings_of_a_session_let_no_one_wait_for_ever(engine: sa.Engine, proxy: Proxy) -> None:
    over_tcp = make_engine(proxy.url)
    with over_tcp.connect() as connection:
        shown = {
            name: connection.scalar(sa.text(f"SELECT current_setting('{name}')"))
            for name in ("lock_timeout", "idle_in_transaction_session_timeout")
        }
        driver = connection.connection.driver_connection
        given = driver.info.get_parameters() if driver is not None else {}
    assert shown == {"lock_timeout": "1min", "idle_in_transaction_session_timeout": "15min"}
    assert (given["keepalives_idle"], given["tcp_user_timeout"]) == ("30", "60000")
