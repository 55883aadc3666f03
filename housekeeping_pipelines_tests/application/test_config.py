"""`housekeeping.yaml`: what it may say, and what is said about what it may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.application.config import HousekeepingConfig, read_config
from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = """
tables:
  conversations: {name: chat.chat_conversation, columns: {user_id: owner_id}}
  users: {name: auth_user, columns: {email_verified_at: null}}
retention:
  - table: Audit Log
    age_column: 'at"; --'
    older_than_days: 90
    where: {level: info, n: 1, ok: true, x: null, f: 1.5}
  - {table: audit.log, age_column: at, older_than_days: 1, name: clean_the_log, batch_size: 7}
inactive_users: {account_tables: [account_emailaddress]}
"""


def load(folder: Path, text: str) -> HousekeepingConfig:
    path = folder / "housekeeping.yaml"
    path.write_text(text, encoding="utf-8")
    return read_config(path)


def test_everything_that_it_may_say(tmp_path: Path) -> None:
    config = load(tmp_path, WHOLE)
    assert config.tables["conversations"].name == "chat.chat_conversation"
    assert config.tables["users"].columns == {"email_verified_at": None}
    first, second = config.retention
    assert (first.task, first.batch_size, first.older_than_days) == ("delete_old_audit_log", 5000, 90)
    assert first.where == {"level": "info", "n": 1, "ok": True, "x": None, "f": 1.5}
    assert [type(value) for value in first.where.values()] == [str, int, bool, type(None), float]
    assert (second.task, second.batch_size) == ("clean_the_log", 7)
    assert config.inactive_users.account_tables == ["account_emailaddress"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "null"])
def test_an_empty_file_is_an_empty_configuration(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == HousekeepingConfig()
    assert read_config(tmp_path / "none.yaml") == HousekeepingConfig()


MISTAKES = {
    "- a list": "housekeeping.yaml: Input should be a valid dictionary",
    "tables: [": "housekeeping.yaml cannot be read: while parsing",
    "a: !!python/object/apply:os.system ['true']": "housekeeping.yaml cannot be read: could not determine",
    "tabels: {}": "housekeeping.yaml: tabels: Extra inputs are not permitted",
    "tables: {chats: {name: x}}": "housekeeping.yaml: tables: 'chats' is not one of ",
    "tables: {users: {columns: {mail: x}}}": "tables.users: 'mail' is not one of id, username, email",
    "tables: {users: {name: ''}}": "tables.users.name: String should have at least 1 character",
    'tables: {users: {name: "a\\0b"}}': "'a\\x00b' cannot be the name of anything in PostgreSQL",
    f"tables: {{users: {{name: {'é' * 32}}}}}": "cannot be the name of anything in PostgreSQL",
    "retention: [{table: t, age_column: at, older_than_days: 0}]": "retention.0.older_than_days: Input should be",
    "retention: [{table: t, age_column: at, older_than_days: 36501}]": "retention.0.older_than_days: Input should be",
    "retention: [{table: t, older_than_days: 1}]": "retention.0.age_column: Field required",
    "retention: [{table: 漢, age_column: at, older_than_days: 1, name: Big}]": "retention.0.name: String should match",
    'retention: [{table: t, age_column: "a\\0", older_than_days: 1}]': "cannot be the name of anything",
    'retention: [{table: t, age_column: a, older_than_days: 1, where: {"b\\0": 1}}]': "cannot be the name of anything",
    'retention: [{table: t, age_column: a, older_than_days: 1, where: {b: "\\0"}}]': (
        "delete_old_t: no value in PostgreSQL has a NUL in it"
    ),
    "retention: [{table: t, age_column: a, older_than_days: 1}, {table: T, age_column: a, older_than_days: 2}]": (
        "retention: two tasks would be named delete_old_t; give the rule a `name` of its own"
    ),
    'inactive_users: {account_tables: ["a\\0"]}': "cannot be the name of anything",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_line_that_names_its_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert MISTAKES[text] in caught.value.message
    assert "\n" not in caught.value.one_line
    assert caught.value.hint == f"check {tmp_path / 'housekeeping.yaml'}"


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "housekeeping.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "housekeeping.yaml", tmp_path):
        with pytest.raises(ConfigurationError) as caught:
            read_config(path)
        assert "cannot be read" in caught.value.message
