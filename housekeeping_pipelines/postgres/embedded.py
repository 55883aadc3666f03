"""The embedded PostgreSQL, for installations without DATABASE_URL: started on demand, stopped by its last user.

State that must survive a killed process is an flock, which the kernel releases with its holder: each process that uses
the server holds a shared lock on `postgres.users` for its lifetime, `postgres.lock` serialises starting and stopping,
and the server itself inherits `postgres.running`. Recorded pids are not trusted.

The server does not listen on any network. Its socket is in a folder of mode 0700, so trust authentication admits one
account and root; if root starts it, that account is `nobody` (see `binaries`).
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg
import sqlalchemy as sa
from psycopg import sql

from housekeeping_pipelines.atomic_files import make_folder
from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError, Unavailable
from housekeeping_pipelines.postgres.binaries import (
    ROOT_FOLDER,
    SET_ADDRESSES,
    Account,
    account_for,
    binaries_for,
    data_folder,
)

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PORT = "5432"
_SOCKET = f".s.PGSQL.{_PORT}"
_LOG = "server.log"
_LOG_BYTES = 10_000_000
_POLL_SECONDS = 0.02
# sockaddr_un.sun_path less its final zero: 108 bytes on Linux, 104 on macOS.
_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
# The server gets its own environment: PostgreSQL reads PGPORT and the like, and translates its messages.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
# The built-in locale needs none of the operating system's.
_INITDB = (
    *("--username=postgres", "--auth=trust", "--no-instructions"),
    *("--encoding=UTF8", "--locale-provider=builtin", "--locale=C", "--builtin-locale=C.UTF-8"),
)
_OPTIONS = {
    "listen_addresses": "",
    "port": _PORT,
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
_NOT_A_USABLE_FOLDER = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
)

_mutex = threading.Lock()
_joined: set[Path] = set()
if sys.platform != "win32":
    # A child forked while a lock is being taken or handed on would keep a copy of it.
    os.register_at_fork(before=_mutex.acquire, after_in_parent=_mutex.release, after_in_child=_mutex.release)


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server; `version` is that of PostgreSQL, such as `18.4`."""

    data: Path
    socket_folder: Path
    version: str

    def url(self, database: str) -> sa.URL:
        """The address of one of its databases, without a driver (`postgresql`)."""
        return _url(self.socket_folder, database)

    def ensure_database(self, name: str) -> None:
        """Create the database if it is absent; concurrent calls are safe."""
        create_database(self.url("postgres"), name)


def embedded_server(
    home: Path,
    *,
    options: Mapping[str, str] | None = None,
    timeout_seconds: float = 120.0,
    root_folder: Path = ROOT_FOLDER,
) -> EmbeddedServer:
    """The server whose data is `home/postgres/data`, started or joined, and kept running while this process lives.

    Calling it again is cheap, and restarts the server if it has died meanwhile.

    Args:
        home: created if absent, with the data.
        options: PostgreSQL settings by name; they apply only if this call starts the server.
        timeout_seconds: for others to finish starting or stopping it, or for its recovery from a crash.
        root_folder: where root keeps files that the server's account could not reach elsewhere.

    Raises:
        ConfigurationError: the folder cannot be used, or the binaries are not installed.
        Unavailable: the disk is full, or the server does not start, recover or answer.
    """
    folder = home.resolve() / "postgres"
    try:
        with _mutex, _locked(_made(folder), timeout_seconds):
            cluster = _Cluster.at(folder, options or {}, timeout_seconds, root_folder)
            server = cluster.server()
            if folder not in _joined:
                atexit.register(cluster.leave, _join(folder))
                _joined.add(folder)
            return server
    except OSError as error:
        message = f"{error.filename or folder}: {error.strerror or error}"
        raise _explain(message, folder, error.errno) from error


def has_cluster(home: Path) -> bool:
    """Whether an embedded server has ever been started with this home."""
    # Root may have made it a link to where only root looks.
    return os.path.lexists(home / "postgres" / "data")


def has_database(server: sa.URL, name: str) -> bool:
    """Whether the server of that address has a database of this name.

    Raises:
        psycopg.Error: the server cannot be reached.
    """
    with _connect(server) as connection:
        return _has_database(connection, name)


def _has_database(connection: psycopg.Connection[Any], name: str) -> bool:
    return bool(connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).rowcount)


def create_database(server: sa.URL, name: str) -> None:
    """Create the database `name` on the server of that address if it is absent; concurrent calls are safe.

    Raises:
        psycopg.Error: the server cannot be reached, or permission is missing.
    """
    with _connect(server) as connection:
        if not _has_database(connection, name):
            # Losing a race raises one or the other, depending on the timing.
            with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


