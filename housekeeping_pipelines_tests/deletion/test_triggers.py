"""What triggers, rules and keys do besides, and what rows belong to: nothing goes that was not named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.application.config import HousekeepingConfig, RetentionRule
from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion.checks import check_policy
from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.deletion.policy import RowPolicy
from housekeeping_pipelines.deletion.rows import delete_rows
from housekeeping_pipelines.deletion.undo import undo_run
from housekeeping_pipelines.execution.checking import Surroundings
from housekeeping_pipelines.execution.runner import TaskRunner
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.retention import policies
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import scalar, sql, until

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from housekeeping_pipelines.deletion.undo import UndoResult
    from housekeeping_pipelines.execution.report import Report

OLD = "timestamptz '2026-01-01'"


@pytest.fixture
def chat(engine: sa.Engine) -> sa.Engine:
    """Three old conversations and a young one, with three messages each."""
    sql(
        engine,
        "CREATE TABLE conversations (id int PRIMARY KEY, messages int, pinned bool NOT NULL DEFAULT false,"
        " updated_at timestamptz NOT NULL)",
        "CREATE TABLE chat_messages (id int PRIMARY KEY, conversation_id int NOT NULL REFERENCES conversations"
        " ON DELETE CASCADE, quotes_id int REFERENCES chat_messages, content text)",
        "CREATE INDEX ON chat_messages (conversation_id)",
        f"INSERT INTO conversations SELECT i, 3, false, CASE WHEN i < 4 THEN {OLD} ELSE '{NOW}' END"
        " FROM generate_series(1, 4) i",
        "INSERT INTO chat_messages SELECT c.id * 10 + m, c.id, NULL, 'text'"
        " FROM conversations c, generate_series(1, 3) m",
    )
    return engine


def function(engine: sa.Engine, name: str, body: str) -> None:
    sql(engine, f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")


def make_policy(catalog: Catalog, now: datetime, *, config: HousekeepingConfig, table: str) -> RowPolicy:
    values = {"table": table, "age_column": "updated_at", "older_than_days": 30, "where": {"pinned": False}}
    rule = RetentionRule.model_validate(values)
    return policies.declared_rule(Platform(catalog, config), now, rule=rule)


def delete(engine: sa.Engine, *, table: str = "conversations", **config: object) -> Report:
    given = HousekeepingConfig.model_validate(config)
    limits = Limits(allow_large_deletion=True)
    return TaskRunner(engine, clock=lambda: NOW).run(
        "task",
        "run-1",
        lambda run: delete_rows(run, lambda c, now: make_policy(c, now, config=given, table=table), limits),
    )


def undo(engine: sa.Engine) -> UndoResult:
    with engine.connect() as connection:
        return undo_run(connection, "run-1")


def everything(engine: sa.Engine, *tables: str) -> list[object]:
    return [scalar(engine, f"SELECT array_agg(t::text ORDER BY t::text) FROM {table} t") for table in tables]


CHAT = ("conversations", "chat_messages")


@pytest.mark.parametrize(
    "when",
    [
        "AFTER DELETE ON chat_messages FOR EACH ROW",
        "BEFORE DELETE ON conversations FOR EACH ROW",
        "AFTER DELETE ON conversations FOR EACH STATEMENT",
    ],
)
def test_rows_that_a_trigger_deletes_besides_refuse_the_run(chat: sa.Engine, when: str) -> None:
    sql(chat, "CREATE TABLE attachments (id int)", "INSERT INTO attachments SELECT generate_series(1, 5)")
    function(chat, "drop_attachments", "DELETE FROM attachments WHERE id < 3; RETURN OLD;")
    sql(chat, f"CREATE TRIGGER drop_attachments {when} EXECUTE FUNCTION drop_attachments()")
    before = everything(chat, *CHAT, "attachments")
    report = delete(chat)
    assert (report.status, report.deleted) == ("refused", {})
    assert "2 rows of attachments would be deleted besides" in str(report.message)
    assert "the triggers are drop_attachments of" in str(report.message)
    assert everything(chat, *CHAT, "attachments") == before


def test_rows_that_a_trigger_may_delete_are_counted_and_warned_of(chat: sa.Engine) -> None:
    sql(chat, "CREATE TABLE attachments (id int)", "INSERT INTO attachments SELECT generate_series(1, 5)")
    function(chat, "drop_attachments", "DELETE FROM attachments WHERE id < 3; RETURN NULL;")
    sql(chat, "CREATE TRIGGER t AFTER DELETE ON chat_messages FOR EACH ROW EXECUTE FUNCTION drop_attachments()")
    report = delete(chat, allowed_deletions=["attachments"])
    assert (report.status, report.deleted) == ("succeeded", {"conversations": 3, "chat_messages": 9})
    assert report.for_good == {"attachments": 2}
    assert "triggers deleted 2 rows of attachments besides, which cannot be restored" in report.warnings


def test_a_rule_that_deletes_besides_refuses_the_run(chat: sa.Engine) -> None:
    sql(
        chat,
        "CREATE TABLE notes (conversation_id int)",
        "INSERT INTO notes SELECT generate_series(1, 4)",
        "CREATE RULE drop_notes AS ON DELETE TO conversations DO ALSO DELETE FROM notes WHERE conversation_id = OLD.id",
    )
    report = delete(chat)
    assert report.deleted == {}
    assert scalar(chat, "SELECT count(*) FROM notes") == 4


def test_a_partition_of_the_plan_is_no_further_table(chat: sa.Engine) -> None:
    sql(
        chat,
        "CREATE TABLE events (id int, conversation_id int REFERENCES conversations ON DELETE CASCADE, PRIMARY KEY (id))"
        " PARTITION BY RANGE (id)",
        "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (50)",
        "CREATE TABLE events_2 PARTITION OF events DEFAULT",
        "INSERT INTO events SELECT i, 1 + i % 4 FROM generate_series(1, 99) i",
    )
    before = everything(chat, *CHAT, "events")
    report = delete(chat)
    assert report.status == "succeeded"
    assert undo(chat).conflicts == []
    assert everything(chat, *CHAT, "events") == before


def test_check_names_triggers_that_act_on_the_deletion(chat: sa.Engine, tmp_path: Path) -> None:
    function(chat, "nothing", "RETURN OLD;")
    sql(chat, "CREATE TRIGGER on_delete AFTER DELETE ON chat_messages FOR EACH ROW EXECUTE FUNCTION nothing()")
    config = HousekeepingConfig()
    with chat.connect() as connection:
        surroundings = Surroundings(load_settings(tmp_path, {}), config, connection, NOW, has_schema=True)
        platform = surroundings.platform
        found = check_policy(
            "task", lambda: make_policy(platform.catalog, NOW, config=config, table="conversations"), surroundings
        )
    assert found.status == "warning"
    assert "on_delete of chat_messages acts on the deletion of its rows" in str(found.hint)


def test_a_parent_is_kept_as_it_was_before_triggers_of_its_children_changed_it(chat: sa.Engine) -> None:
    function(
        chat,
        "recount",
        "UPDATE conversations SET messages = (SELECT count(*) FROM chat_messages m WHERE m.conversation_id ="
        " OLD.conversation_id) WHERE id = OLD.conversation_id; RETURN NULL;",
    )
    sql(chat, "CREATE TRIGGER recount AFTER DELETE ON chat_messages FOR EACH ROW EXECUTE FUNCTION recount()")
    before = everything(chat, *CHAT)
    assert delete(chat).deleted == {"conversations": 3, "chat_messages": 9}
    assert undo(chat).conflicts == []
    assert everything(chat, *CHAT) == before


@pytest.mark.parametrize("when", ["BEFORE INSERT", "BEFORE INSERT OR UPDATE"])
def test_an_undo_sets_back_what_triggers_change(chat: sa.Engine, when: str) -> None:
    function(chat, "stamp", "NEW.updated_at = now(); RETURN NEW;")
    function(chat, "touch", "UPDATE conversations SET messages = 99 WHERE id = NEW.conversation_id; RETURN NULL;")
    before = everything(chat, *CHAT)
    assert delete(chat).deleted == {"conversations": 3, "chat_messages": 9}
    sql(
        chat,
        f"CREATE TRIGGER stamp {when} ON conversations FOR EACH ROW EXECUTE FUNCTION stamp()",
        "CREATE TRIGGER touch AFTER INSERT ON chat_messages FOR EACH ROW EXECUTE FUNCTION touch()",
    )
    assert undo(chat).conflicts == []
    assert everything(chat, *CHAT) == before


def test_rows_that_the_undo_itself_makes_are_not_in_its_way(chat: sa.Engine) -> None:
    sql(
        chat,
        "CREATE TABLE summaries"
        " (conversation_id int PRIMARY KEY REFERENCES conversations ON DELETE CASCADE, text text)",
        "INSERT INTO summaries SELECT id, 'a summary' FROM conversations",
    )
    function(chat, "summarize", "INSERT INTO summaries VALUES (NEW.id, ''); RETURN NULL;")
    sql(chat, "CREATE TRIGGER summarize AFTER INSERT ON conversations FOR EACH ROW EXECUTE FUNCTION summarize()")
    before = everything(chat, *CHAT, "summaries")
    assert delete(chat).deleted["summaries"] == 3
    sql(chat, "INSERT INTO conversations VALUES (99, 0, false, now())")
    assert undo(chat).conflicts == []
    sql(chat, "DELETE FROM conversations WHERE id = 99")
    assert everything(chat, *CHAT, "summaries") == before


@pytest.mark.parametrize("stays", ["pinned = true", "updated_at = '2026-06-15'"])
def test_a_row_that_stays_keeps_what_is_its_own(chat: sa.Engine, stays: str) -> None:
    sql(
        chat,
        f"UPDATE conversations SET {stays} WHERE id = 2",
        "UPDATE chat_messages SET quotes_id = 11 WHERE id = 21",
    )
    report = delete(chat)
    assert (report.deleted, report.skipped["in_use"]) == ({"conversations": 1, "chat_messages": 3}, 1)
    assert scalar(chat, "SELECT array_agg(id ORDER BY id) FROM conversations") == [1, 2, 4]
    assert scalar(chat, "SELECT count(*) FROM chat_messages WHERE conversation_id IN (1, 2)") == 6


def test_a_quotation_within_what_goes_keeps_nothing(chat: sa.Engine) -> None:
    sql(chat, "UPDATE chat_messages SET quotes_id = 11 WHERE id IN (12, 21, 31)",
        "UPDATE chat_messages SET quotes_id = 41 WHERE id = 13")  # fmt: skip
    assert delete(chat).deleted == {"conversations": 3, "chat_messages": 9}


def test_an_undeclared_key_is_followed_to_a_unique_column_alone(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE conversations (tenant_id int, id int, created_at timestamptz, updated_at timestamptz NOT NULL,"
        " pinned bool NOT NULL DEFAULT false, PRIMARY KEY (tenant_id, id))",
        "CREATE TABLE chat_messages (tenant_id int, id int, conversation_id int, created_at timestamptz)",
        f"INSERT INTO conversations SELECT 1, i, {OLD}, {OLD} FROM generate_series(1, 3) i",
        f"INSERT INTO chat_messages VALUES (2, 1, 1, {OLD})",
    )
    report = delete(engine)
    assert (report.status, report.deleted) == ("refused", {})
    assert "conversations.id is not unique" in str(report.message)
    assert scalar(engine, "SELECT count(*) FROM chat_messages") == 1
    sql(engine, "CREATE UNIQUE INDEX ON conversations (id)")
    assert delete(engine).deleted == {"conversations": 3, "chat_messages": 1}


def test_a_reference_by_a_key_that_is_not_followed_keeps_the_root_when_it_comes_on_the_way(engine: sa.Engine) -> None:
    sql(
        engine,
        f"CREATE TABLE owners (id int PRIMARY KEY, joined timestamptz DEFAULT {OLD})",
        "CREATE TABLE addresses (id int PRIMARY KEY, owner_id int REFERENCES owners ON DELETE CASCADE)",
        "CREATE TABLE letters (address_id int REFERENCES addresses ON DELETE CASCADE)",
        "INSERT INTO owners VALUES (1), (2)",
        "INSERT INTO addresses VALUES (1, 1), (2, 2)",
    )

    def policy(catalog: Catalog, now: datetime) -> RowPolicy:
        owners, letters = catalog.find("owners"), catalog.find("letters")
        assert owners is not None
        assert letters is not None
        lettered = sa.text(
            "NOT EXISTS (SELECT FROM letters l JOIN addresses a ON a.id = l.address_id WHERE a.owner_id = owners.id)"
        )
        joined = owners.selectable.c.joined
        return RowPolicy(
            table=owners,
            age_from=joined,
            old=joined < now,
            eligible=sa.and_(sa.true(), lettered),
            reason="old",
            follows=lambda key: key.child != letters.oid,
        )

    def work() -> Report:
        limits = Limits(allow_large_deletion=True)
        return TaskRunner(engine, clock=lambda: NOW).run("task", "run-1", lambda run: delete_rows(run, policy, limits))

    with engine.connect() as other, ThreadPoolExecutor(1) as threads:
        other.execute(sa.text("SELECT FROM addresses WHERE id = 1 FOR UPDATE"))
        report = threads.submit(work)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        until(lambda: scalar(engine, waiting))
        other.execute(sa.text("INSERT INTO letters VALUES (1)"))
        other.commit()
        assert (report.result().status, report.result().skipped["in_use"]) == ("succeeded", 1)
    assert scalar(engine, "SELECT array_agg(id) FROM owners") == [1]
    assert scalar(engine, "SELECT count(*) FROM letters") == 1
