"""What runs over a bucket must do with every server: the loopback one, and a real one where there is one.

The real server's address and key come from SUPABASE_URL and SUPABASE_KEY, the key of a role that may look and not
delete from SUPABASE_READER_KEY, and of one that sees no bucket from SUPABASE_ANON_KEY. A bucket is made there for each
test, and removed again. Where SUPABASE_KILL and SUPABASE_START are commands that kill its process and start it again,
the server dies by them; else it only looks dead, behind a gate.
"""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from housekeeping_pipelines.resources.object_storage.supabase_bucket import SupabaseBucket
from housekeeping_pipelines_tests.deletion.support import Watcher, column, sql
from housekeeping_pipelines_tests.gate import Gate
from housekeeping_pipelines_tests.storage_server import StorageServer
from housekeeping_pipelines_tests.world import HOUR, World

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

URL, KEY, READER_KEY, ANON_KEY, KILL, START = (
    os.environ.get(f"SUPABASE_{name}", "") for name in ("URL", "KEY", "READER_KEY", "ANON_KEY", "KILL", "START")
)
NO_AGE = timedelta(0)


@dataclass
class Bucket:
    """A bucket behind a gate; `storage` goes past the gate."""

    name: str
    gate: Gate
    storage: SupabaseBucket
    key: str
    reader_key: str
    anon_key: str
    put: Callable[[Iterable[str]], None]
    kill: Callable[[], None]
    start: Callable[[], None]

    def names(self) -> list[str]:
        return sorted(found.name for found in self.storage.list())


@pytest.fixture(
    params=[
        "double",
        pytest.param("server", marks=pytest.mark.skipif(not (URL and KEY), reason="no SUPABASE_URL and SUPABASE_KEY")),
    ]
)
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    with ExitStack() as stack:
        if request.param == "double":
            server = stack.enter_context(StorageServer("documents"))
            gate = stack.enter_context(Gate(urlsplit(server.url)))
            storage = stack.enter_context(SupabaseBucket(server.url, server.key, "documents"))

            def put(names: Iterable[str]) -> None:
                server.put(names, bucket="documents")

            keys = (server.key, server.key_for("reader"), server.key_for("anon"))
            yield Bucket("documents", gate, storage, *keys, put, gate.shut, gate.open)
            return
        name = f"housekeeping-runs-{secrets.token_hex(4)}"
        gate = stack.enter_context(Gate(urlsplit(URL)))
        stack.enter_context(real_bucket(name))
        storage = stack.enter_context(SupabaseBucket(URL, KEY, name))

        def upload(names: Iterable[str]) -> None:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda name: storage.upload(name, b"content"), names))

        if not (KILL and START):
            yield Bucket(name, gate, storage, KEY, READER_KEY, ANON_KEY, upload, gate.shut, gate.open)
            return
        # A server that a test left dead is started before its bucket is taken away.
        stack.callback(start)
        yield Bucket(name, gate, storage, KEY, READER_KEY, ANON_KEY, upload, kill, start)


def kill() -> None:
    subprocess.run(shlex.split(KILL), check=True)


def start() -> None:
    """It may be running already; it answers when this returns."""
    if not answers():
        subprocess.run(shlex.split(START), check=True)
    for _ in range(300):
        if answers():
            return
        time.sleep(0.1)
    raise AssertionError("the server does not come back")


def answers() -> bool:
    import httpx

    with suppress(httpx.HTTPError):
        return httpx.get(f"{URL}/storage/v1/status").is_success
    return False


def real_bucket(name: str) -> ExitStack:
    """The bucket is there until the stack is closed."""
    import httpx
    from supabase import ClientOptions, create_client

    storage = create_client(URL, KEY, ClientOptions(httpx_client=httpx.Client())).storage
    storage.create_bucket(name)
    stack = ExitStack()

    def destroy() -> None:
        with SupabaseBucket(URL, KEY, name) as everything:
            everything.remove([found.name for found in everything.list()])
        storage.delete_bucket(name)

    stack.callback(destroy)
    return stack


