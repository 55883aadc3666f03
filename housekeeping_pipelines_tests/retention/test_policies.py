"""Which rows each policy selects, at the very edges of age and for every exemption."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from housekeeping_pipelines.application import tables
from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.retention import policies
from housekeeping_pipelines.retention.verify import verify_no_orphans
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import (
    Watcher,
    came_back,
    column,
    contents,
    delete,
    scalar,
    sql,
    task_runner,
    undo,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.execution.report import Report


@pytest.fixture
def platform(engine: sa.Engine) -> sa.Engine:
    """The platform's tables under their default names, with one user."""
    names = ("users", "conversations", "chat_messages")
    tables.metadata.create_all(engine, tables=[tables.metadata.tables[name] for name in names])
    add(engine, "users", id=1, username="owner", email="o@example.org", last_login=ago(days=1))
    return engine


def ago(**duration: float) -> str:
    return (NOW - timedelta(**duration)).isoformat()


def literal(value: Any) -> str:
    return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"


def add(engine: sa.Engine, table: str, **values: Any) -> None:
    override = "OVERRIDING SYSTEM VALUE" if "id" in values else ""
    names, given = ", ".join(values), ", ".join(literal(value) for value in values.values())
    sql(engine, f"INSERT INTO {table} ({names}) {override} VALUES ({given})")


def conversation(engine: sa.Engine, number: int, *, updated: str | None = None, **values: Any) -> None:
    given = {"id": number, "user_id": 1, "created_at": ago(days=400), "updated_at": updated or ago(days=300)}
    add(engine, "conversations", **(given | values))


def run(
    engine: sa.Engine, policy: Callable[..., RowPolicy], *, config: dict[str, Any] | None = None, **options: Any
) -> Report:
    mapping = HousekeepingConfig.model_validate(config or {})
    limits = {key: options.pop(key) for key in ("dry_run", "allow_empty_reference", "batch_size") if key in options}
    runner = options.pop("runner", None)
    made = partial(policy, **options)
    return delete(engine, lambda catalog, now: made(Platform(catalog, mapping), now), runner=runner, **limits)


def old_conversations(engine: sa.Engine, *, age: str = "last_activity", **options: Any) -> list[int]:
    """The conversations that are left after a run that must succeed."""
    report = run(engine, policies.conversations, older_than_days=30, age_column=age, **options)
    assert (report.status, report.message) == ("succeeded", None)
    return column(engine, "SELECT id FROM conversations ORDER BY id")


def test_the_last_activity_is_what_age_counts_from(platform: sa.Engine) -> None:
    conversation(platform, 1, updated=ago(days=30))
    conversation(platform, 2, updated=ago(days=30, seconds=1))
    conversation(platform, 3, updated=ago(days=30, seconds=-1))
    conversation(platform, 4, updated=ago(days=30, microseconds=1))
    conversation(platform, 5, created_at=ago(days=2), updated=ago(days=90))
    conversation(platform, 6, updated=ago(days=90))
    for number, at in enumerate([ago(days=80), ago(days=30), ago(days=70)]):
        add(platform, "chat_messages", id=60 + number, conversation_id=6, role="user", content="", created_at=at)
    conversation(platform, 7, updated=ago(days=90))
    add(
        platform, "chat_messages", id=70, conversation_id=7, role="user", content="", created_at=ago(days=30, seconds=1)
    )
    conversation(platform, 8, updated=ago(days=90), pinned=True)
    before = contents(platform)
    assert old_conversations(platform) == [1, 3, 5, 6, 8]
    assert column(platform, "SELECT id FROM chat_messages ORDER BY 1") == [60, 61, 62]
    assert came_back(undo(platform)) == {"conversations": 3, "chat_messages": 1}
    assert contents(platform) == before


def test_a_message_of_an_unknown_time_may_be_of_today(platform: sa.Engine) -> None:
    sql(platform, "ALTER TABLE chat_messages ALTER created_at DROP NOT NULL")
    conversation(platform, 1)
    conversation(platform, 2)
    for number in (1, 2):
        at = None if number == 1 else "-infinity"
        add(platform, "chat_messages", conversation_id=number, role="user", content="", created_at=at)
    assert old_conversations(platform) == [1]


