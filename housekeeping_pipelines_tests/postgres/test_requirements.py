"""What a run needs of the server and of its role is missed before anything starts, by `check` and by every command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.execution.runner import TaskRunner
from housekeeping_pipelines.maintenance.trash import purge_trash
from housekeeping_pipelines.migrations import ensure_schema
from housekeeping_pipelines.postgres.engine import make_engine
from housekeeping_pipelines.postgres.requirements import clock_problem, schema_problem, server_problem
from housekeeping_pipelines_tests.deletion.support import delete, sql
from housekeeping_pipelines_tests.postgres.holder import Holder, reachable_folder
from housekeeping_pipelines_tests.postgres.pooler import needs_pgbouncer, pooler
from housekeeping_pipelines_tests.support import OLD_CONVERSATIONS, Installation, make_platform, rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from housekeeping_pipelines.postgres.embedded import EmbeddedServer


class Role(NamedTuple):
    """A role that may connect and create schemas in one database, and the address with which it does."""

    name: str
    url: sa.URL


@pytest.fixture
def owner(database_url: sa.URL) -> Iterator[sa.Engine]:
    """The administrator of an empty database."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def role(owner: sa.Engine) -> Iterator[Role]:
    name, database = f"role_{owner.url.database}", owner.url.database
    execute(owner, f"CREATE ROLE {name} LOGIN", f"GRANT CREATE ON DATABASE {database} TO {name}")
    yield Role(name, owner.url.set(username=name))
    execute(owner, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def execute(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def refusal(url: sa.URL) -> ConfigurationError:
    """How a run of any task would end: `check`, which only reads, says the same words."""
    engine = make_engine(url)
    with pytest.raises(ConfigurationError) as caught:
        ensure_schema(engine)
    with engine.connect() as connection:
        connection.execute(sa.text("SET TRANSACTION READ ONLY"))
        found = server_problem(connection) or schema_problem(connection)
    engine.dispose()
    assert found == (str(caught.value), caught.value.hint)
    return caught.value


@needs_pgbouncer
class TestPooler:
    def test_a_pooler_that_shares_sessions_is_refused_by_name(
        self, engine: sa.Engine, installation: Installation, tmp_path: Path
    ) -> None:
        make_platform(engine)
        before = rows(engine)
        with pooler(tmp_path, engine.url, "transaction") as url:
            environ = {"DATABASE_URL": url.render_as_string(hide_password=False)}
            said = f"a pooler at {url.host} shares the server's sessions between transactions"
            for command in (("migrate",), ("pause",), ("run", "delete_old_conversations"), ("run", "purge_trash")):
                done = installation.run(*command, **environ)
                assert (done.returncode, said in " ".join((done.stdout + done.stderr).split())) == (2, True), command
            checks = {each["name"]: each for each in installation.json("check", **environ)["checks"]}
            assert checks["database sessions"]["message"] == said
            assert "session mode" in checks["database sessions"]["hint"]
        assert rows(engine) == before

    def test_a_pooler_in_session_mode_is_as_good_as_the_server(
        self, engine: sa.Engine, installation: Installation, tmp_path: Path
    ) -> None:
        make_platform(engine)
        with pooler(tmp_path, engine.url, "session") as url:
            environ = {"DATABASE_URL": url.render_as_string(hide_password=False)}
            report = installation.json("run", "delete_old_conversations", **environ)
        assert (report["status"], report["deleted"]["conversations"]) == ("succeeded", OLD_CONVERSATIONS)


class TestServer:
    def test_a_server_with_all_that_is_needed(self, role: Role) -> None:
        engine = make_engine(role.url)
        with engine.connect() as connection:
            assert (server_problem(connection), schema_problem(connection)) == (None, None)
        assert ensure_schema(engine)
        engine.dispose()

    def test_a_replica(self) -> None:
        with reachable_folder() as home:
            with Holder(home) as holder:
                primary = holder.answer()
            # A server that recovers from no primary stays a replica and answers queries.
            signal = home / "postgres" / "data" / "standby.signal"
            signal.touch()
            assert primary["data"] == str(signal.parent)
            with Holder(home) as holder:
                url = sa.make_url(holder.answer()["url"]).set(drivername="postgresql+psycopg", database="postgres")
                error = refusal(url)
        assert str(error) == "the server of database 'postgres' is a replica: it cannot be written to"
        assert error.hint is not None
        assert "primary" in error.hint

    @pytest.mark.parametrize("whose", ["DATABASE", "ROLE"])
    def test_read_only_by_default(self, owner: sa.Engine, role: Role, whose: str) -> None:
        name = owner.url.database if whose == "DATABASE" else role.name
        execute(owner, f"ALTER {whose} {name} SET default_transaction_read_only = on")
        assert "is set to read-only (default_transaction_read_only)" in str(refusal(role.url))
        execute(owner, f"ALTER {whose} {name} RESET default_transaction_read_only")
        assert makes_schema(role)

    def test_no_temporary_tables(self, owner: sa.Engine, role: Role) -> None:
        execute(owner, f"REVOKE TEMPORARY ON DATABASE {owner.url.database} FROM PUBLIC")
        error = refusal(role.url)
        assert str(error) == (f"user {role.name!r} may keep no list of candidates in database {owner.url.database!r}")
        granted(owner, error)
        assert makes_schema(role)


class TestClock:
    """A machine that is days ahead would take what is young, and destroy the whole trash."""

    @pytest.mark.parametrize(("by", "words"), [(timedelta(days=40), "ahead of"), (timedelta(hours=-2), "behind")])
    def test_one_that_is_wrong_refuses_the_run(self, engine: sa.Engine, by: timedelta, words: str) -> None:
        make_platform(engine)
        sql(engine, "CREATE TABLE notes AS SELECT 1 AS id, now() - interval '100 days' AS at")
        before = contents(engine)
        report = delete(engine, "notes", runner=runner(engine, by))
        assert (report.status, report.deleted) == ("refused", {})
        assert f"s {words} the database server's" in (report.message or "")
        purged = runner(engine, by).run(
            "purge_trash",
            "purge",
            lambda run: purge_trash(run, store_of=lambda _: pytest.fail("no store"), retention_days=7, run_id=None),
        )
        assert purged.status == "refused"
        assert contents(engine) == before

    def test_minutes_are_tolerated(self, engine: sa.Engine) -> None:
        sql(engine, "CREATE TABLE notes AS SELECT 1 AS id, now() - interval '100 days' AS at")
        assert delete(engine, "notes", runner=runner(engine, timedelta(minutes=4)), max_fraction=1.0).deleted

    def test_check_names_it(self, engine: sa.Engine) -> None:
        with engine.connect() as connection:
            now = datetime.now(UTC)
            assert clock_problem(connection, now) is None
            problem = clock_problem(connection, now + timedelta(days=1))
        assert problem is not None
        assert "86,400 s ahead of" in problem.message.replace("86,399", "86,400")


def runner(engine: sa.Engine, by: timedelta) -> TaskRunner:
    """One whose machine's clock is wrong by so much."""
    return TaskRunner(engine=engine, clock=lambda: datetime.now(UTC) + by, compares_clocks=True)


class TestSchema:
    def test_someone_elses(self, owner: sa.Engine, role: Role) -> None:
        execute(
            owner,
            "CREATE SCHEMA housekeeping",
            "CREATE TABLE housekeeping.holds (id int, room int)",
            f"GRANT USAGE ON SCHEMA housekeeping TO {role.name}",
        )
        error = refusal(role.url)
        assert "is someone else's: it has holds" in str(error)
        with owner.connect() as connection:
            assert sa.inspect(connection).get_table_names("housekeeping") == ["holds"]

    def test_one_that_the_role_may_not_use(self, owner: sa.Engine, role: Role) -> None:
        """Whose it is cannot be seen then: what to do is said for both."""
        ensure_schema(owner)
        error = refusal(role.url)
        assert "may not use the schema housekeeping" in str(error)
        assert error.hint is not None
        assert f'GRANT ALL ON SCHEMA housekeeping TO "{role.name}"' in error.hint
        assert "another application's" in error.hint

    def test_one_in_which_the_role_may_make_nothing(self, owner: sa.Engine, role: Role) -> None:
        execute(owner, "CREATE SCHEMA housekeeping", f"GRANT USAGE ON SCHEMA housekeeping TO {role.name}")
        error = refusal(role.url)
        assert "may not create tables in the schema housekeeping" in str(error)
        granted(owner, error)
        assert makes_schema(role)

    def test_a_role_that_may_make_none(self, owner: sa.Engine, role: Role) -> None:
        execute(owner, f"REVOKE CREATE ON DATABASE {owner.url.database} FROM {role.name}")
        error = refusal(role.url)
        assert "may not create the schema housekeeping" in str(error)
        granted(owner, error)
        assert makes_schema(role)


def makes_schema(role: Role) -> bool:
    """Whether the role makes our schema."""
    engine = make_engine(role.url)
    try:
        return ensure_schema(engine)
    finally:
        engine.dispose()


def granted(owner: sa.Engine, error: ConfigurationError) -> None:
    """Do what the hint says."""
    assert error.hint is not None
    execute(owner, error.hint.partition("run: ")[2])


def test_check_and_a_run_name_it(owner: sa.Engine, role: Role, installation: Installation, engine: sa.Engine) -> None:
    make_platform(owner)
    execute(
        owner,
        f"REVOKE TEMPORARY ON DATABASE {owner.url.database} FROM PUBLIC",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role.name}",
    )
    address = role.url.set(drivername="postgresql").render_as_string(hide_password=False)
    checks = {check["name"]: check for check in installation.json("check", DATABASE_URL=address)["checks"]}
    assert checks["database privileges"]["status"] == "failed"
    assert "GRANT TEMPORARY" in checks["database privileges"]["hint"]
    for more in ((), ("--dry-run",)):
        run = installation.run("run", "delete_old_conversations", *more, DATABASE_URL=address)
        assert run.returncode == 2
        assert "GRANT TEMPORARY" in run.stdout
        assert "Traceback" not in run.stdout + run.stderr


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_in_another_encoding(
    server: EmbeddedServer, owner: sa.Engine, installation: Installation, encoding: str
) -> None:
    name = f"{owner.url.database}_{encoding.lower()}"
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            sa.text(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
        )
    url = owner.url.set(database=name)
    platform = make_engine(url)
    make_platform(platform)
    execute(platform, "UPDATE chat_messages SET content = 'Füße'", "UPDATE conversations SET title = 'Ærø ' || id")
    before = contents(platform)
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    report = installation.json("run", "delete_old_conversations", DATABASE_URL=address)
    assert report["status"] == "succeeded", report
    assert rows(platform)["conversations"] == 20 - OLD_CONVERSATIONS
    assert installation.run("undo", report["run_id"], DATABASE_URL=address).returncode == 0
    assert contents(platform) == before
    hold = installation.run(
        *("hold", "add", "row:conversations/1", "--until", "2099-01-01", "--reason", "5 €"), DATABASE_URL=address
    )
    if encoding == "LATIN1":
        assert hold.returncode == 1
        assert 'has no equivalent in encoding "LATIN1"' in hold.stderr
        assert hold.stderr.count("\n") == 1
    else:
        # A database in SQL_ASCII takes any bytes.
        assert hold.returncode == 0, hold.stderr
    platform.dispose()


def contents(engine: sa.Engine) -> dict[str, list[tuple[object, ...]]]:
    """Every row of the platform, in order."""
    with engine.connect() as connection:
        return {
            name: [tuple(row) for row in connection.execute(sa.text(f"SELECT * FROM {name} AS t ORDER BY t"))]
            for name in rows(engine)
        }
