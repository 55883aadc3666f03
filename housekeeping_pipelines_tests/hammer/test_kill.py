"""`kill -9` at any instant leaves every row either in its table or in the trash, never both, never neither."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.deletion.mirrors import find_mirrors
from housekeeping_pipelines_tests.support import Installation, until

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

TABLES = ("conversations", "chat_messages", "attachments")

# A deletion or an undo of its own, said to be under way by a line on standard output.
_WORK = """
import sys
from datetime import timedelta
from pathlib import Path
import sqlalchemy as sa
from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.execution.runner import TaskRunner
from housekeeping_pipelines.deletion.rows import delete_rows
from housekeeping_pipelines.maintenance import trash
from housekeeping_pipelines.execution.database import make_engine
from housekeeping_pipelines.retention import policies
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.stores.stores import Stores

what, url = sys.argv[1:]
runner = TaskRunner(make_engine(sa.make_url(url)))
print("ready", flush=True)
if what == "delete":
    def policy(catalog, now):
        platform = Platform(catalog, HousekeepingConfig())
        return policies.conversations(platform, now, older_than_days=30, age_column="last_activity")

    limits = Limits(batch_size=40, allow_large_deletion=True)
    report = runner.run("delete_old_conversations", "run", lambda run: delete_rows(run, policy, limits))
else:
    stores = Stores(load_settings(Path("/nowhere"), {}))
    report = runner.run("undo", "undo", lambda run: trash.undo(run, "run", stores))
print(report.status, flush=True)
"""


def make_rows(engine: sa.Engine, conversations: int) -> None:
    """Old conversations with messages and attachments, and a reference back that is cleared on the way."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            """
            CREATE TABLE users (id int PRIMARY KEY, is_active bool, date_joined timestamptz);
            CREATE TABLE conversations (
                id int PRIMARY KEY, user_id int REFERENCES users, title text, created_at timestamptz,
                updated_at timestamptz, pinned bool DEFAULT false, last_message_id int);
            CREATE TABLE chat_messages (
                id int PRIMARY KEY, conversation_id int REFERENCES conversations ON DELETE CASCADE, role text,
                content text, created_at timestamptz);
            CREATE TABLE attachments (
                message_id int REFERENCES chat_messages, position int, name text, PRIMARY KEY (message_id, position));
            INSERT INTO users VALUES (1, true, now());
            """
        )
        connection.execute(
            sa.text(
                "INSERT INTO conversations SELECT i, 1, 'talk', t, t FROM generate_series(1, :n) i,"
                " LATERAL (SELECT now() - interval '90 days' - interval '1 minute' * i AS t) _"
            ),
            {"n": conversations},
        )
        connection.execute(
            sa.text(
                "INSERT INTO chat_messages SELECT c.id * 10 + i, c.id, 'user', repeat('x', 200), c.updated_at"
                " FROM conversations c, generate_series(0, 4) i"
            )
        )
        connection.exec_driver_sql(
            """
            CREATE INDEX ON chat_messages (conversation_id);
            INSERT INTO attachments SELECT id, 0, 'file' FROM chat_messages WHERE mod(id, 2) = 0;
            UPDATE conversations SET last_message_id = id * 10 + 4;
            ALTER TABLE conversations ADD FOREIGN KEY (last_message_id) REFERENCES chat_messages ON DELETE SET NULL;
            CREATE INDEX ON conversations (last_message_id);
            """
        )


def everything(engine: sa.Engine) -> dict[str, Counter[str]]:
    """Every row by table as text, wherever it is; a row in two places counts twice."""
    from collections import Counter

    found: dict[str, Counter[str]] = {name: Counter() for name in TABLES}
    with engine.connect() as connection:
        for name in TABLES:
            found[name].update(connection.scalars(sa.text(f"SELECT t::text FROM {name} t")))
        for mirror in find_mirrors(connection):
            columns = ", ".join(f'm."{column}"' for column, _ in mirror.columns)
            rows = connection.scalars(sa.text(f'SELECT ROW({columns})::text FROM housekeeping."{mirror.name}" m'))
            found[mirror.source_table].update(rows)
    return found


def conversations(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(sa.text("SELECT count(*) FROM conversations")) or 0)


def kill_at_random(what: str, url: sa.URL, chance: random.Random, longest_seconds: float) -> str:
    """Start the work and kill it some time later; says how it ended if it was quicker."""
    address = url.render_as_string(hide_password=False)
    process = subprocess.Popen([sys.executable, "-c", _WORK, what, address], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(chance.uniform(0, longest_seconds))
    process.send_signal(signal.SIGKILL)
    with process.stdout:
        rest = process.stdout.read().strip()
    process.wait()
    return rest


def settled(engine: sa.Engine) -> bool:
    """Whether the server has noticed that its clients are gone."""
    with engine.connect() as connection:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return bool(connection.scalar(sa.text(others)) == 0)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_deletion_and_a_killed_undo_lose_and_double_nothing(
    engine: sa.Engine, seed: int, *, long: bool
) -> None:
    chance = random.Random(seed)
    make_rows(engine, 20_000 if long else 1_500)
    before = everything(engine)
    kills = 0
    for what, longest in (("delete", 1.2), ("undo", 0.6)):
        for number in range(200 if long else 5):
            # An undo that is killed between its last commit and its end leaves the next one nothing to find.
            was_done = what == "undo" and conversations(engine) == len(before["conversations"])
            # The first ones soon, so that a fast machine is killed on too.
            ended = kill_at_random(what, engine.url, chance, min(1, (number + 1) / 5) * longest)
            until(lambda: settled(engine), seconds=20)
            assert everything(engine) == before
            if ended:
                assert ended == ("failed" if was_done else "succeeded")
                break
            kills += 1
        last = subprocess.run(
            [sys.executable, "-c", _WORK, what, engine.url.render_as_string(hide_password=False)],
            capture_output=True,
            text=True,
            check=False,
        )
        # What is already back, or already gone, is no longer there to be found.
        assert last.returncode == 0 or "trash has nothing" in last.stdout, last.stderr
        assert everything(engine) == before
        assert conversations(engine) == (0 if what == "delete" else len(before["conversations"]))
    assert kills >= 2


def test_a_killed_command_is_found_dead_and_ended_by_the_next(
    engine: sa.Engine, installation: Installation, tmp_path: Path
) -> None:
    make_rows(engine, 1_500)
    assert installation.run("init").returncode == 0
    arguments = ["delete_old_conversations", "--config", '{"batch_size": 1, "allow_large_deletion": true}']
    process = subprocess.Popen(
        [sys.executable, "-c", "from housekeeping_pipelines.cli import main; main()", "run", *arguments],
        cwd=installation.directory,
        env=installation.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def trashed() -> int:
        with engine.connect() as connection:
            return connection.scalar(sa.text("SELECT count(*) FROM housekeeping.trash_batches")) or 0

    until(trashed, seconds=60)
    process.kill()
    process.wait()
    runs = "import dagster as dg\nwith dg.DagsterInstance.get() as i:\n for r in i.get_runs(): print(r.status.value)"
    home = {"DAGSTER_HOME": str(installation.directory / ".housekeeping" / "dagster")}
    assert installation.python("-c", runs, **home).stdout.split() == ["STARTED"]
    report = installation.json("run", "delete_old_conversations", "--config", '{"allow_large_deletion": true}')
    assert report["status"] == "succeeded"
    assert installation.python("-c", runs, **home).stdout.split() == ["SUCCESS", "FAILURE"]
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM conversations")) == 0