def test_by_creation_nothing_else_counts(platform: sa.Engine) -> None:
    conversation(platform, 1, created_at=ago(days=30), updated=ago(days=90))
    conversation(platform, 2, created_at=ago(days=30, seconds=1), updated=ago(days=0))
    conversation(platform, 3, created_at=ago(days=31), pinned=True)
    add(platform, "chat_messages", conversation_id=2, role="user", content="", created_at=ago(days=0))
    assert old_conversations(platform, age="created_at") == [1, 3]


def test_columns_that_a_table_may_lack(platform: sa.Engine) -> None:
    sql(platform, "ALTER TABLE conversations DROP updated_at, DROP pinned, DROP title, ALTER created_at DROP NOT NULL")
    for number, created in enumerate([ago(days=31), ago(days=29), None], start=1):
        add(platform, "conversations", id=number, user_id=1, created_at=created)
    assert old_conversations(platform) == [2, 3]


@pytest.mark.parametrize("trashed", [True, False])
@pytest.mark.parametrize("key", ["no action", "cascade", "set null", None])
def test_a_conversation_that_is_used_on_the_way_stays(platform: sa.Engine, trashed: bool, key: str | None) -> None:
    sql(platform, "ALTER TABLE chat_messages DROP CONSTRAINT chat_messages_conversation_id_fkey")
    if key is not None:
        sql(
            platform,
            f"ALTER TABLE chat_messages ADD FOREIGN KEY (conversation_id) REFERENCES conversations ON DELETE {key}",
        )
    for number in range(1, 21):
        conversation(platform, number, updated=ago(days=200 - number))
        add(platform, "chat_messages", conversation_id=number, role="user", content="", created_at=ago(days=150))

    def use(step: int) -> None:
        if step == 1:
            add(platform, "chat_messages", conversation_id=14, role="user", content="hello", created_at=ago(days=0))

    watcher = Watcher(use)
    runner = task_runner(platform, observer=watcher, trashed=trashed)
    report = run(platform, policies.conversations, older_than_days=30, age_column="last_activity", runner=runner,
                 batch_size=10)  # fmt: skip
    assert (report.status, report.deleted["conversations"], report.skipped["in_use"]) == ("succeeded", 19, 1)
    assert column(platform, "SELECT id FROM conversations") == [14]
    assert column(platform, "SELECT content FROM chat_messages WHERE conversation_id = 14 ORDER BY id") == ["", "hello"]
    # The batch was looked at again as a whole, and not cut down to the one row.
    assert [done for done, _, _ in watcher.steps] == [10, 20]


@pytest.mark.parametrize("declared", [True, False])
def test_messages_of_no_conversation_go_after_an_hour(platform: sa.Engine, declared: bool) -> None:
    sql(platform, "ALTER TABLE chat_messages ALTER created_at DROP NOT NULL")
    conversation(platform, 1)
    cases = [(1, ago(days=9)), (None, ago(hours=1)), (None, ago(hours=1, seconds=1)), (None, None), (None, ago(days=9))]
    if not declared:
        sql(platform, "ALTER TABLE chat_messages DROP CONSTRAINT chat_messages_conversation_id_fkey")
        cases += [(77, ago(days=9)), (77, ago(minutes=59)), (78, ago(hours=2))]
    for number, (parent, at) in enumerate(cases, start=1):
        add(platform, "chat_messages", id=number, conversation_id=parent, role="user", content="", created_at=at)
    report = run(platform, policies.orphaned_messages)
    assert report.status == "succeeded"
    gone = {3, 5} if declared else {3, 5, 6, 8}
    assert set(column(platform, "SELECT id FROM chat_messages")) == set(range(1, len(cases) + 1)) - gone
    assert report.deleted == {"chat_messages": len(gone)}
    assert report.skipped["young"] == (2 if declared else 3)


@pytest.mark.parametrize(("null", "left"), [(None, [1]), ("kept", [1]), ("orphan", [])])
def test_a_null_in_a_mapped_table_may_mean_the_default_thread(
    platform: sa.Engine, null: str | None, left: list[int]
) -> None:
    sql(platform, "ALTER TABLE chat_messages RENAME conversation_id TO thread_id")
    conversation(platform, 1)
    sql(platform, f"INSERT INTO chat_messages (id, role, content, created_at) VALUES (1, 'user', '', '{ago(days=9)}')")
    config = {"tables": {"chat_messages": {"columns": {"conversation_id": "thread_id"}, "null_conversation": null}}}
    assert run(platform, policies.orphaned_messages, config=config).status == "succeeded"
    assert column(platform, "SELECT id FROM chat_messages") == left


