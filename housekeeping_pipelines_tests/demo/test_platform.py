"""The sample looks like a platform in use, comes out the same twice, and touches nothing that it did not make."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.application.sample import TABLE_COMMENT
from housekeeping_pipelines.application.tables import metadata
from housekeeping_pipelines.demo import words as sample_words
from housekeeping_pipelines.demo.platform import LEFT_EMPTY, SampleSize, create_sample, reset_sample
from housekeeping_pipelines.errors import ConfigurationError, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A Wednesday afternoon. Nothing may depend on when the tests run, so it is long ago.
NOW = datetime(2019, 10, 16, 15, 30, 12, 345678, tzinfo=UTC)


@pytest.fixture
def connect() -> Iterator[Callable[[sa.URL], sa.Engine]]:
    engines: list[sa.Engine] = []

    def _connect(url: sa.URL) -> sa.Engine:
        engines.append(sa.create_engine(url))
        return engines[-1]

    yield _connect
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(connect: Callable[[sa.URL], sa.Engine], database_url: sa.URL) -> sa.Engine:
    return connect(database_url)


@pytest.fixture
def other_engine(connect: Callable[[sa.URL], sa.Engine], database_url: sa.URL) -> Iterator[sa.Engine]:
    name = f"{database_url.database}_other"
    server = connect(database_url).execution_options(isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    yield connect(database_url.set(database=name))
    with server.connect() as connection:
        connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def platform(engine: sa.Engine) -> sa.Engine:
    create_sample(engine, now=NOW)
    return engine


def _one(engine: sa.Engine, query: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(sa.text(query), {"now": NOW}).one()


def _value(engine: sa.Engine, query: str) -> Any:
    return _one(engine, query)[0]


def _checksums(engine: sa.Engine) -> dict[str, str]:
    return {
        name: _value(engine, f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text COLLATE \"C\")) FROM {name} t")
        for name in metadata.tables
    }


def _relations(engine: sa.Engine) -> set[str]:
    inspector = sa.inspect(engine)
    return {*inspector.get_table_names(), *inspector.get_view_names()}


def _execute(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def test_the_same_seed_size_and_instant_give_the_same_rows(engine: sa.Engine, other_engine: sa.Engine) -> None:
    create_sample(engine, seed=3, conversations=300, now=NOW)
    create_sample(other_engine, seed=3, conversations=300, now=NOW.astimezone(timezone(timedelta(hours=5.5))))
    assert _checksums(engine) == _checksums(other_engine)


def test_another_seed_gives_other_rows_in_every_table(engine: sa.Engine, other_engine: sa.Engine) -> None:
    create_sample(engine, seed=3, conversations=300, now=NOW)
    create_sample(other_engine, seed=4, conversations=300, now=NOW)
    first, second = _checksums(engine), _checksums(other_engine)
    assert [name for name in first if first[name] == second[name]] == ["workspaces", *LEFT_EMPTY]


def test_another_instant_moves_the_whole_sample(engine: sa.Engine, other_engine: sa.Engine) -> None:
    made = create_sample(engine, conversations=300, now=NOW)
    assert create_sample(other_engine, conversations=300, now=NOW + timedelta(days=7)) == made
    query = "SELECT avg(extract(epoch FROM created_at)) FROM chat_messages"
    assert _value(other_engine, query) - _value(engine, query) == pytest.approx(7 * 86400, abs=3600)


def test_the_hour_makes_no_difference(engine: sa.Engine, other_engine: sa.Engine) -> None:
    nightly = NOW + timedelta(hours=60)
    assert create_sample(other_engine, conversations=300, now=nightly) == create_sample(
        engine, conversations=300, now=NOW
    )
    query = "SELECT count(*) FROM conversations WHERE created_at < CAST('{}' AS timestamptz) - interval '30 days'"
    assert _value(other_engine, query.format(nightly)) == _value(engine, query.format(NOW))


def test_it_reports_the_rows_that_are_there(engine: sa.Engine) -> None:
    rows = create_sample(engine, conversations=700, now=NOW)
    assert rows == {name: _value(engine, f"SELECT count(*) FROM {name}") for name in metadata.tables}
    size = SampleSize.of(700)
    asked = vars(size)
    assert asked == {name: rows[name] for name in asked}
    assert size == SampleSize(
        users=140,
        workspaces=7,
        conversations=700,
        documents=175,
        parsed_files=70,
        upload_sessions=35,
        security_events=175,
    )


@pytest.mark.parametrize("conversations", [1, 2, 49])
def test_a_small_sample_has_something_in_every_table(engine: sa.Engine, conversations: int) -> None:
    rows = create_sample(engine, conversations=conversations, now=NOW)
    assert rows["conversations"] == conversations
    assert {name for name, count in rows.items() if not count} == set(LEFT_EMPTY)
    young = "SELECT count(*) FROM users WHERE email_verified_at IS NULL AND date_joined > :now - interval '7 days'"
    assert _value(engine, young) >= 1


def test_a_third_of_the_conversations_are_old_and_traps_are_among_them(platform: sa.Engine) -> None:
    found = _one(
        platform,
        """
        WITH c AS (
            SELECT c.*, greatest(c.updated_at, max(m.created_at)) AS last_activity, count(m.id) AS messages,
                   CAST(:now AS timestamptz) - interval '30 days' AS limit_at
            FROM conversations c LEFT JOIN chat_messages m ON m.conversation_id = c.id GROUP BY c.id
        )
        SELECT avg((last_activity < limit_at)::int) AS old,
               avg((created_at < limit_at)::int) AS old_by_creation,
               count(*) FILTER (WHERE created_at < limit_at AND updated_at >= limit_at) AS still_used,
               count(*) FILTER (
                   WHERE updated_at < limit_at AND last_activity > limit_at + interval '29 days'
               ) AS used_today_only_by_its_messages,
               avg(pinned::int) AS pinned,
               avg((last_activity < limit_at)::int) FILTER (WHERE pinned) AS old_pinned,
               avg((messages = 0)::int) AS empty,
               bool_and(created_at <= updated_at) AS in_order,
               count(DISTINCT title) AS titles
        FROM c
        """,
    )
    assert 0.30 <= found.old <= 0.40
    assert found.old < found.old_by_creation <= 0.46
    assert found.still_used >= 50
    assert found.used_today_only_by_its_messages >= 20
    assert 0.025 <= found.pinned <= 0.035
    assert 0.3 <= found.old_pinned <= 0.8
    assert 0.01 <= found.empty <= 0.07
    assert found.in_order
    assert found.titles >= 300


def test_messages_alternate_and_one_in_a_hundred_has_no_conversation(platform: sa.Engine) -> None:
    found = _one(
        platform,
        """
        SELECT count(*) / 2000.0 AS mean, avg((conversation_id IS NULL)::int) AS orphaned,
               count(*) FILTER (
                   WHERE conversation_id IS NULL AND created_at > CAST(:now AS timestamptz) - interval '1 hour'
               ) AS young_orphans,
               count(DISTINCT content) AS contents, avg(length(content)) AS length,
               count(*) FILTER (WHERE content ~ '[{}]|  |^ | $') AS malformed
        FROM chat_messages
        """,
    )
    assert 7 <= found.mean <= 9
    assert 0.008 <= found.orphaned <= 0.012
    assert 3 <= found.young_orphans <= 20
    assert found.contents >= 5_000
    assert 80 <= found.length <= 300
    assert found.malformed == 0

    turns = _one(
        platform,
        """
        WITH m AS (
            SELECT m.*, row_number() OVER w AS turn, lag(m.created_at) OVER w AS previous_at,
                   lag(m.id) OVER (PARTITION BY conversation_id ORDER BY m.created_at) AS previous_id
            FROM chat_messages m WHERE conversation_id IS NOT NULL
            WINDOW w AS (PARTITION BY conversation_id ORDER BY id)
        )
        SELECT bool_and(role = CASE turn % 2 WHEN 1 THEN 'user' ELSE 'assistant' END) AS alternate,
               coalesce(bool_and(m.created_at > previous_at), false) AS in_order,
               bool_and(m.created_at >= c.created_at) AS after_the_start,
               max(turn) AS longest
        FROM m JOIN conversations c ON c.id = m.conversation_id
        """,
    )
    assert turns.alternate
    assert turns.in_order
    assert turns.after_the_start
    assert 60 <= turns.longest <= 600


def test_accounts_differ_in_every_way_that_the_clean_up_of_users_must_tell_apart(platform: sa.Engine) -> None:
    found = _one(
        platform,
        """
        WITH u AS (
            SELECT u.*, email_verified_at IS NULL AS unverified, last_login IS NULL AS unused,
                   EXISTS (SELECT FROM conversations c WHERE c.user_id = u.id) AS owns,
                   date_joined >= CAST(:now AS timestamptz) - interval '7 days' AS young
            FROM users u
        )
        SELECT avg(unverified::int) AS unverified,
               count(*) FILTER (WHERE unverified AND young) AS young,
               count(*) FILTER (WHERE unverified AND NOT young AND owns) AS owners,
               count(*) FILTER (WHERE unverified AND NOT young AND is_staff) AS staff,
               count(*) FILTER (WHERE unverified AND NOT young AND NOT unused) AS logged_in,
               count(*) FILTER (
                   WHERE unverified AND unused AND NOT (young OR owns OR is_staff OR is_superuser)
               ) AS candidates,
               avg((NOT is_active AND NOT unverified AND NOT unused)::int) AS switched_off,
               count(*) FILTER (WHERE NOT is_active AND unverified) AS inactive_unverified,
               bool_and(coalesce(email_verified_at, date_joined) >= date_joined) AS verified_after_joining,
               bool_and(coalesce(last_login, date_joined) >= date_joined) AS logged_in_after_joining
        FROM u
        """,
    )
    assert 0.10 <= found.unverified <= 0.15
    assert found.young >= 2
    assert found.owners >= 4
    assert found.staff >= 2
    assert found.logged_in >= 4
    assert 20 <= found.candidates <= 40
    assert 0.015 <= found.switched_off <= 0.025
    assert found.inactive_unverified == 0
    assert found.verified_after_joining
    assert found.logged_in_after_joining


def test_everything_refers_to_something_that_was_there_before_it(platform: sa.Engine) -> None:
    found = _one(
        platform,
        """
        SELECT (SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated) AS unchecked,
               (SELECT bool_and(c.created_at >= u.date_joined)
                FROM conversations c JOIN users u ON u.id = c.user_id) AS owners_had_joined,
               (SELECT bool_and(p.created_at BETWEEN s.created_at AND s.last_activity)
                FROM processed_documents p JOIN upload_sessions s USING (session_key)) AS within_session,
               (SELECT bool_and(d.detected_at >= e.started_at)
                FROM detections d JOIN security_events e ON e.id = d.event_id) AS within_event,
               (SELECT count(DISTINCT workspace_id) FROM documents) AS workspaces
        """,
    )
    assert found.unchecked == 0
    assert found.owners_had_joined
    assert found.within_session
    assert found.within_event
    assert found.workspaces == 20
    keys = {key["referred_table"] for name in metadata.tables for key in sa.inspect(platform).get_foreign_keys(name)}
    assert keys == {
        *("users", "conversations", "workspaces", "upload_sessions", "security_events"),
        *("documents", "document_sync_queues"),
    }


def test_uploads_and_events_show_every_state(platform: sa.Engine) -> None:
    found = _one(
        platform,
        """
        SELECT (SELECT array_agg(DISTINCT processing_status ORDER BY processing_status)
                FROM processed_documents) AS statuses,
               (SELECT bool_and((processing_status = 'completed') OR
                                num_nulls(excel_file_path, pdf_file_path, doc_file_path) = 3)
                FROM processed_documents) AS outputs_of_completed_only,
               (SELECT count(*) FROM processed_documents p JOIN upload_sessions s USING (session_key)
                WHERE processing_status = 'processing'
                  AND last_activity < CAST(:now AS timestamptz) - interval '1 hour') AS working_in_an_idle_session,
               (SELECT avg((last_activity < CAST(:now AS timestamptz) - interval '1 hour')::int)
                FROM upload_sessions) AS idle,
               (SELECT array_agg(DISTINCT risk_level ORDER BY risk_level) FROM security_events) AS levels,
               (SELECT count(*) FROM security_events WHERE clip_path IS NULL) AS without_clip
        """,
    )
    assert found.statuses == ["completed", "failed", "pending", "processing"]
    assert found.outputs_of_completed_only
    assert found.working_in_an_idle_session >= 1
    assert 0.3 <= found.idle <= 0.5
    assert found.levels == ["critical", "high", "low", "medium"]
    assert found.without_clip >= 10


def test_days_are_busier_than_nights_and_weekends(platform: sa.Engine) -> None:
    found = _one(
        platform,
        """
        SELECT avg((extract(hour FROM created_at AT TIME ZONE 'UTC') < 6)::int) AS night,
               avg((extract(isodow FROM created_at AT TIME ZONE 'UTC') > 5)::int) AS weekend
        FROM chat_messages
        """,
    )
    assert 0 < found.night < 0.1
    assert 0.02 < found.weekend < 0.2


def test_every_instant_lies_in_the_18_months_before_now(platform: sa.Engine) -> None:
    spans = {}
    for table in metadata.sorted_tables:
        for column in table.columns if table.name not in LEFT_EMPTY else ():
            if isinstance(column.type, sa.TIMESTAMP):
                spans[f"{table}.{column.name}"] = _one(platform, f"SELECT min({column}), max({column}) FROM {table}")
    assert len(spans) == 13
    assert {name for name, (_, last) in spans.items() if last > NOW} == set()
    assert {name for name, (first, _) in spans.items() if first < NOW - timedelta(days=549)} == set()
    for name in ("users.date_joined", "conversations.created_at", "documents.created_at", "detections.detected_at"):
        first, last = spans[name]
        assert first < NOW - timedelta(days=480), name
        assert last > NOW - timedelta(days=2), name


def test_rows_can_be_added_by_the_platform_afterwards(platform: sa.Engine) -> None:
    with platform.begin() as connection:
        user: int = connection.execute(
            sa.insert(metadata.tables["users"])
            .values(username="new", email="new@example.com")
            .returning(sa.column("id"))
        ).scalar_one()
        for table in ("workspaces", "security_events", "conversations", "chat_messages", "documents", "detections"):
            top = connection.scalar(sa.text(f"SELECT max(id) FROM {table}"))
            sequence = connection.scalar(sa.text(f"SELECT nextval(pg_get_serial_sequence('{table}', 'id'))"))
            assert sequence == top + 1, table
        assert user == connection.scalar(sa.text("SELECT count(*) FROM users"))


def test_the_planner_knows_the_size_of_every_table(platform: sa.Engine) -> None:
    for name in metadata.tables:
        known = _value(platform, f"SELECT reltuples FROM pg_class WHERE oid = '{name}'::regclass")
        rows = _value(platform, f"SELECT count(*) FROM {name}")
        assert known == rows, name


def test_reset_takes_the_sample_and_nothing_else(engine: sa.Engine) -> None:
    _execute(engine, "CREATE TABLE notes (id int)", f"COMMENT ON TABLE notes IS '{TABLE_COMMENT}'")
    rows = create_sample(engine, conversations=50, now=NOW)
    before = _checksums(engine)
    reset_sample(engine)
    assert _relations(engine) == {"notes"}
    reset_sample(engine)
    assert create_sample(engine, conversations=50, now=NOW) == rows
    assert _checksums(engine) == before


def test_a_second_sample_asks_for_a_reset_first(engine: sa.Engine) -> None:
    create_sample(engine, conversations=50, now=NOW)
    before = _checksums(engine)
    with pytest.raises(Refused, match=r"^the database already has chat_messages, conversations, ") as refusal:
        create_sample(engine, conversations=50, seed=8, now=NOW)
    assert refusal.value.hint is not None
    assert "reset" in refusal.value.hint
    assert _checksums(engine) == before


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE users AS SELECT 'theirs' AS name",
        "CREATE VIEW users AS SELECT 'theirs' AS name",
        "CREATE MATERIALIZED VIEW users AS SELECT 'theirs' AS name",
    ],
)
def test_a_users_own_table_is_neither_filled_nor_dropped(engine: sa.Engine, theirs: str) -> None:
    _execute(engine, theirs)
    with pytest.raises(Refused, match="already has users"):
        create_sample(engine, conversations=50, now=NOW)
    with pytest.raises(Refused, match="the sample did not create users"):
        reset_sample(engine)
    assert _value(engine, "SELECT name FROM users") == "theirs"
    assert _value(engine, "SELECT to_regclass('conversations')") is None


def test_one_foreign_table_among_the_samples_keeps_them_all(engine: sa.Engine) -> None:
    create_sample(engine, conversations=50, now=NOW)
    _execute(
        engine,
        "DROP TABLE detections",
        "CREATE TABLE detections AS SELECT 1 AS id",
        "COMMENT ON TABLE documents IS 'ours now'",
    )
    with pytest.raises(Refused, match=r"the sample did not create detections, documents$") as refusal:
        reset_sample(engine)
    assert "\n" not in refusal.value.message
    assert _relations(engine) == set(metadata.tables)


@pytest.mark.parametrize(
    "theirs",
    [
        {"invoices": "CREATE TABLE invoices (user_id bigint REFERENCES users)"},
        {"people": "CREATE VIEW people AS SELECT username FROM users"},
        {name: f"CREATE VIEW {name} AS SELECT username FROM users" for name in ("people", "staff")},
    ],
)
def test_what_depends_on_the_sample_is_not_dropped_with_it(engine: sa.Engine, theirs: dict[str, str]) -> None:
    create_sample(engine, conversations=50, now=NOW)
    _execute(engine, *theirs.values())
    with pytest.raises(Refused) as refusal:
        reset_sample(engine)
    assert all(name in refusal.value.message for name in theirs)
    assert "\n" not in refusal.value.message
    assert _relations(engine) == {*metadata.tables, *theirs}


def test_a_sample_that_was_interrupted_leaves_nothing(engine: sa.Engine) -> None:
    def interrupt(table: str, _rows: int) -> None:
        if table == "chat_messages":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_sample(engine, conversations=50, now=NOW, on_progress=interrupt)
    assert _relations(engine) == set()


def test_progress_rises_to_the_rows_of_every_table(engine: sa.Engine) -> None:
    seen: dict[str, list[int]] = {}
    rows = create_sample(engine, now=NOW, on_progress=lambda table, done: seen.setdefault(table, []).append(done))
    assert {table: steps[-1] for table, steps in seen.items()} | dict.fromkeys(LEFT_EMPTY, 0) == rows
    assert all(steps == sorted(set(steps)) for steps in seen.values())
    assert len(seen["chat_messages"]) > 1


def test_memory_does_not_grow_with_the_number_of_rows(engine: sa.Engine) -> None:
    peaks = []
    tracemalloc.start()
    try:
        for conversations in (300, 3_000):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            create_sample(engine, conversations=conversations, now=NOW)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
            reset_sample(engine)
    finally:
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000


def test_a_size_or_an_instant_that_means_nothing_is_refused(engine: sa.Engine) -> None:
    with pytest.raises(ConfigurationError, match="0 conversations"):
        create_sample(engine, conversations=0, now=NOW)
    with pytest.raises(ValueError, match="time zone"):
        create_sample(engine, now=datetime(2026, 1, 1))  # noqa: DTZ001
    assert _relations(engine) == set()


def test_user_names_stay_different_when_every_name_is_taken() -> None:
    names = [
        f"{given}.{family}"
        for given_names, family_names in sample_words.PEOPLE
        for given in given_names.split()
        for family in family_names.split()
    ]
    assert len(set(names)) == len(names) >= 1_000
    assert all(name.replace(".", "").isalpha() and name.isascii() for name in names)