@dataclass(frozen=True, slots=True)
class _Cluster:
    """One data folder with the programs and the account that serve it; call its methods under `_locked`."""

    folder: Path
    data: Path
    binaries: Path
    account: Account
    options: Mapping[str, str]
    timeout_seconds: float

    @classmethod
    def at(cls, folder: Path, options: Mapping[str, str], timeout_seconds: float, root_folder: Path) -> Self:
        account = account_for(folder / "data")
        data = data_folder(folder, account, root_folder)
        binaries = binaries_for(data, account, root_folder)
        return cls(folder, data, binaries, account, options, timeout_seconds)

    def server(self) -> EmbeddedServer:
        """The running server, which is started if needed."""
        deadline = time.monotonic() + self.timeout_seconds
        while True:
            try:
                return self._ask()
            except (psycopg.OperationalError, FileNotFoundError) as error:
                if not self._start() and time.monotonic() > deadline:
                    raise Unavailable(
                        f"the embedded PostgreSQL is running but does not answer: {_reason(str(error))}",
                        hint=f"it may be recovering, try again later; see its log, {self.folder / _LOG}",
                    ) from error
                time.sleep(_POLL_SECONDS)

    def leave(self, users: int) -> None:
        """Release the server, and stop it if no other process holds it; takes the lock itself."""
        os.close(users)
        # A failure here is harmless: the next process joins the server, or starts it and it recovers.
        with (
            suppress(OSError, HousekeepingError),
            _locked(self.folder, self.timeout_seconds),
            _opened(self.folder / "postgres.users") as last,
        ):
            if _flock(last, exclusive=True):
                self._run("pg_ctl", "stop", "-m", "fast", "-t", "60")

    def _ask(self) -> EmbeddedServer:
        # Read from the server: the process that started it may have had another TMPDIR.
        lines = (self.data / "postmaster.pid").read_text(errors="surrogateescape").splitlines()
        socket_folder = Path(lines[4]) if len(lines) > 4 else self.data
        with _connect(_url(socket_folder, "postgres")) as connection:
            version = connection.info.parameter_status("server_version") or ""
        return EmbeddedServer(self.data, socket_folder, version)

    def _start(self) -> bool:
        """Start it; False if it, or one of its processes, is still running."""
        log_file = self.folder / _LOG
        with _opened(self.folder / "postgres.running") as running, _opened(log_file, os.O_APPEND) as log:
            if not _flock(running, exclusive=True):
                return False
            if not self.data.exists() or not any(self.data.iterdir()):
                self._initialise(running)
            if os.fstat(log).st_size > _LOG_BYTES:
                os.truncate(log, 0)
            before = os.fstat(log).st_size
            socket_folder = self._socket_folder()
            _forget_reused_pid(self.data / "postmaster.pid")
            _forget_reused_pid(socket_folder / f"{_SOCKET}.lock")
            settings = {**_OPTIONS, "unix_socket_directories": str(socket_folder), **self.options}
            line = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
            wait = ("-w", "-t", f"{max(60, self.timeout_seconds):.0f}")
            if self._run("pg_ctl", "start", "-s", *wait, "-o", line, log=log, keep=running):
                with log_file.open(errors="replace") as text:
                    text.seek(before)
                    reason = _reason(text.read())
                raise _explain(f"the embedded PostgreSQL does not start: {reason}", self.data)
        return True

    def _initialise(self, running: int) -> None:
        """Create the data folder atomically; initdb inherits the lock on `running`, as the server does."""
        self.data.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in self.data.parent.glob("data.new-*"):
            shutil.rmtree(left_behind, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(dir=self.data.parent, prefix="data.new-"))
        try:
            self.account.own(draft)
            sync = ("--no-sync",) if self.options.get("fsync") == "off" else ()
            with tempfile.TemporaryFile("w+") as output:
                if self._run("initdb", "-D", draft, *_INITDB, *sync, log=output.fileno(), keep=running):
                    output.seek(0)
                    reason = _reason(output.read())
                    raise _explain(f"the embedded PostgreSQL cannot be set up: {reason}", draft)
            draft.rename(self.data)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _socket_folder(self) -> Path:
        """The data folder, which is private, or a private one in the temporary folder if the path is too long."""
        digest = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:12]
        short = Path(tempfile.gettempdir(), f"housekeeping-{self.account.uid}-{digest}")
        if _is_address(self.data):
            return self.data
        if not _is_address(short):
            raise ConfigurationError(
                f"the path of the embedded PostgreSQL's socket would have a comma, or more than this system's"
                f" limit of {_SOCKET_PATH_BYTES} bytes, in {self.data} as in {short.parent}",
                hint="give HOUSEKEEPING_HOME or TMPDIR a shorter path without commas",
            )
        with suppress(FileExistsError):
            short.mkdir(mode=0o700)
            self.account.own(short)
        found = short.lstat()
        if (found.st_mode, found.st_uid) != (stat.S_IFDIR | 0o700, self.account.uid):
            raise ConfigurationError(
                f"{short}, meant for the embedded PostgreSQL's socket, is not a private folder of its account",
                hint="remove it, or give HOUSEKEEPING_HOME a shorter path without commas",
            )
        return short

    def _run(self, program: str, *arguments: str | Path, log: int = subprocess.DEVNULL, keep: int | None = None) -> int:
        return subprocess.run(  # noqa: S603
            [self.binaries / program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # pg_ctl would pass a -D option to a shell.
            env={**_ENVIRONMENT, "PGDATA": str(self.data)},
            cwd="/",
            # A terminal sends Ctrl-C to its whole session.
            start_new_session=True,
            pass_fds=() if keep is None else (keep,),
            check=False,
            **self.account.run_as,
        ).returncode


def _forget_reused_pid(mark: Path) -> None:
    """Remove a pid file that would prevent the server from starting although its pid now belongs to another process.

    That is common in a restarted container; so are zombies, which count as alive. No process of this cluster runs at
    this point, and the pid file of a server that was started by hand is kept.
    """
    with suppress(OSError, ValueError, IndexError):
        pid = int(mark.read_text(errors="replace").split()[0])
        name, _, state = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(") ")
        if name != "postgres" or state.startswith("Z"):
            mark.unlink()


def _made(folder: Path) -> Path:
    if not folder.is_dir():
        make_folder(folder)
        # If root runs this, the server's account must be able to reach its data.
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return folder


@contextmanager
def _locked(folder: Path, timeout_seconds: float) -> Iterator[None]:
    """An exclusive lock for starting and stopping, among processes and threads."""
    deadline = time.monotonic() + timeout_seconds
    with _opened(folder / "postgres.lock") as lock:
        while not _flock(lock, exclusive=True):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"another process is starting or stopping the embedded PostgreSQL in {folder}, "
                    f"for more than {timeout_seconds:g} seconds now",
                    hint="try again later, or end that process",
                )
            time.sleep(_POLL_SECONDS)
        yield