def test_without_any_conversation_every_message_would_be_an_orphan(platform: sa.Engine) -> None:
    add(platform, "chat_messages", role="user", content="", created_at=ago(days=9))
    report = run(platform, policies.orphaned_messages)
    assert (report.status, report.deleted) == ("refused", {})
    assert (report.message or "").startswith("conversations is empty")
    assert run(platform, policies.orphaned_messages, allow_empty_reference=True).deleted == {"chat_messages": 1}


USERS: dict[str, tuple[dict[str, Any], bool]] = {
    "never used": ({}, True),
    "exactly seven days": ({"date_joined": ago(days=7)}, False),
    "a second more": ({"date_joined": ago(days=7, seconds=1)}, True),
    "a second less": ({"date_joined": ago(days=7, seconds=-1)}, False),
    "verified": ({"email_verified_at": ago(days=300)}, False),
    "logged in once": ({"last_login": ago(days=300)}, False),
    "staff": ({"is_staff": True}, False),
    "superuser": ({"is_superuser": True}, False),
    "switched off, verified": ({"is_active": False, "email_verified_at": ago(days=1)}, False),
    "switched off, never used": ({"is_active": False}, True),
}


@pytest.mark.parametrize("case", USERS)
def test_accounts_that_were_never_used_go(platform: sa.Engine, case: str) -> None:
    values, goes = USERS[case]
    add(platform, "users", **({"id": 2, "username": "u", "email": "u", "date_joined": ago(days=60)} | values))
    report = run(platform, policies.inactive_users, older_than_days=7)
    assert report.status == "succeeded"
    assert column(platform, "SELECT id FROM users ORDER BY 1") == ([1] if goes else [1, 2])
    assert report.deleted == ({"users": 1} if goes else {})


def test_without_a_verification_column_only_what_is_switched_off_counts_as_unverified(platform: sa.Engine) -> None:
    sql(platform, "ALTER TABLE users DROP email_verified_at, ALTER is_active DROP NOT NULL")
    for number, (active, login) in enumerate(
        [(False, None), (True, None), (None, None), (False, ago(days=99))], start=2
    ):
        add(platform, "users", id=number, username=f"u{number}", email="u", date_joined=ago(days=60),
            is_active=active, last_login=login)  # fmt: skip
    assert run(platform, policies.inactive_users, older_than_days=7).deleted == {"users": 1}
    # An account that an administrator switched off after it was used stays.
    assert column(platform, "SELECT id FROM users ORDER BY 1") == [1, 3, 4, 5]


def users_who_own(platform: sa.Engine) -> None:
    for number in range(2, 9):
        add(platform, "users", id=number, username=f"u{number}", email="u", date_joined=ago(days=60))
    conversation(platform, 1, user_id=2)
    sql(
        platform,
        "CREATE TABLE addresses (id int PRIMARY KEY, owner bigint REFERENCES users ON DELETE CASCADE)",
        "CREATE TABLE confirmations (id int PRIMARY KEY, address int REFERENCES addresses ON DELETE CASCADE)",
        "CREATE TABLE audit (id int PRIMARY KEY, actor bigint REFERENCES users ON DELETE SET NULL)",
        "CREATE TABLE profiles (id int PRIMARY KEY, owner bigint UNIQUE REFERENCES users ON DELETE CASCADE)",
        "CREATE TABLE posts (id int PRIMARY KEY, profile int REFERENCES profiles ON DELETE CASCADE)",
        "INSERT INTO audit VALUES (1, 3)",
        "INSERT INTO addresses VALUES (1, 4), (2, 5)",
        "INSERT INTO confirmations VALUES (1, 1)",
        "INSERT INTO profiles VALUES (1, 6), (2, 7)",
        "INSERT INTO posts VALUES (1, 1)",
    )


