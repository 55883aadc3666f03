"""`kill -9` at any instant of a session clean-up, a drain or an undo: every file and every row are accounted for."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines_tests.deletion.support import column, rows, sql
from housekeeping_pipelines_tests.hammer.test_kill import settled
from housekeeping_pipelines_tests.support import until
from housekeeping_pipelines_tests.world import World

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

_WORK = """
import sys
from datetime import timedelta
from pathlib import Path
import sqlalchemy as sa
from housekeeping_pipelines.execution.database import make_engine
from housekeeping_pipelines_tests.world import World
from datetime import UTC, datetime

what, url, home, run_id = sys.argv[1:]
world = World(make_engine(sa.make_url(url)), Path(home), now=datetime.now(UTC) + timedelta(hours=1))
print("ready", flush=True)
if what == "delete":
    report = world.end_sessions(run_id=run_id, batch_size=5)
elif what == "drain":
    report = world.drain()
else:
    report = world.undo(run_id)
print(report.status, flush=True)
"""

TRASH = ".housekeeping-trash"


class Killer:
    """Kills work at random instants, sooner once some work was quicker, so that a fast machine is killed on too."""

    def __init__(self, seed: int, longest: float) -> None:
        self._chance, self._longest, self.kills = random.Random(seed), longest, 0

    def kill(self, what: str, world: World, run_id: str = "") -> None:
        if work(what, world, run_id, kill_after=self._chance.uniform(0, self._longest)):
            self._longest *= 0.6
        else:
            self.kills += 1


def work(what: str, world: World, run_id: str = "", *, kill_after: float | None = None) -> str:
    """Do the work in a process of its own, killed after so many seconds; says how it ended if it was quicker."""
    address = world.engine.url.render_as_string(hide_password=False)
    arguments = [sys.executable, "-c", _WORK, what, address, str(world.home), run_id]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    with process.stdout:
        rest = process.stdout.read().strip()
    process.wait()
    until(lambda: settled(world.engine), seconds=20)
    return rest


def check(world: World, names: set[str], *, undone: bool = False) -> None:
    """Each file is in one place, and something knows why it is there.

    Args:
        undone: an undo has begun, which brings the files back before the rows, whose names in the trash keep them.
    """
    root = world.home / "bucket"
    stored = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    here = {path.as_posix() for path in stored if path.parts[0] != TRASH}
    away = {"/".join(path.parts[2:]): path for path in stored if path.parts[0] == TRASH}
    assert here | away.keys() == names
    # A move that was cut short leaves two names of one file, and the next attempt finishes it.
    between = here & away.keys()
    assert len(between) <= 1
    assert all((root / name).samefile(root / away[name]) for name in between)
    live = set(column(world.engine, "SELECT source_file_path FROM processed_documents"))
    waiting = set(column(world.engine, "SELECT name FROM housekeeping.file_outbox"))
    trashed = set(column(world.engine, "SELECT name FROM housekeeping.trashed_files"))
    assert away.keys() - here <= trashed | waiting
    # The rows are in their tables or in the trash.
    mirrors = column(world.engine, "SELECT mirror FROM housekeeping.trash_tables WHERE source_table LIKE 'processed%'")
    gone = [
        name
        for mirror in mirrors
        for (name,) in rows(world.engine, f'SELECT source_file_path FROM housekeeping."{mirror}"')
    ]
    assert here <= live | waiting | (set(gone) if undone else set())
    assert sorted([*live, *gone]) == sorted(names)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_session_cleanup_drain_and_undo_lose_nothing(
    engine: sa.Engine, tmp_path: Path, seed: int, *, long: bool
) -> None:
    world = World(engine, tmp_path)
    sessions, documents = (2_000, 5) if long else (120, 5)
    names = {f"s{n}/d{m}.pdf" for n in range(sessions) for m in range(documents)}
    for name in names:
        world.put("bucket", name)
    sql(
        engine,
        f"INSERT INTO upload_sessions SELECT 's' || n, now() - interval '9 days', true, now() - interval '9 days'"
        f" FROM generate_series(0, {sessions - 1}) n",
        "INSERT INTO processed_documents (session_key, filename, file_type, file_size, source_file_path, created_at)"
        " SELECT session_key, 'f', 'pdf', 7, session_key || '/d' || m || '.pdf', now() - interval '9 days'"
        f" FROM upload_sessions, generate_series(0, {documents - 1}) m",
    )
    killer, runs = Killer(seed, longest=0.7), []
    for number in range(100 if long else 4):
        runs.append(f"run-{number}")
        killer.kill("delete", world, runs[-1])
        check(world, names)
    for _ in range(20 if long else 2):
        # A lease of a worker that died is over after ten minutes.
        sql(engine, "UPDATE housekeeping.file_outbox SET next_attempt_at = now()")
        killer.kill("drain", world)
        check(world, names)
    runs.append("last")
    assert work("delete", world, "last") == "succeeded"
    sql(engine, "UPDATE housekeeping.file_outbox SET next_attempt_at = now()")
    assert work("drain", world) == "succeeded"
    check(world, names)
    assert (world.files("bucket"), column(engine, "SELECT 1 FROM upload_sessions")) == ([], [])
    for run_id in reversed(runs):
        killer.kill("undo", world, run_id)
        check(world, names, undone=True)
        assert work("undo", world, run_id) in ("succeeded", "failed")
        check(world, names)
    assert set(world.files("bucket")) == names
    assert len(column(engine, "SELECT 1 FROM upload_sessions")) == sessions
    assert column(engine, "SELECT 1 FROM housekeeping.file_outbox") == []
    assert killer.kills >= 3
