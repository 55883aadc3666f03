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
    # Values to compare with are read by PostgreSQL, as they are written.
    assert first.where == {"level": "info", "n": "1", "ok": "true", "x": None, "f": "1.5"}
    assert (second.task, second.batch_size) == ("clean_the_log", 7)
    assert config.inactive_users.account_tables == ["account_emailaddress"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "null"])
def test_an_empty_file_is_an_empty_configuration(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == HousekeepingConfig()
    assert read_config(tmp_path / "none.yaml") == HousekeepingConfig()


MISTAKES = {
    "- a list": "housekeeping.yaml, line 1, column 1: Input should be a valid dictionary",
    "tables: [": "housekeeping.yaml, line 1, column 10: ",
    "a: !!python/object/apply:os.system ['true']": "housekeeping.yaml, line 1, column 4: the tag",
    "tabels: {}": "housekeeping.yaml, line 1, column 9: tabels: Extra inputs are not permitted",
    "tables: {chats: {name: x}}": "housekeeping.yaml, line 1, column 1: tables: 'chats' is not one of ",
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
        assert "is not UTF-8" in caught.value.message or "cannot be read" in caught.value.message


RULE = "retention: [{table: t, age_column: a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retention: []\nretention: []\n", "line 2, column 1: retention stands here twice"),
        ("tables:\n  users: {name: a, name: b}\n", "line 2, column 20: name stands here twice"),
        (f"{RULE}, older_than_days: true}}]", "line 1, column 56: retention.0.older_than_days: Input should be"),
        (f"{RULE}, older_than_days: '30'}}]", "retention.0.older_than_days: Input should be"),
        (f"{RULE}, older_than_days: 1.5}}]", "retention.0.older_than_days: Input should be"),
        (f"{RULE}, older_than_days: 1, allow_large_deletion: yes}}]", "retention.0.allow_large_deletion: Input should"),
        (f"{RULE}, older_than_days: 1, name: 10}}]", "retention.0.name: Input should be a valid string"),
        ("a: &a [1]\nb: &b [*a, *a]\n" + "".join(
            f"c{n}: &c{n} [{', '.join([f'*c{n - 1}' if n else '*b'] * 9)}]\n" for n in range(9)), "too many values"),
        ("a: &a [*a]\n", "nested too deeply"),
        ("? [a]\n: b\n", "a key is not text"),
        ("roots: {media: [media]}\n", "roots.media: 'media' is not an absolute path"),
        ("roots: {medai: [/app]}\n", "roots: 'medai' is not one of uploads, media, bucket"),
        ("references: {media: [{table: t, column: c, template: a}]}\n", "has no {}, or several"),
    ],
)  # fmt: skip
def test_a_file_is_read_strictly(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "housekeeping.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_config(tmp_path / "housekeeping.yaml")
    assert message in str(caught.value)


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    (tmp_path / "housekeeping.yaml").write_text(
        "retention:\n"
        "  - {table: on, age_column: yes, older_than_days: 060,\n"
        "     where: {a: 010, b: 1.10, c: on, d: ~, e: '~', f: true}}\n"
    )
    rule = read_config(tmp_path / "housekeeping.yaml").retention[0]
    assert (rule.table, rule.age_column, rule.older_than_days) == ("on", "yes", 60)
    assert rule.where == {"a": "010", "b": "1.10", "c": "on", "d": None, "e": "~", "f": "true"}
