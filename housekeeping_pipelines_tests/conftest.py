"""One embedded server a worker, one database a test; our schema is copied from a template, not made anew."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.migrations import ensure_schema
from housekeeping_pipelines.postgres.embedded import EmbeddedServer, embedded_server
from housekeeping_pipelines.postgres.engine import make_engine
from housekeeping_pipelines_tests.command_server import install, running
from housekeeping_pipelines_tests.support import Installation

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)

_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="hammer for minutes instead of seconds")
    parser.addoption("--rewrite-surface", action="store_true", help="write the files of surface/ anew")
    parser.addoption("--postgres", metavar="FOLDER", help="use the server whose socket (port 5432) is there instead")


@pytest.fixture(scope="session", autouse=True)
def _signals() -> None:
    """A shell starts background processes with SIGINT ignored, and tests send it to themselves."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> EmbeddedServer:
    if other := request.config.getoption("--postgres"):
        return EmbeddedServer(Path(other), Path(other), "another")
    home = Path(tempfile.mkdtemp(prefix="housekeeping-tests-"))
    # Root's server runs as another account; pytest's own folders are closed to it.
    home.chmod(0o755)
    # Registered before the server's own, and so done after it has stopped.
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    options = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}
    return embedded_server(home, options=options)


@pytest.fixture(scope="session")
def template(server: EmbeddedServer) -> str:
    name = f"template_{os.getpid()}"
    server.ensure_database(name)
    engine = make_engine(server.url(name))
    ensure_schema(engine)
    engine.dispose()
    return name


def _create(server: EmbeddedServer, template: str | None) -> sa.URL:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    admin = sa.create_engine(
        server.url("postgres").set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.pool.NullPool,
    )
    with admin.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
    return server.url(name).set(drivername="postgresql+psycopg")


@pytest.fixture
def database_url(server: EmbeddedServer) -> sa.URL:
    """An empty database."""
    return _create(server, None)


@pytest.fixture(scope="session")
def command_server() -> Iterator[Path]:
    """See `command_server`."""
    with running() as path:
        yield path


@pytest.fixture
def installation(server: EmbeddedServer, engine: sa.Engine, command_server: Path, tmp_path: Path) -> Installation:
    """A folder with a space in its name, on the database of `engine`; Dagster's own is beside it."""
    directory = tmp_path / "my platform"
    directory.mkdir()
    command = tmp_path / "housekeeping"
    install(command, command_server)
    environ = {
        "DATABASE_URL": engine.url.set(drivername="postgresql").render_as_string(hide_password=False),
        "DAGSTER_PG_URL": _create(server, None).set(drivername="postgresql").render_as_string(hide_password=False),
    }
    return Installation(directory, command, environ)


@pytest.fixture
def engine(server: EmbeddedServer, template: str) -> Iterator[sa.Engine]:
    """A database with our schema and nothing else."""
    engine = make_engine(_create(server, template))
    yield engine
    engine.dispose()
