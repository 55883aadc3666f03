"""The platform's tables as the live database has them, under whatever name."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from housekeeping_pipelines.application import tables
from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines_tests.deletion.support import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa


@contextmanager
def platform(engine: sa.Engine, **config: Any) -> Iterator[Platform]:
    with engine.connect() as connection:
        yield Platform(Catalog(connection), HousekeepingConfig.model_validate(config))


def theirs(engine: sa.Engine) -> None:
    """A platform in Django's manner: other names, another schema, no declared keys."""
    sql(
        engine,
        "CREATE SCHEMA chat",
        "CREATE TABLE auth_user (id int PRIMARY KEY, is_active bool, date_joined timestamptz, verified timestamptz)",
        'CREATE TABLE chat."Conversation" (id uuid PRIMARY KEY, owner_id int, created_at timestamptz)',
        "CREATE TABLE chat.message (id int PRIMARY KEY, conversation_id uuid, created_at timestamptz)",
    )


MAPPING: dict[str, Any] = {
    "users": {"name": "auth_user", "columns": {"email_verified_at": "verified"}},
    "conversations": {"name": "chat.Conversation", "columns": {"user_id": "owner_id"}},
    "chat_messages": {"name": "chat.message", "columns": {"role": None, "content": None}},
}


def test_the_default_names_need_no_mapping(engine: sa.Engine) -> None:
    tables.metadata.create_all(engine)
    with platform(engine) as found:
        for name, table in tables.metadata.tables.items():
            mapped = found.table(name)
            assert mapped.live.label == name
            assert mapped.names == {column.name: column.name for column in table.columns}
        assert found.undeclared_keys() == ()


def test_a_mapping_is_resolved_to_what_is_there(engine: sa.Engine) -> None:
    theirs(engine)
    with platform(engine, tables=MAPPING) as found:
        users, chats = found.table("users"), found.table("conversations")
        assert (users.live.label, chats.live.label) == ("auth_user", "chat.Conversation")
        assert users["email_verified_at"].key == "verified"
        assert chats["user_id"].key == "owner_id"
        # What a table may lack and was not mapped.
        assert [users.get(name) for name in ("username", "is_staff", "last_login")] == [None, None, None]
        assert chats.get("pinned") is None
        with pytest.raises(ConfigurationError) as caught:
            chats["updated_at"]
        assert caught.value.message == "chat.Conversation has no column for conversations.updated_at"
        assert "map it under tables.conversations.columns" in (caught.value.hint or "")


def test_keys_that_the_database_does_not_declare_are_known(engine: sa.Engine) -> None:
    theirs(engine)
    with platform(engine, tables=MAPPING) as found:
        keys = {(key.name, key.columns, key.targets, key.on_delete, key.declared) for key in found.undeclared_keys()}
        assert keys == {
            ("Conversation.owner_id", ("owner_id",), ("id",), "no action", False),
            ("message.conversation_id", ("conversation_id",), ("id",), "no action", False),
        }
    sql(engine, 'ALTER TABLE chat.message ADD FOREIGN KEY (conversation_id) REFERENCES chat."Conversation"')
    with platform(engine, tables=MAPPING) as found:
        assert [key.name for key in found.undeclared_keys()] == ["Conversation.owner_id"]
    unowned = MAPPING | {"conversations": {"name": "chat.Conversation", "columns": {"user_id": None}}}
    with platform(engine, tables=unowned) as found:
        assert found.undeclared_keys() == ()


MISTAKES: list[tuple[str, dict[str, Any], str, str]] = [
    ("users", {}, "there is no table users; the nearest names are auth_user", "tables.users in"),
    ("users", {"name": "auth_users"}, "there is no table auth_users; the nearest names are auth_user", "tables.users"),
    (
        "conversations",
        {"name": "chat.Conversations"},
        "there is no table chat.Conversations; the nearest names are chat.Conversation",
        "tables.conversations in",
    ),
    (
        "users",
        {"name": "auth_user", "columns": {"email_verified_at": "verifed"}},
        "auth_user has no column verifed; the nearest names are verified",
        "tables.users.columns in",
    ),
    ("users", {"name": "auth_user", "columns": {"id": "x"}}, "auth_user has no column x", "tables.users.columns in"),
    ("users", {"name": 'x"; DROP TABLE auth_user; --'}, 'there is no table x"; DROP TABLE', "tables.users"),
    ("users", {"name": "%(x)s"}, "there is no table %(x)s", "tables.users"),
    ("users", {"name": "housekeeping.holds"}, "there is no table housekeeping.holds", "tables.users"),
    ("users", {"name": "pg_catalog.pg_class"}, "there is no table pg_catalog.pg_class", "tables.users"),
]


@pytest.mark.parametrize(("ours", "mapping", "message", "hint"), MISTAKES, ids=[case[2] for case in MISTAKES])
def test_what_is_missing_is_named_with_the_nearest(
    engine: sa.Engine, ours: str, mapping: dict[str, Any], message: str, hint: str
) -> None:
    theirs(engine)
    with platform(engine, tables={ours: mapping} if mapping else {}) as found:
        with pytest.raises(ConfigurationError) as caught:
            found.table(ours)
        assert caught.value.message.startswith(message)
        assert hint in (caught.value.hint or "")
        assert found.find(ours) is None


def test_a_table_is_found_by_its_real_name_and_then_by_ours(engine: sa.Engine) -> None:
    theirs(engine)
    sql(engine, 'CREATE TABLE "chat.message" (id int)', "CREATE TABLE chat_messages (id int)")
    with platform(engine, tables=MAPPING) as found:
        assert found.any_table("users").label == "auth_user"
        assert found.any_table("chat.Conversation").schema == "chat"
        # A name with a dot in the search path is nearer than a schema's table.
        assert found.any_table("chat.message").schema == "public"
        assert found.any_table("chat_messages").label == "chat_messages"
        with pytest.raises(ConfigurationError, match="there is no table Message"):
            found.any_table("Message")