@pytest.fixture
def world(engine: sa.Engine, tmp_path: Path, bucket: Bucket) -> World:
    """The server's clock is the real one; one session is live."""
    environ = {
        "SUPABASE_URL": bucket.gate.url,
        "SUPABASE_KEY": bucket.key,
        "SUPABASE_BUCKET": bucket.name,
        "STORAGE_TRASH_PREFIX": "",
    }
    world = World(engine, tmp_path, environ, now=datetime.now(UTC) + timedelta(minutes=1))
    world.session("live", "live/a.pdf", idle=NO_AGE)
    bucket.put(["live/a.pdf"])
    return world


def test_a_session_goes_with_its_nested_folders_and_names_of_every_case(world: World, bucket: Bucket) -> None:
    mine = ["old/a b.pdf", "old/Dir/a.pdf", "old/dir/A.pdf", "old/deep/er/still/(1) + 'e'.pdf"]
    others = ["Old/a b.pdf", "old2/a.pdf", "old/dir/a.pdf", "OLD/DIR/A.pdf"]
    quoted = [name.replace("'", "''") for name in mine]
    world.session("old", *quoted)
    bucket.put(mine + others)
    report = world.end_sessions()
    assert (report.status, report.deleted) == (
        "succeeded",
        {"upload_sessions": 1, "processed_documents": 4, "bucket": 4},
    )
    assert bucket.names() == sorted([*others, "live/a.pdf"])


@pytest.mark.parametrize("count", [999, 1000, 1001])
def test_a_page_of_the_listing_ends_anywhere(world: World, bucket: Bucket, count: int) -> None:
    bucket.put([f"gone/{number:05}.pdf" for number in range(count - 1)])
    report = world.clean("bucket", older_than=NO_AGE, allow_large_deletion=True)
    assert (report.scanned, report.deleted) == (count, {"bucket": count - 1})
    assert bucket.names() == ["live/a.pdf"]


def test_ten_thousand_objects(world: World, bucket: Bucket) -> None:
    bucket.put([f"gone/{number % 7}/{number:05}.pdf" for number in range(10_000)])
    # A real server took a while to take them.
    world.now = datetime.now(UTC) + timedelta(minutes=1)
    dry = world.clean("bucket", older_than=NO_AGE, dry_run=True, allow_large_deletion=True)
    assert (dry.deleted, dry.would_delete) == ({}, {"bucket": 10_000})
    report = world.clean("bucket", older_than=NO_AGE, allow_large_deletion=True)
    assert (report.status, report.deleted, report.failed_count) == ("succeeded", {"bucket": 10_000}, 0)
    assert bucket.names() == ["live/a.pdf"]


def test_what_somebody_else_deletes_half_way_is_no_failure(world: World, bucket: Bucket) -> None:
    bucket.put([f"gone/{number}.pdf" for number in range(10)])

    class Meddling(Watcher):
        def on_start(self, task: str, what: str, candidates: int, *, dry_run: bool) -> None:
            bucket.storage.remove([f"gone/{number}.pdf" for number in range(5)])

    world.observer = Meddling()
    report = world.clean("bucket", older_than=NO_AGE, allow_large_deletion=True)
    assert (report.status, report.deleted) == ("succeeded", {"bucket": 5})
    assert bucket.names() == ["live/a.pdf"]


def test_what_somebody_else_deletes_between_two_batches_is_no_failure(world: World, bucket: Bucket) -> None:
    bucket.put([f"gone/{number:04}.pdf" for number in range(1000)])
    others = [f"gone/{number:04}.pdf" for number in range(0, 1000, 10)]

    def delete_others(step: int) -> None:
        if step == 1:
            bucket.storage.remove(others)

    world.observer = Watcher(delete_others)
    report = world.clean("bucket", older_than=NO_AGE, allow_large_deletion=True, batch_size=500)
    assert (report.status, report.failed_count) == ("succeeded", 0)
    assert 900 <= report.deleted["bucket"] < 1000
    assert bucket.names() == ["live/a.pdf"]


def test_a_key_that_may_only_look_deletes_nothing_and_says_so(world: World, bucket: Bucket) -> None:
    if not bucket.reader_key:
        pytest.skip("no SUPABASE_READER_KEY")
    bucket.put(["gone/a.pdf"])
    world.environ["SUPABASE_KEY"] = bucket.reader_key
    report = world.clean("bucket", older_than=NO_AGE)
    assert (report.status, report.deleted, report.failed_count) == ("partial", {}, 1)
    assert bucket.names() == ["gone/a.pdf", "live/a.pdf"]