def test_a_row_in_any_other_table_keeps_the_account(platform: sa.Engine) -> None:
    users_who_own(platform)
    before = contents(platform)
    watcher = Watcher()
    runner = task_runner(platform, observer=watcher)
    report = run(platform, policies.inactive_users, older_than_days=7, runner=runner)
    assert (report.status, report.deleted) == ("succeeded", {"users": 1})
    # What keeps an account never goes with one.
    assert watcher.plans == [("users", 1, False)]
    assert column(platform, "SELECT id FROM users ORDER BY 1") == [1, 2, 3, 4, 5, 6, 7]
    came_back(undo(platform))
    assert contents(platform) == before


def test_rows_of_the_account_itself_go_with_it_unless_something_hangs_on_them(platform: sa.Engine) -> None:
    users_who_own(platform)
    before = contents(platform)
    config = {"inactive_users": {"account_tables": ["addresses", "confirmations", "profiles"]}}
    report = run(platform, policies.inactive_users, older_than_days=7, config=config)
    assert report.status == "succeeded"
    assert report.deleted == {"users": 4, "addresses": 2, "confirmations": 1, "profiles": 1}
    # 6 has written a post by its profile.
    assert column(platform, "SELECT id FROM users ORDER BY 1") == [1, 2, 3, 6]
    assert column(platform, "SELECT id FROM posts") == [1]
    assert came_back(undo(platform)) == report.deleted
    assert contents(platform) == before


def rule(**values: Any) -> Callable[..., RowPolicy]:
    config = HousekeepingConfig.model_validate({"retention": [{"older_than_days": 10, **values}]})
    return partial(policies.declared_rule, rule=config.retention[0])


def things(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TYPE mood AS ENUM ('sad', 'it''s; ok')",
        "CREATE TABLE things (id int PRIMARY KEY, at timestamptz, day date, local timestamp, m mood, u uuid, n int,"
        " f numeric(4,1), b bool, c char(4), v varchar(3), t text, r daterange)",
        f"INSERT INTO things SELECT n, '{ago(days=20)}' FROM generate_series(1, 6) n",
        "UPDATE things SET m = 'sad', u = '00000000-0000-0000-0000-00000000000A', n = 5, f = 1.3, b = true, c = 'ab',"
        " v = 'abc', t = 'x%''\\' WHERE id = 2",
        "UPDATE things SET m = 'it''s; ok', n = -5, f = 1, b = false, c = 'abcd', v = '', t = '' WHERE id = 3",
        "UPDATE things SET t = '5', n = 1 WHERE id = 4",
    )


WHERE: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [1, 2, 3, 4, 5, 6]),
    ({"m": "sad"}, [2]),
    ({"m": "it's; ok"}, [3]),
    ({"m": None}, [1, 4, 5, 6]),
    ({"u": "00000000-0000-0000-0000-00000000000a"}, [2]),
    ({"n": 5}, [2]),
    ({"n": -5, "b": False}, [3]),
    ({"b": True}, [2]),
    ({"b": None, "n": 1}, [4]),
    ({"f": 1.3}, [2]),
    ({"f": 1}, [3]),
    # What would only be equal once it is rounded or cut is not equal.
    ({"f": 1.34}, []),
    ({"v": "abcdef"}, []),
    ({"c": "abcdef"}, []),
    ({"c": "ab"}, [2]),
    ({"v": "abc"}, [2]),
    ({"t": "x%'\\"}, [2]),
    ({"t": 5}, [4]),
    ({"t": "' OR true --"}, []),
]


@pytest.mark.parametrize(("where", "gone"), WHERE, ids=[str(where) for where, _ in WHERE])
def test_a_rule_takes_what_its_conditions_say(engine: sa.Engine, where: dict[str, Any], gone: list[int]) -> None:
    things(engine)
    report = run(engine, rule(table="things", age_column="at", where=where))
    assert (report.status, report.message) == ("succeeded", None)
    assert column(engine, "SELECT id FROM things ORDER BY 1") == [n for n in range(1, 7) if n not in gone]


