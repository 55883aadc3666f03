"""Commands as real processes that start at once: forked from one that has imported what takes seconds.

`install` writes a small program; called like the command that it is named after, it hands its arguments, folder,
environment and open files to the server, and ends with the exit code of the process that the server forks.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]

_CLIENT = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    request = json.dumps({{"argv": sys.argv[1:], "cwd": os.getcwd(), "environ": dict(os.environ)}})
    socket.send_fds(server, [request.encode()], [0, 1, 2])
    sys.exit(int(server.recv(9)))
"""


def install(file: Path, server: Path) -> None:
    """A command that `serve` does, told by the name of the file whose command it is."""
    code = _CLIENT.format(path=str(server))
    file.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S -c {shlex.quote(code)} "$0" "$@"\n')
    file.chmod(0o755)


@contextlib.contextmanager
def running() -> Iterator[Path]:
    """The server, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="housekeeping-commands-") as folder:
        path = Path(folder, "server")
        code = f"from {__name__} import serve; serve({str(path)!r})"
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield path
            process.kill()


def serve(path: str) -> None:
    """Fork for each command, from a process that has already imported Dagster and the drivers."""
    import alembic.command  # noqa: F401
    import dagster._cli  # noqa: F401
    import dagster_postgres  # noqa: F401
    import psycopg  # noqa: F401
    import psycopg2  # noqa: F401
    import rich.progress  # noqa: F401
    import typer  # noqa: F401

    # Who has ended is not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _become(connection)
            connection.close()


def _become(connection: socket.socket) -> None:
    """Be the command that is asked for, from its environment to its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    request = json.loads(message)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv = request["argv"]
    code = 1
    try:
        if sys.argv[0].endswith("dagster"):
            from dagster._cli import main

            main()  # type: ignore[no-untyped-call]
        else:
            from housekeeping_pipelines.cli import main as housekeeping

            housekeeping()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.flush()
        with contextlib.suppress(OSError):
            connection.sendall(str(code).encode())
        os._exit(0)