def test_a_key_that_sees_no_bucket_is_no_empty_bucket(world: World, bucket: Bucket) -> None:
    if not bucket.anon_key:
        pytest.skip("no SUPABASE_ANON_KEY")
    bucket.put(["gone/a.pdf"])
    world.environ["SUPABASE_KEY"] = bucket.anon_key
    world.session("old", "old/a.pdf")
    report = world.clean("bucket", older_than=NO_AGE)
    assert (report.status, report.error_type) == ("failed", "ConfigurationError")
    assert bucket.name in report.message
    ended = world.end_sessions(run_id="run-2")
    assert (ended.status, ended.deleted.get("bucket", 0)) == ("partial", 0)
    assert bucket.names() == ["gone/a.pdf", "live/a.pdf"]


def test_a_bucket_that_is_not_there_is_no_empty_one(world: World, bucket: Bucket) -> None:
    bucket.put(["gone/a.pdf"])
    world.environ["SUPABASE_BUCKET"] = "another"
    report = world.clean("bucket", older_than=NO_AGE)
    assert (report.status, report.error_type) == ("failed", "ConfigurationError")
    assert "another" in report.message


def test_a_server_that_is_killed_leaves_the_rest_to_the_next_run(world: World, bucket: Bucket) -> None:
    names = [f"gone/{number:04}.pdf" for number in range(1500)]
    bucket.put(names)
    world.observer = Watcher(lambda step: bucket.kill() if step == 1 else None)
    report = world.clean("bucket", older_than=NO_AGE, allow_large_deletion=True, batch_size=500)
    assert (report.status, report.error_type) == ("failed", "Unavailable")
    went = report.deleted["bucket"]
    assert went == 500
    bucket.start()
    assert len(bucket.names()) == len(names) - went + 1
    sql(world.engine, "DELETE FROM housekeeping.circuit_breakers")
    world.observer = Watcher()
    world.now += HOUR
    drained = world.drain()
    again = world.clean("bucket", run_id="run-2", older_than=NO_AGE, allow_large_deletion=True)
    assert (drained.status, again.status) == ("succeeded", "succeeded")
    assert went + drained.deleted.get("bucket", 0) + again.deleted.get("bucket", 0) == len(names)
    assert bucket.names() == ["live/a.pdf"]
    assert column(world.engine, "SELECT name FROM housekeeping.file_outbox") == []


def kill_after_first_batch(world: World, bucket: Bucket, seconds: float) -> list[threading.Timer]:
    """Returns where the timer will be that kills the server so many seconds after the first batch."""
    killer: list[threading.Timer] = []

    def kill_soon(step: int) -> None:
        if step == 1:
            killer.append(threading.Timer(seconds, bucket.kill))
            killer[0].start()

    world.observer = Watcher(kill_soon)
    return killer


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.25])
def test_a_server_that_is_killed_amid_a_removal(world: World, bucket: Bucket, seconds: float) -> None:
    names = [f"gone/{number:04}.pdf" for number in range(1500)]
    bucket.put(names)
    killer = kill_after_first_batch(world, bucket, seconds)
    report = world.clean("bucket", older_than=NO_AGE, allow_large_deletion=True, batch_size=500)
    killer[0].join()
    bucket.start()
    # The loopback server may be done by then.
    assert report.error_type == ("Unavailable" if report.status == "failed" else None)
    left = len(bucket.names()) - 1
    assert 500 <= report.deleted["bucket"] <= len(names) - left
    sql(world.engine, "DELETE FROM housekeeping.circuit_breakers")
    world.observer = Watcher()
    world.now += HOUR
    drained = world.drain()
    again = world.clean("bucket", run_id="run-2", older_than=NO_AGE, allow_large_deletion=True)
    assert (drained.status, again.status) == ("succeeded", "succeeded")
    # What went while its answer was lost is absent the next time, and counted by nobody.
    assert drained.deleted.get("bucket", 0) + again.deleted.get("bucket", 0) <= left
    assert bucket.names() == ["live/a.pdf"]
    assert column(world.engine, "SELECT name FROM housekeeping.file_outbox") == []


