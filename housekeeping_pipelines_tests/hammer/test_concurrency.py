"""The application goes on writing and deleting while old conversations go: nothing new is lost, no run fails."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa

from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.deletion.mirrors import find_mirrors
from housekeeping_pipelines.deletion.rows import delete_rows
from housekeeping_pipelines.execution.runner import TaskRunner
from housekeeping_pipelines.retention import policies

if TYPE_CHECKING:
    from collections.abc import Callable

    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.execution.report import Report
    from housekeeping_pipelines.postgres.catalog import Catalog

CONVERSATIONS = 3_000


@dataclass
class Application:
    """Sessions of the application's own, each in a thread, until they are told to stop."""

    address: str
    stop: threading.Event = field(default_factory=threading.Event)
    written: set[int] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)
    unexpected: list[str] = field(default_factory=list)
    refused: int = 0
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self, *works: Callable[[psycopg.Connection, random.Random], None]) -> None:
        for seed, work in enumerate(works):
            thread = threading.Thread(target=self._repeat, args=(work, random.Random(seed)))
            self.threads.append(thread)
            thread.start()

    def _repeat(self, work: Callable[[psycopg.Connection, random.Random], None], chance: random.Random) -> None:
        with psycopg.connect(self.address) as connection:
            while not self.stop.is_set():
                try:
                    work(connection, chance)
                except (psycopg.errors.ForeignKeyViolation, psycopg.errors.DeadlockDetected):
                    # The conversation went first: the application sees that it is gone, as with any deletion.
                    self.refused += 1
                except psycopg.Error as error:
                    self.unexpected.append(repr(error))
                connection.rollback()

    def write(self, connection: psycopg.Connection, chance: random.Random) -> None:
        """Two messages in one old conversation; they count as written once the transaction is committed."""
        conversation, numbers = chance.randint(1, CONVERSATIONS), []
        for _ in range(2):
            row = connection.execute(
                "INSERT INTO chat_messages (conversation_id, role, content, created_at)"
                " VALUES (%s, 'user', 'new', now()) RETURNING id",
                [conversation],
            ).fetchone()
            assert row is not None
            numbers.append(row[0])
        connection.commit()
        self.written.update(numbers)

    def remove(self, connection: psycopg.Connection, chance: random.Random) -> None:
        """One conversation, its messages first, as an application deletes it."""
        conversation = chance.randint(1, CONVERSATIONS)
        # Locked first, so that none of its messages is written between the two.
        connection.execute("SELECT FROM conversations WHERE id = %s FOR UPDATE", [conversation])
        gone = connection.execute("DELETE FROM chat_messages WHERE conversation_id = %s RETURNING id", [conversation])
        numbers = {row[0] for row in gone.fetchall()}
        connection.execute("DELETE FROM conversations WHERE id = %s", [conversation])
        connection.commit()
        self.removed.update(numbers)
        time.sleep(0.001)

    def finish(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(30)


def conversations(catalog: Catalog, now: datetime) -> RowPolicy:
    platform = Platform(catalog, HousekeepingConfig())
    return policies.conversations(platform, now, older_than_days=30, age_column="last_activity")


@pytest.mark.parametrize("key", ["ON DELETE CASCADE", "DEFERRABLE INITIALLY DEFERRED", ""])
def test_nothing_new_is_lost_while_old_conversations_go(engine: sa.Engine, key: str, *, long: bool) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"""
            CREATE TABLE conversations (id int PRIMARY KEY, created_at timestamptz, updated_at timestamptz);
            CREATE TABLE chat_messages (
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                conversation_id int REFERENCES conversations {key}, role text, content text, created_at timestamptz);
            CREATE INDEX ON chat_messages (conversation_id);
            INSERT INTO conversations SELECT i, now() - interval '90 days', now() - interval '90 days'
                FROM generate_series(1, {CONVERSATIONS}) i;
            INSERT INTO chat_messages (conversation_id, role, content, created_at)
                SELECT c.id, 'user', 'old', c.created_at FROM conversations c, generate_series(1, 5);
            """
        )
    started = datetime.now(UTC)
    application = Application(engine.url.set(drivername="postgresql").render_as_string(hide_password=False))
    application.start(application.write, application.write, application.remove)
    runner = TaskRunner(engine)
    reports: list[Report] = []
    until = time.monotonic() + (120 if long else 4)
    try:
        while time.monotonic() < until:
            limits = Limits(batch_size=50, max_rows=2_000, allow_large_deletion=True)
            body = partial(delete_rows, make_policy=conversations, limits=limits)
            reports.append(runner.run("delete_old_conversations", f"run{len(reports)}", body))
    finally:
        application.finish()
    assert application.unexpected == []
    assert {(report.status, report.failed_count) for report in reports} == {("succeeded", 0)}
    assert sum(report.deleted.get("conversations", 0) for report in reports) > 100
    assert len(application.written) > 100
    with engine.connect() as connection:
        there = set(connection.scalars(sa.text("SELECT id FROM chat_messages WHERE content = 'new'")))
        dangling = connection.scalar(
            sa.text(
                "SELECT count(*) FROM chat_messages m"
                " WHERE NOT EXISTS (SELECT FROM conversations c WHERE c.id = m.conversation_id)"
            )
        )
        trashed_new = [
            connection.scalar(
                sa.text(f'SELECT count(*) FROM housekeeping."{mirror.name}" WHERE created_at >= :started'),
                {"started": started},
            )
            for mirror in find_mirrors(connection)
        ]
    assert application.written - there - application.removed == set()
    assert dangling == 0
    assert set(trashed_new) == {0}
