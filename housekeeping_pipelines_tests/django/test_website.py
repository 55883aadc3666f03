"""A database that this project did not make: a Django website's own, mapped by `housekeeping.yaml`.

Every row of it says in its text whether it is to go: `old ...` goes and anything else stays. The commands run as a
person would run them, in processes of their own, as a role that owns the website's database and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.postgres.embedded import EmbeddedServer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SETTINGS = "housekeeping_pipelines_tests.django.website.settings"
ROLE = "website"
MESSAGES = 10

# Which rows go, told from what they say of themselves, and not from what a policy would say of them.
GOES = {
    "chat_conversation": "title LIKE 'old %'",
    "chat_chatmessage": "body LIKE 'old %'",
    "auth_user": "username LIKE 'old %'",
    "auth_user_groups": "user_id IN (SELECT id FROM auth_user WHERE username LIKE 'old %')",
    "django_session": "session_key LIKE 'old %'",
    "django_admin_log": "object_repr LIKE 'old %'",
}

_USERS = """
INSERT INTO auth_user (username, password, email, first_name, last_name, is_active, is_staff, is_superuser, last_login,
    date_joined)
SELECT name || n, 'pbkdf2_sha256$870000$' || md5(name || n), 'x@example.org', 'Zoë', '', active, staff, super,
    now() - login, now() - joined
FROM (VALUES ('owner ', 200, true, false, false, interval '1 day', interval '2 years'),
             ('never came back ', 50, true, false, false, NULL, interval '1 year'),
             ('old signed up ', 120, false, false, false, NULL, interval '30 days'),
             ('old in a group ', 10, false, false, false, NULL, interval '8 days'),
             ('new ', 5, false, false, false, NULL, interval '6 days'),
             ('switched off ', 20, false, false, false, interval '90 days', interval '2 years'),
             ('switched off author ', 4, false, false, false, NULL, interval '2 years'),
             ('switched off editor ', 4, false, false, false, NULL, interval '2 years'),
             ('staff ', 3, false, true, false, NULL, interval '2 years'),
             ('superuser ', 3, false, false, true, NULL, interval '2 years')
     ) kind (name, number, active, staff, super, login, joined), generate_series(1, number) n;
INSERT INTO auth_group (name) VALUES ('Readers');
INSERT INTO auth_user_groups (user_id, group_id)
SELECT u.id, g.id FROM auth_user u, auth_group g WHERE username LIKE 'old in a group%' OR username LIKE 'owner 1%';
"""

# The first two kinds make the bulk; a body has what text can have.
_CONVERSATIONS = """
INSERT INTO chat_conversation (owner_id, title, created_at, updated_at, is_pinned)
SELECT (SELECT min(id) FROM auth_user WHERE username LIKE owner || ' %') + n % owners, title || n,
    now() - created, now() - updated - n * interval '1 second', pinned
FROM (VALUES ('old ', {old}, interval '400 days', interval '31 days', 'owner', 200, false),
             ('young ', {young}, interval '400 days', interval '10 days', 'owner', 200, false),
             ('pinned ', 7, interval '400 days', interval '300 days', 'owner', 200, true),
             ('just awake ', 11, interval '400 days', interval '300 days', 'owner', 200, false),
             ('of one who was switched off ', 4, interval '400 days', interval '1 day', 'switched off author', 4, false)
     ) kind (title, number, created, updated, owner, owners, pinned), generate_series(1, number) n;
INSERT INTO chat_chatmessage (conversation_id, body, sent_at)
SELECT c.id, c.title || E' \\u201c% \\\\ \\n''' || repeat(md5(c.id::text || m), m % 5),
    CASE WHEN c.title LIKE 'just awake%' AND m = 1 THEN now() - interval '29 days' ELSE c.updated_at END
    - m * interval '1 minute'
FROM chat_conversation c, generate_series(1, {messages}) m;
"""

_OTHERS = """
INSERT INTO django_session (session_key, session_data, expire_date)
SELECT 'old ' || n, md5(n::text), now() - interval '15 days' - n * interval '1 minute' FROM generate_series(1, 300) n;
INSERT INTO django_session (session_key, session_data, expire_date)
SELECT 'live ' || n, md5(n::text), now() - interval '13 days' + n * interval '1 hour' FROM generate_series(1, 700) n;
INSERT INTO django_admin_log
    (action_time, object_id, object_repr, action_flag, change_message, user_id, content_type_id)
SELECT now() - age, n, what || n, 1, '[]', u.id, (SELECT min(id) FROM django_content_type)
FROM (VALUES ('old ', 250, interval '366 days', 'owner 1'), ('recent ', 400, interval '364 days', 'owner 2'))
    kind (what, number, age, username) JOIN auth_user u USING (username), generate_series(1, number) n;
