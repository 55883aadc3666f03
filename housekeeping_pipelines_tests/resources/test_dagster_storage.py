"""Dagster's storage and the two addresses: a real server, and Dagster's own commands in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.errors import ConfigurationError, Unavailable
from housekeeping_pipelines.postgres.addresses import dagster_url, platform_url
from housekeeping_pipelines.resources.dagster_home import dagster_home, write_env_file
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines_tests.postgres.holder import ROOT, Holder, reachable_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFINITIONS = """
import logging
import dagster as dg

@dg.op
def say() -> None:
    logging.getLogger("housekeeping_pipelines.said").info("said by the engine")

@dg.job(executor_def=dg.in_process_executor, resource_defs={"io_manager": dg.mem_io_manager})
def say_job() -> None:
    say()

defs = dg.Definitions(jobs=[say_job])
"""

REHYDRATE = """
import dagster as dg

with dg.DagsterInstance.get() as instance:
    ref = instance.get_ref()
    storage = ref.storage
    names = ("run_storage_data", "event_storage_data", "schedule_storage_data")
    parts = [getattr(storage, name) for name in names]
    print(parts == [getattr(ref, name) for name in names], storage.postgres_url)
    print([type(part.rehydrate()).__name__ for part in parts])
    with dg.DagsterInstance.from_ref(ref) as again:
        (run,) = again.get_runs()
        print(run.job_name, run.status.value)
        print([entry.message for entry in again.all_logs(run.run_id) if not entry.is_dagster_event])
"""


@pytest.fixture
def project() -> Iterator[Path]:
    """A project's root with a space in its path, `.env` included, and a job; nothing is exported."""
    with reachable_folder() as parent:
        root = parent / "the project"
        root.mkdir()
        (root / "tiny.py").write_text(DEFINITIONS)
        (root / "rehydrate.py").write_text(REHYDRATE)
        write_env_file(root, dagster_home(load_settings(root, {})))
        yield root


def run(project: Path, *arguments: str, **environ: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "HOUSEKEEPING"))}
    kept |= {"PYTHONPATH": str(ROOT), **environ}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, env=kept, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestStorage:
    def test_commands_find_and_start_the_database_by_themselves(self, project: Path) -> None:
        run(project, "-m", "dagster", "job", "execute", "-m", "tiny", "-j", "say_job", LOG_FILE="log")
        assert "said by the engine" in (project / "log").read_text()
        postgres = project / ".housekeeping" / "postgres"
        assert not (postgres / "data" / "postmaster.pid").exists()
        home = str(project / ".housekeeping" / "dagster")
        same, classes, job, said = run(project, "rehydrate.py", DAGSTER_HOME=home).splitlines()
        assert same.startswith("True postgresql+psycopg2://postgres@/dagster?host=")
        assert classes == "['LegacyRunStorage', 'LegacyEventLogStorage', 'LegacyScheduleStorage']"
        assert job == "say_job SUCCESS"
        assert said == "['said by the engine']"
        assert not (postgres / "data" / "postmaster.pid").exists()
        assert sorted(path.name for path in project.iterdir() if not path.name.startswith("__")) == [
            ".env",
            ".housekeeping",
            "log",
            "rehydrate.py",
            "tiny.py",
        ]

    def test_a_setting_that_is_wrong_is_named(self, project: Path) -> None:
        with pytest.raises(AssertionError, match="DATABASE_URL is"):
            run(project, "-m", "dagster", "run", "list", DATABASE_URL="mysql://x/y")


@pytest.fixture(scope="module")
def server() -> Iterator[sa.URL]:
    """A server that somebody else runs."""
    with reachable_folder() as home, Holder(home, databases=("shop",)) as holder:
        yield sa.make_url(holder.answer()["url"])


class TestAddresses:
    @staticmethod
    def addresses(folder: Path, **environ: str | sa.URL) -> tuple[sa.URL, sa.URL]:
        given = {
            name: value if isinstance(value, str) else value.render_as_string(hide_password=False)
            for name, value in environ.items()
        }
        settings = load_settings(folder, given)
        return platform_url(settings), dagster_url(settings)

    @staticmethod
    def databases(server: sa.URL) -> list[str]:
        engine = sa.create_engine(server.set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
        with engine.connect() as connection:
            return list(connection.scalars(sa.text("SELECT datname FROM pg_database")))

    def test_dagster_gets_a_database_beside_the_platform(self, tmp_path: Path, server: sa.URL) -> None:
        given = server.set(database="shop").update_query_dict({"application_name": "a b%"})
        for _ in range(2):
            platform, dagster = self.addresses(tmp_path, DATABASE_URL=given)
            assert platform == given.set(drivername="postgresql+psycopg")
            assert dagster == given.set(drivername="postgresql+psycopg2", database="dagster")
            assert "dagster" in self.databases(server)
        assert list(tmp_path.iterdir()) == []

    def test_dagsters_own_address_is_taken_as_it_is(self, tmp_path: Path) -> None:
        given = sa.URL.create("postgresql", "us@er", "p:a/s%s", "db.invalid", 5433, "runs", {"sslmode": "require"})
        _, dagster = self.addresses(tmp_path, DATABASE_URL=given.set(database="shop"), DAGSTER_PG_URL=given)
        assert dagster == given.set(drivername="postgresql+psycopg2")

    def test_user_who_may_not_create_it_is_told_what_to_do(self, tmp_path: Path, server: sa.URL) -> None:
        engine = sa.create_engine(server.set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("DROP DATABASE IF EXISTS dagster")
            connection.exec_driver_sql("CREATE ROLE clerk LOGIN")
        with pytest.raises(ConfigurationError) as caught:
            self.addresses(tmp_path, DATABASE_URL=server.set(username="clerk", database="shop"))
        assert "CREATE DATABASE dagster OWNER clerk" in str(caught.value.hint)
        assert "DAGSTER_PG_URL" in str(caught.value.hint)

    def test_server_that_does_not_answer(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match=r"DATABASE_URL does not answer: .*No such file") as caught:
            self.addresses(tmp_path, DATABASE_URL="postgresql://me:secret@/shop?host=/no/such/folder")
        assert "secret" not in caught.value.message
