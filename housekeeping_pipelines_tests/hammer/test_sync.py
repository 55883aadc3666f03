"""`kill -9` at every step of a sync: a search finds the whole of the old text or of the new one, and never both."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.postgres.engine import make_engine
from housekeeping_pipelines.watched_documents.report import SyncReport
from housekeeping_pipelines_tests.deletion.support import column
from housekeeping_pipelines_tests.hammer.test_kill import settled
from housekeeping_pipelines_tests.support import until
from housekeeping_pipelines_tests.watched_documents.support import NEW, OLD, WEEK, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE = "docs.example/page"


def at_step(number: int) -> Callable[[], None]:
    """What is to be called before each step; before the given one this process kills itself."""
    left = [number]
    lock = threading.Lock()

    def step() -> None:
        with lock:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return step


def sync_and_die(world: World, number: int) -> bool:
    """Sync in a process of its own that dies before a step; whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            step = at_step(number)
            # Every statement and every end of a transaction, on any connection, and every change of a file's name.
            sa.event.listen(sa.Engine, "before_cursor_execute", lambda *_: step())
            sa.event.listen(sa.Engine, "commit", lambda *_: step())
            sys.addaudithook(lambda name, _: step() if name in ("os.rename", "os.remove", "os.truncate") else None)
            own = World(make_engine(world.engine.url), world.folder, now=world.now, source=world.source)
            own.sync(concurrency=1)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def synced(world: World, *, force: bool = False) -> SyncReport:
    report = world.sync(force=force)
    assert isinstance(report, SyncReport)
    return report


def check(world: World, ids: list[str]) -> None:
    found = world.found("the office opens", limit=100)
    assert found.keys() == set(ids)
    assert set(found.values()) <= {OLD, NEW}
    assert world.text(ids[0])["pageContent"] in (OLD, NEW)


def test_a_sync_that_is_killed_anywhere_is_finished_by_the_next(
    engine: sa.Engine, tmp_path: Path, *, long: bool
) -> None:
    world = World(engine, tmp_path).make()
    ids = [world.document(PAGE, workspace=place) for place in (1, 2)]
    texts = [OLD, NEW]
    world.source.by_address[PAGE] = OLD
    assert synced(world).updated == 1
    chance, steps, number = random.Random(1), 0, 0
    while True:
        # Each step in turn; the short run leaves out some in which hardly anything happens.
        number += 1 if long else chance.randint(1, 3)
        world.now += WEEK * 1.01
        texts.reverse()
        world.source.by_address[PAGE] = texts[0]
        died = sync_and_die(world, number)
        until(lambda: settled(engine), seconds=20)
        check(world, ids)
        if died and number % 4 == 0:
            # The source takes its change back: what is half done is undone.
            texts.reverse()
            world.source.by_address[PAGE] = texts[0]
        steps += died
        world.sync(force=True)
        assert world.found("the office opens", limit=100) == dict.fromkeys(ids, texts[0])
        assert world.text(ids[0])["pageContent"] == texts[0]
        assert synced(world, force=True).unchanged == 1
        stamps = set(column(engine, "SELECT metadata->>'published' FROM documents"))
        assert stamps == {world.text(ids[0])["published"]} == {world.entry(PAGE).known.published}
        if not died:
            break
    assert steps >= 15
    # What the killed ones left of their generations went with the last that was finished.
    generations = "SELECT count(DISTINCT generation) FROM housekeeping.document_vectors GROUP BY document"
    assert column(engine, generations) == [1, 1]


def test_searches_beside_a_sync_always_find_one_text(engine: sa.Engine, tmp_path: Path) -> None:
    world = World(engine, tmp_path).make()
    ids = [world.document(PAGE, workspace=place) for place in (1, 2, 3)]
    world.source.by_address[PAGE] = OLD
    world.sync()
    ended = threading.Event()
    seen: set[str] = set()
    wrong: list[dict[str, str]] = []

    def search() -> None:
        while not ended.is_set():
            found = world.found("the office opens", limit=100)
            if found.keys() != set(ids) or not set(found.values()) <= {OLD, NEW}:
                wrong.append(found)
            seen.update(found.values())

    searchers = [threading.Thread(target=search) for _ in range(2)]
    for each in searchers:
        each.start()
    with suppress(KeyboardInterrupt):
        for number in range(20):
            world.now += WEEK * 1.01
            world.source.by_address[PAGE] = [NEW, OLD][number % 2]
            assert synced(world).updated == 1
    ended.set()
    for each in searchers:
        each.join()
    assert wrong == []
    assert seen == {OLD, NEW}