INSERT INTO django_admin_log
    (action_time, object_id, object_repr, action_flag, change_message, user_id, content_type_id)
SELECT now() - interval '300 days', id, 'recent', 2, '', id, NULL FROM auth_user WHERE username LIKE 'switched off ed%';
CREATE SCHEMA billing;
CREATE TABLE billing.invoice (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, conversation_id bigint, total numeric);
INSERT INTO billing.invoice (conversation_id, total) SELECT id, 'NaN' FROM chat_conversation WHERE id % 7 = 0;
CREATE VIEW billing.busy AS SELECT owner_id, count(*) FROM chat_conversation GROUP BY owner_id;
"""


@dataclass(frozen=True)
class Website:
    """A copy of the website's database, and a folder from which the command is called for it."""

    server: EmbeddedServer
    database: str
    folder: Path

    @cached_property
    def environment(self) -> dict[str, str]:
        def address(database: str) -> str:
            return self.server.url(database).set(username=ROLE).render_as_string()

        ours = {
            "DATABASE_URL": address(self.database),
            "DAGSTER_PG_URL": address("website_dagster"),
            "HOUSEKEEPING_HOME": str(self.folder / "home"),
            "HOUSEKEEPING_CONFIG": str(HERE / "housekeeping.yaml"),
        }
        return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ} | ours

    def housekeeping(self, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
        """What the command prints with `--json`."""
        command = Path(sys.executable).with_name("housekeeping")
        done = subprocess.run(
            [command, *arguments, "--json"], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == exit_code, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(**_keywords(self.server, self.database)) as connection:
            return connection.execute(statement).fetchall()

    def value(self, statement: str) -> Any:
        return self.query(statement)[0][0]

    def contents(self, *, without: dict[str, str] | None = None) -> dict[str, tuple[int, int, int]]:
        """By table, how many rows there are and two checksums of their text; `without` the rows of a condition."""
        names = self.query(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^pg_|^information_schema$|^housekeeping$'"
        )
        return {f"{schema}.{name}": self._checksum(schema, name, (without or {}).get(name)) for schema, name in names}

    def _checksum(self, schema: str, name: str, without: str | None) -> tuple[int, int, int]:
        found = self.query(
            "SELECT count(*), sum(hashtextextended(t::text, 0)), sum(hashtextextended(t::text, 1))"
            f" FROM {schema}.{name} t" + (f" WHERE ({without}) IS NOT TRUE" if without else "")
        )
        return found[0]

    def schema(self) -> str:
        """What pg_dump says of everything that is not ours, without the random keys that it writes around it."""
        programs = self.query("SELECT setting FROM pg_config WHERE name = 'BINDIR'")[0][0]
        dump = [str(Path(programs) / "pg_dump"), "--schema-only", "--exclude-schema", "housekeeping"]
        environment = _libpq(self.server, self.database) | {"PATH": os.defpath}
        done = subprocess.run(dump, env=environment, capture_output=True, text=True, check=True)
        return "\n".join(line for line in done.stdout.splitlines() if "restrict " not in line)

    def sequences(self) -> list[tuple[Any, ...]]:
        return self.query(
            "SELECT schemaname, sequencename, last_value FROM pg_sequences WHERE schemaname <> 'housekeeping'"
            " ORDER BY 1, 2"
        )

    def number(self) -> dict[str, int]:
        """By table, how many rows there are that are to go."""
        return {table: self.value(f"SELECT count(*) FROM {table} WHERE {which}") for table, which in GOES.items()}

    def use_django(self) -> int:
        """Let the website work on its database; how many rows it sees then."""
        return int(_django(self.server, self.database, "-m", "housekeeping_pipelines_tests.django.orm"))


def _keywords(server: EmbeddedServer, database: str, user: str = "postgres") -> dict[str, Any]:
    return {"host": str(server.socket_folder), "port": 5432, "user": user, "dbname": database}


def _libpq(server: EmbeddedServer, database: str, user: str = "postgres") -> dict[str, str]:
    return {"PGHOST": str(server.socket_folder), "PGPORT": "5432", "PGUSER": user, "PGDATABASE": database}


def _django(server: EmbeddedServer, database: str, *arguments: str) -> str:
    environment = os.environ | _libpq(server, database, ROLE) | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def grown(server: EmbeddedServer, long: bool) -> str:
    """The website's database after some years: 20,000 messages, or 3 million."""
    messages = 3_000_000 if long else 20_000
    old = messages // MESSAGES * 45 // 100
    with psycopg.connect(**_keywords(server, "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN")
        for database in (ROLE, "website_dagster"):
            connection.execute(f"CREATE DATABASE {database} OWNER {ROLE}")
    _django(server, ROLE, "-m", "django", "migrate", "--settings", SETTINGS, "--verbosity", "0")
    fill = _CONVERSATIONS.format(old=old, young=messages // MESSAGES - old, messages=MESSAGES)
    with psycopg.connect(**_keywords(server, ROLE, ROLE)) as connection:
        for part in (_USERS, fill, _OTHERS):
            connection.execute(part)
    with psycopg.connect(**_keywords(server, ROLE), autocommit=True) as connection:
        connection.execute("ANALYZE")
    return ROLE


@pytest.fixture
def website(server: EmbeddedServer, grown: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Website]:
    name = f"website_{request.node.name}"[:63]
    with psycopg.connect(**_keywords(server, "postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE {grown} OWNER {ROLE}')
        yield Website(server, name, tmp_path)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_check_finds_every_table_and_touches_nothing(website: Website) -> None:
    before = website.contents(), website.schema(), website.sequences()

    checks = {check["name"]: check for check in website.housekeeping("check")["checks"]}

    assert {name: check["message"] for name, check in checks.items() if check["status"] == "failed"} == {}
    assert checks["table users"]["message"].startswith("is auth_user")
    assert "is_active = false" in checks["table users"]["message"]
    assert checks["table conversations"]["message"] == "is chat_conversation"
    assert checks["table chat_messages"]["message"] == "is chat_chatmessage"
    assert checks["task delete_old_conversations"]["message"] == "takes chat_conversation with chat_chatmessage"
    assert checks["task delete_old_django_session"]["status"] == "ok"
    assert checks["task delete_old_django_admin_log"]["status"] == "ok"
    assert (website.contents(), website.schema(), website.sequences()) == before
    assert website.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'housekeeping'") == 0


def test_a_dry_run_counts_what_a_run_would_take(website: Website) -> None:
    before, number = website.contents(), website.number()

    result = website.housekeeping("run-housekeeping", "--dry-run")

    would = {table: count for report in result["reports"] for table, count in report["would_delete"].items()}
    assert would == number
    assert website.contents() == before


def test_a_daily_run_takes_what_is_old_and_undo_brings_it_back(website: Website) -> None:
    before, schema, sequences, number = website.contents(), website.schema(), website.sequences(), website.number()
    stays = website.contents(without=GOES)
    assert all(number.values())

    result = website.housekeeping("run-housekeeping")

    assert result["status"] == "succeeded"
    assert result["deleted_conversations"] == number["chat_conversation"]
    assert result["cleaned_messages"] == 0
    assert result["deleted_users"] == number["auth_user"]
    assert {table: n for report in result["reports"] for table, n in report["deleted"].items()} == number
    assert result["stats"]["total_messages"] == stays["public.chat_chatmessage"][0]
    # What stays is what was there, and nothing else is there.
    assert website.contents() == stays
    assert website.schema() == schema
    assert website.sequences() == sequences
    assert website.use_django() == sum(stays[f"public.{table}"][0] for table in GOES if table != "auth_user_groups")

    undone = website.housekeeping("undo", result["run_id"])

    assert undone["restored"] == number
    assert undone["conflicts"] == []
    assert website.contents() == before
    assert website.schema() == schema
    assert website.housekeeping("trash", "list")["runs"] == []


def test_one_rule_takes_its_own_table_only(website: Website) -> None:
    before, number = website.contents(), website.number()
    stays = website.contents(without={"django_session": GOES["django_session"]})

    report = website.housekeeping("run", "delete_old_django_session")

    assert (report["status"], report["deleted"]) == ("succeeded", {"django_session": number["django_session"]})
    assert website.contents() == stays
    assert website.housekeeping("run", "delete_old_django_session")["deleted"] == {}

    assert website.housekeeping("undo", report["run_id"])["restored"] == {"django_session": number["django_session"]}
    assert website.contents() == before


def test_an_account_that_was_switched_off_stays(website: Website) -> None:
    report = website.housekeeping("run", "cleanup_inactive_users")

    assert report["deleted"] == {"auth_user": 130, "auth_user_groups": 10}
    kept = dict(
        website.query(
            "SELECT rtrim(username, ' 0123456789'), count(*) FROM auth_user WHERE NOT is_active GROUP BY 1 ORDER BY 1"
        )
    )
    assert kept == {
        "new": 5,
        "staff": 3,
        "superuser": 3,
        "switched off": 20,
        "switched off author": 4,
        "switched off editor": 4,
    }
