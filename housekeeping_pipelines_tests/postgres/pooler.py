"""Debian's pgbouncer in front of the tests' server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines_tests.support import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed; .ci/run installs it")

_CONFIGURATION = """
[databases]
{database} = host={host} port={port} dbname={database} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
{user}
"""


@contextmanager
def pooler(folder: Path, server: sa.URL, mode: str) -> Iterator[sa.URL]:
    """The address of one database of the server through a pooler in `transaction` or `session` mode."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        listen = probe.getsockname()[1]
    file = folder / "pgbouncer.ini"
    # Root's pooler runs as another account.
    user = "user = nobody" if os.geteuid() == 0 else ""
    file.write_text(
        _CONFIGURATION.format(
            database=server.database, host=server.query["host"], port=server.query.get("port", 5432), listen=listen,
            mode=mode, user=user,
        )
    )  # fmt: skip
    assert PROGRAM is not None
    # It reads its configuration before it gives up being root.
    with subprocess.Popen([PROGRAM, "-q", str(file)], stderr=subprocess.PIPE) as process:
        try:
            until(lambda: _answers(listen) or process.poll() is not None, seconds=20)
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield server.set(drivername="postgresql", host="127.0.0.1", port=listen, username="postgres", query={})
        finally:
            process.terminate()
            process.communicate()


def _answers(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
