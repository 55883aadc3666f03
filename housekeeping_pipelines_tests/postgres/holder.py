"""A process of its own that uses the embedded server: `Holder`, and the program that it runs.

The program prints one JSON object for each time it asks for the server, and asks again for each line that it
reads; it ends when its standard input ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
# Tests kill processes, never the machine.
OPTIONS = {"fsync": "off", "shared_buffers": "4MB"}


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for the condition to hold, at most that long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A folder with a short path that every account can reach (pytest's own are root's alone), removed at the end."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30
    folder = Path(tempfile.mkdtemp(prefix="hk-", dir=memory if roomy else None))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for mark in folder.rglob("postmaster.pid"):
            # Only a test that failed leaves its server behind.
            with suppress(OSError, ValueError):
                os.kill(int(mark.read_text().split()[0]), signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


class Holder:
    """Starts or joins the server of a home, and holds it until it ends."""

    def __init__(
        self,
        home: Path,
        *,
        user: int | None = None,
        python: tuple[str, ...] = (sys.executable,),
        paths: tuple[Path, ...] | None = None,
        environ: Mapping[str, str] | None = None,
        databases: tuple[str, ...] = (),
        fork: bool = False,
        **arguments: Any,
    ) -> None:
        paths = (ROOT, *map(Path, site.getsitepackages())) if paths is None else paths
        identity: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        given = {
            "home": str(home),
            "databases": databases,
            "fork": fork,
            "arguments": {"options": OPTIONS, **arguments},
        }
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [*python, __file__, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), **(environ or {})},
            # As a terminal would start it, so that a test can press Ctrl-C.
            process_group=0,
            **identity,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.end()
        self._wait()

    def answer(self) -> dict[str, Any]:
        """What it got: `{data, socket_folder, version, url}`, or an error's `{type, message, hint}`."""
        assert self.process.stdout
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def ask_again(self) -> dict[str, Any]:
        """Have it ask for the server once more."""
        assert self.process.stdin
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self) -> int:
        """Let it end in its own time."""
        assert self.process.stdin
        self.process.stdin.close()
        return self._wait()

    def kill(self) -> None:
        """End it without warning."""
        self.process.kill()
        self._wait()

    def press_control_c(self) -> int:
        """Interrupt its process group, as a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self._wait()

    def _wait(self) -> int:
        code = self.process.wait(60)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        return code


def main() -> None:
    """Run as a program; its argument is the JSON that `Holder` gives."""
    from housekeeping_pipelines.errors import HousekeepingError
    from housekeeping_pipelines.postgres.embedded import embedded_server

    given = json.loads(sys.argv[1])
    if root_folder := given["arguments"].pop("root_folder", None):
        given["arguments"]["root_folder"] = Path(root_folder)

    def ask() -> dict[str, Any]:
        try:
            server = embedded_server(Path(given["home"]), **given["arguments"])
            for name in given["databases"]:
                server.ensure_database(name)
        except HousekeepingError as error:
            return dict(error.to_dict())
        return {
            "data": str(server.data),
            "socket_folder": str(server.socket_folder),
            "version": server.version,
            "url": str(server.url("postgres")),
        }

    print(json.dumps(ask()), flush=True)  # noqa: T201
    if given["fork"] and os.fork():
        return
    for _ in sys.stdin:
        print(json.dumps(ask()), flush=True)  # noqa: T201


if __name__ == "__main__":
    # What a shell puts in the background ignores it, and so would this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