def _join(folder: Path) -> int:
    """A file descriptor that keeps the server running while it, or a forked child's copy of it, is open."""
    with _opened(folder / "postgres.users") as users:
        _flock(users, exclusive=False)
        return os.dup(users)


@contextmanager
def _opened(path: Path, flags: int = 0) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _flock(descriptor: int, *, exclusive: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _url(socket_folder: Path, database: str) -> sa.URL:
    # Without an explicit port an exported PGPORT would apply.
    query = {"host": str(socket_folder), "port": _PORT}
    return sa.URL.create("postgresql", username="postgres", database=database, query=query)


def _connect(url: sa.URL) -> psycopg.Connection:
    url = url.set(drivername="postgresql+psycopg")
    _, keywords = url.get_dialect()().create_connect_args(url)
    return psycopg.connect(**{"connect_timeout": 10, **keywords}, autocommit=True)


def _is_address(folder: Path) -> bool:
    # The server splits its list of folders at commas, and clients their list of hosts.
    path = os.fsencode(folder / _SOCKET)
    return len(path) <= _SOCKET_PATH_BYTES and b"," not in path


def _reason(output: str) -> str:
    """The first line that names an error, without its date and pid; later ones are consequences."""
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith(("pg_ctl:", "Examine"))]
    wrong = [m.group(1) for line in lines if (m := re.search(r"(?:FATAL|PANIC|ERROR|error):\s+(.*)", line))]
    return [*wrong, *lines[-1:], "it gave no reason"][0].strip()


def _explain(message: str, place: Path, code: int | None = None) -> HousekeepingError:
    """The error for a failure in `place`; a full disk is recognised even if there was no space for a log line."""
    folder = next(folder for folder in (place, *place.parents) if folder.exists())
    full = code in (errno.ENOSPC, errno.EDQUOT) or "No space left" in message
    if full or shutil.disk_usage(folder).free < 1_000_000:
        hint = f"free some space for {folder} (a new server needs 60 MB)"
        return Unavailable(f"the disk is full: {message}", hint=hint)
    if code in _NOT_A_USABLE_FOLDER:
        hint = f"give HOUSEKEEPING_HOME a folder that this account can write, or {SET_ADDRESSES}"
        return ConfigurationError(message, hint=hint)
    return Unavailable(message, hint=f"fix the cause, or {SET_ADDRESSES}")
