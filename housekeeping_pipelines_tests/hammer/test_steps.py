"""`kill -9` before each statement and each system call that changes a folder, and seven ways to go on from there.

Every row and every file is accounted for: in its place, or in the trash with its record, and never in both. What is
gone for good is what was to go for good, and each report of what comes next says what it did.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.deletion.file_outbox import LEASE
from housekeeping_pipelines.deletion.mirrors import find_mirrors
from housekeeping_pipelines.postgres.engine import make_engine
from housekeeping_pipelines.resources.object_storage.local_folder import TRASH_FOLDER
from housekeeping_pipelines_tests.deletion.support import column, rows, sql
from housekeeping_pipelines_tests.world import DAY, World

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS = ["orphans", "sessions", "undo", "purge"]
CALLS = frozenset({"os.link", "os.remove", "os.rename", "os.mkdir", "os.rmdir"})
SESSIONS = 3

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__])


def work(task: str, url: str, home: str, step: int) -> None:
    """Do a task in this process, which is killed before so many steps are done."""
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(lambda name, _: count() if name in CALLS else None)
    for event in ("before_cursor_execute", "commit"):
        sa.event.listen(sa.engine.Engine, event, lambda *given: count())
    do(task, World(make_engine(sa.make_url(url)), Path(home)))


def do(task: str, world: World, run_id: str = "run-1") -> Any:
    if task == "orphans":
        return world.clean("media", run_id=run_id)
    if task == "sessions":
        return world.end_sessions(run_id=run_id, batch_size=2)
    return world.undo() if task == "undo" else world.purge()


def killed(task: str, world: World, step: int) -> bool:
    """Whether the task had that many steps."""
    url = world.engine.url.render_as_string(hide_password=False)
    process = _forks.Process(target=work, args=(task, url, str(world.home), step))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'housekeeping%'"
    while rows(world.engine, gone) != [(1,)]:
        # The server ends the session of a process that is gone.
        pass
    return process.exitcode != 0


def prepare(task: str, world: World) -> None:
    """Sessions with files, media of which three have no reference; for undo and purge, after runs that took them."""
    with world.engine.begin() as connection:
        for mirror in find_mirrors(connection):
            connection.exec_driver_sql(f'TRUNCATE housekeeping."{mirror.name}"')
        connection.exec_driver_sql(
            "TRUNCATE upload_sessions, processed_documents, detections, security_events, housekeeping.file_outbox,"
            " housekeeping.trashed_files, housekeeping.trash_batches, housekeeping.trash_references,"
            " housekeeping.kept_files, housekeeping.named_sources"
        )
    shutil.rmtree(world.home, ignore_errors=True)
    sql(world.engine, "INSERT INTO security_events (id, risk_level, risk_score, summary, started_at)"
        " OVERRIDING SYSTEM VALUE VALUES (1, 'low', 1, '', now())",
        "INSERT INTO detections (event_id, file_path, detected_at) VALUES (1, 'used.jpg', now())")  # fmt: skip
    for name in ("used", "a/1", "a/2", "3", "4"):
        world.put("media", f"{name}.jpg", content=f"media {name}")
    for number in range(SESSIONS):
        world.session(f"s{number}", f"s{number}/a.pdf", f"s{number}/b.pdf")
        for name in ("a", "b"):
            world.put("bucket", f"s{number}/{name}.pdf", content=f"bucket {number}{name}")
    if task in ("undo", "purge"):
        do("sessions", world)
        do("orphans", world)


def contents(world: World) -> Counter[str]:
    """All that is in place or in the trash; what has two names counts twice."""
    return Counter(path.read_text() for path in world.home.rglob("*") if path.is_file())


def in_place(world: World) -> int:
    return len(world.files("media")) + len(world.files("bucket"))


def sessions(world: World) -> int:
    """Those in their table and in the trash."""
    found = len(rows(world.engine, "SELECT FROM upload_sessions"))
    with world.engine.connect() as connection:
        for mirror in find_mirrors(connection):
            if mirror.source_table == "upload_sessions":
                count = sa.select(sa.func.count()).select_from(mirror.selectable)
                found += connection.scalar(count) or 0
    return found


def on_record(world: World) -> int:
    return len(rows(world.engine, "SELECT FROM housekeeping.trashed_files"))


def again(task: str, world: World) -> None:
    said = do(task, world, "run-2")
    assert said.status in ("succeeded", "failed" if task == "undo" else "succeeded"), said


def undo(task: str, world: World) -> None:
    before, recorded = in_place(world), on_record(world)
    said = world.undo()
    files = sum(count for name, count in getattr(said, "restored", {}).items() if name in ("media", "bucket"))
    back = in_place(world) - before
    if task == "undo":
        # What the one that was killed had moved back and not recorded is counted by the one that records it.
        assert back <= files == recorded - on_record(world)
    else:
        assert back == files


def drain(task: str, world: World) -> None:
    recorded, there = on_record(world), sum(contents(world).values())
    said = world.drain()
    for_good = sum(said.for_good.values())
    assert sum(said.deleted.values()) == on_record(world) - recorded + for_good
    # A second name of one file is no file.
    assert for_good <= there - sum(contents(world).values()) <= for_good + 1


def written_anew(task: str, world: World) -> None:
    for store, name in (("media", "a/1.jpg"), ("bucket", "s0/a.pdf")):
        if name not in world.files(store):
            world.put(store, name, content="new", age=timedelta(0))
    drain(task, world)


def trash_off(task: str, world: World) -> None:
    world.environ["TRASH_RETENTION_DAYS"] = "0"
    drain(task, world)
    del world.environ["TRASH_RETENTION_DAYS"]


def expired(task: str, world: World) -> None:
    recorded = on_record(world)
    said = world.purge()
    assert sum(said.deleted.get(name, 0) for name in ("media", "bucket")) <= recorded
    assert on_record(world) == sum(1 for warning in said.warnings if "were not on record" in warning)


def other_order(task: str, world: World) -> None:
    again(task, world)
    world.undo("run-2")
    world.undo("run-1")


CONTINUATIONS: list[Callable[[str, World], None]] = [
    again, undo, drain, written_anew, trash_off, expired, other_order,
]  # fmt: skip


def check(task: str, world: World, *, may_be_gone: bool) -> None:
    """After one more drain, everything is in one place, and the trash and its records are the same."""
    world.now += LEASE + DAY
    world.drain()
    found = contents(world)
    expected = Counter(
        [f"media {name}" for name in ("used", "a/1", "a/2", "3", "4")]
        + [f"bucket {number}{name}" for number in range(SESSIONS) for name in "ab"]
    )
    rewritten = found.pop("new", 0)
    if may_be_gone:
        assert found.keys() <= expected.keys()
        assert found["media used"] == 1
    elif task == "undo":
        # One that was killed between the two names of a file leaves both: the trash has it on record, and the next
        # undo, or the purge, takes the second.
        assert found.keys() == expected.keys()
    else:
        assert found == expected
    for store in ("media", "bucket"):
        trash = {
            path.relative_to(world.home / store).as_posix()
            for path in (world.home / store / TRASH_FOLDER).rglob("*") if path.is_file()
        }  # fmt: skip
        query = f"SELECT trash_name FROM housekeeping.trashed_files WHERE store = '{store}'"
        recorded = set(column(world.engine, query))
        # Records of what an undo or a purge that was killed took go with the next one.
        assert trash <= recorded if task in ("undo", "purge") else trash == recorded
    assert column(world.engine, "SELECT name FROM housekeeping.file_outbox") == []
    assert sessions(world) == SESSIONS or may_be_gone
    if task in ("undo", "purge"):
        do(task, world, "run-1")
        # An undo overwrites nothing.
        assert on_record(world) <= (rewritten if task == "undo" else 0)
        found = contents(world)
        assert all(count == 1 for content, count in found.items() if content != "new")
        assert may_be_gone or expected.keys() <= found.keys()
        assert sessions(world) == len(rows(world.engine, "SELECT FROM upload_sessions"))


@pytest.mark.parametrize("task", TASKS)
def test_whatever_comes_after_a_kill_nothing_is_lost_and_reports_are_true(
    engine: sa.Engine, tmp_path: Path, task: str, *, long: bool
) -> None:
    world = World(engine, tmp_path / "home")
    prepare(task, world)
    # The rehearsal of the first run is none of the steps.
    do(task, world)
    step, kills = 1, 0
    while True:
        for number, continuation in enumerate(CONTINUATIONS):
            # In short, each step is followed by one of them.
            if not long and (step // 5) % len(CONTINUATIONS) != number:
                continue
            prepare(task, world)
            if not killed(task, world, step):
                assert kills > 5
                return
            kills += 1
            continuation(task, world)
            is_final = task == "purge" or continuation in (trash_off, expired)
            check(task, world, may_be_gone=is_final)
            world.now -= LEASE + DAY
        step += 1 if long else 5