def test_a_server_that_is_back_soon_is_waited_for(world: World, bucket: Bucket) -> None:
    bucket.put([f"gone/{number:04}.pdf" for number in range(1000)])
    back: list[threading.Timer] = []

    def kill_for_a_second(step: int) -> None:
        if step == 1:
            # A real process would take longer to start than a run waits.
            bucket.gate.shut()
            back.append(threading.Timer(1.0, bucket.gate.open))
            back[0].start()

    world.observer = Watcher(kill_for_a_second)
    report = world.clean("bucket", older_than=NO_AGE, allow_large_deletion=True, batch_size=500)
    back[0].join()
    assert (report.status, report.deleted) == ("succeeded", {"bucket": 1000})
    assert bucket.names() == ["live/a.pdf"]


@pytest.fixture
def trashing(world: World) -> World:
    world.environ["STORAGE_TRASH_PREFIX"] = "housekeeping-trash"
    return world


def in_trash(bucket: Bucket) -> list[str]:
    return [name for name in bucket.names() if name.startswith("housekeeping-trash/")]


def test_objects_go_to_the_trash_and_come_back(trashing: World, bucket: Bucket) -> None:
    names = [f"gone/Dir {number % 3}/{number:04}.pdf" for number in range(300)]
    bucket.put(names)
    report = trashing.clean("bucket", older_than=NO_AGE, allow_large_deletion=True, batch_size=100)
    assert (report.status, report.deleted, report.for_good) == ("succeeded", {"bucket": 300}, {})
    assert bucket.names() == sorted([f"housekeeping-trash/run-1/{name}" for name in names] + ["live/a.pdf"])
    # Not while it is the trash, and not when a later setting puts the trash elsewhere.
    for prefix in ("housekeeping-trash", "elsewhere", ""):
        trashing.environ["STORAGE_TRASH_PREFIX"] = prefix
        again = trashing.clean("bucket", run_id=f"run-{prefix}", older_than=NO_AGE, allow_large_deletion=True)
        assert (again.deleted, again.skipped["in_use"]) == ({}, 0 if prefix == "housekeeping-trash" else 300)
    trashing.environ["STORAGE_TRASH_PREFIX"] = "housekeeping-trash"
    assert trashing.undo().restored == {"bucket": 300}
    assert bucket.names() == sorted([*names, "live/a.pdf"])


@pytest.mark.parametrize("seconds", [0.05, 0.4])
def test_a_server_that_is_killed_amid_moves_loses_nothing(trashing: World, bucket: Bucket, seconds: float) -> None:
    names = [f"gone/{number:04}.pdf" for number in range(600)]
    bucket.put(names)
    killer = kill_after_first_batch(trashing, bucket, seconds)
    trashing.clean("bucket", older_than=NO_AGE, allow_large_deletion=True, batch_size=200)
    killer[0].join()
    bucket.start()
    sql(trashing.engine, "DELETE FROM housekeeping.circuit_breakers")
    trashing.observer = Watcher()
    trashing.now += HOUR
    assert trashing.drain().status == "succeeded"
    trashing.clean("bucket", run_id="run-2", older_than=NO_AGE, allow_large_deletion=True)
    assert [name for name in bucket.names() if not name.startswith("housekeeping-trash/")] == ["live/a.pdf"]
    assert len(in_trash(bucket)) == len(names)
    # Each is on record, so that an undo finds it.
    recorded = column(trashing.engine, "SELECT trash_name FROM housekeeping.trashed_files")
    assert sorted(recorded) == in_trash(bucket)
    for run_id in ("run-1", "run-2"):
        trashing.undo(run_id)
    assert bucket.names() == sorted([*names, "live/a.pdf"])


def test_sessions_end_while_the_server_is_dead_and_their_files_follow(world: World, bucket: Bucket) -> None:
    names = [f"old/{number}.pdf" for number in range(20)]
    world.session("old", *names)
    bucket.put(names)
    bucket.kill()
    report = world.end_sessions()
    assert (report.status, report.deleted) == ("succeeded", {"upload_sessions": 1, "processed_documents": 20})
    assert "storage is unavailable" in report.warnings[0]
    bucket.start()
    sql(world.engine, "DELETE FROM housekeeping.circuit_breakers")
    world.now += HOUR
    assert world.drain().deleted == {"bucket": 20}
    assert bucket.names() == ["live/a.pdf"]