def test_a_rule_counts_from_dates_and_local_times_in_utc(engine: sa.Engine) -> None:
    things(engine)
    day = (NOW - timedelta(days=10)).date()
    sql(engine, f"UPDATE things SET day = '{day}'::date - id + 2, local = '{NOW:%Y-%m-%d %H:%M:%S}'::timestamp"
        " - interval '10 days' - (id - 2) * interval '1 second'")  # fmt: skip
    # Midnight of the tenth day ago is more than ten days before noon.
    assert run(engine, rule(table="things", age_column="day"), dry_run=True).would_delete == {"things": 5}
    assert run(engine, rule(table="things", age_column="local")).deleted == {"things": 4}
    assert column(engine, "SELECT id FROM things ORDER BY 1") == [1, 2]


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"table": "thing", "age_column": "at"}, "there is no table thing; the nearest names are things; name it table,"),
    (
        {"table": "things", "age_column": "att"},
        "things has no column att; the nearest names are at, t; correct the rule",
    ),
    ({"table": "things", "age_column": "at", "where": {"mm": 1}}, "things has no column mm"),
    ({"table": "things", "age_column": "t"}, "things.t is text: an age needs a date or a timestamp; name another"),
    ({"table": "things", "age_column": "r"}, "things.r is daterange: an age needs a date or a timestamp"),
    ({"table": "things", "age_column": "at", "where": {"m": "angry"}}, 'invalid input value for enum mood: "angry"'),
    ({"table": "things", "age_column": "at", "where": {"n": "five"}}, 'invalid input syntax for type integer: "five"'),
    ({"table": 'x"; DROP TABLE things; --', "age_column": "at", "name": "x"}, "there is no table x"),
    ({"table": "things", "age_column": 'at"; DROP TABLE things; --'}, "things has no column at"),
]


@pytest.mark.parametrize(("values", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_rule_that_does_not_fit_is_one_clear_line(engine: sa.Engine, values: dict[str, Any], message: str) -> None:
    things(engine)
    report = run(engine, rule(**values))
    assert (report.status, report.deleted) == ("failed", {})
    assert message in (report.message or "")
    assert "\n" not in (report.message or "")
    assert scalar(engine, "SELECT count(*) FROM things") == 6


def test_the_deep_check_finds_what_refers_to_nothing(platform: sa.Engine) -> None:
    sql(platform, "ALTER TABLE chat_messages DROP CONSTRAINT chat_messages_conversation_id_fkey",
        "CREATE TABLE attachments (id int PRIMARY KEY, message bigint)")  # fmt: skip
    conversation(platform, 1)

    def check() -> Report:
        runner = task_runner(platform)
        return runner.run(
            "verify_no_orphans", "run-1", lambda run: verify_no_orphans(run, HousekeepingConfig()), dry_run=False
        )

    add(platform, "chat_messages", conversation_id=1, role="", content="", created_at=ago(days=9))
    add(platform, "chat_messages", conversation_id=None, role="", content="", created_at=ago(days=9))
    add(platform, "chat_messages", conversation_id=9, role="", content="", created_at=ago(hours=1))
    fine = check()
    assert (fine.status, fine.failed_count, fine.scanned) == ("succeeded", 0, 3)
    assert len(fine.warnings) == 1
    add(platform, "chat_messages", conversation_id=9, role="", content="", created_at=ago(hours=1, seconds=1))
    found = check()
    assert (found.status, found.failed_count) == ("partial", 1)
    assert [(item.item, item.reason) for item in found.failed] == [
        ("chat_messages", "1 rows refer by chat_messages.conversation_id to no row of conversations")
    ]


def test_the_clock_may_be_of_any_zone(platform: sa.Engine) -> None:
    conversation(platform, 1, updated=ago(days=30, seconds=1))
    conversation(platform, 2, updated=ago(days=30))
    zone = datetime.now(UTC).astimezone().tzinfo
    runner = task_runner(platform, clock=lambda: NOW.astimezone(zone))
    assert old_conversations(platform, runner=runner) == [2]


def test_what_comes_to_hang_on_an_account_on_the_way_keeps_it(platform: sa.Engine) -> None:
    users_who_own(platform)
    sql(platform, f"UPDATE users SET date_joined = '{ago(days=90)}' WHERE id = 8")
    config = {"inactive_users": {"account_tables": ["profiles"]}}

    def post(step: int) -> None:
        if step == 1:
            sql(platform, "INSERT INTO posts VALUES (2, 2)")

    runner = task_runner(platform, observer=Watcher(post))
    report = run(platform, policies.inactive_users, older_than_days=7, config=config, runner=runner, batch_size=1)
    assert (report.status, report.deleted) == ("succeeded", {"users": 1})
    assert column(platform, "SELECT id FROM posts ORDER BY 1") == [1, 2]
    assert report.skipped["in_use"] == 1
