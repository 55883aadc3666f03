"""Time and requests to remove objects from a bucket: a bare loop, the resource, the engine.

    python benchmarks/removal.py [--objects 10000] [--rounds 3]

The loop is the client's own `remove`, 500 names at a time, which does not report what it failed to remove. "resource"
is `SupabaseBucket.remove` of all names in one call; "engine" is a whole run of cleanup_orphan_objects: it lists the
bucket, joins the listing with the rows that name objects, and for each batch writes the outbox, rechecks rows and
objects, removes, and records what storage confirmed. "loop with listing" is its peer: it lists with `list_v2` and
removes what is not in a set of names. Without SUPABASE_URL and SUPABASE_KEY the server is the tests' double, in a
process of its own; it takes half a millisecond an object, as the real one does (supabase-storage 1.11.2 with files).

Last measured, without options, on a shared virtual machine:

    2026-11-23, 2 cores: 10,000 objects of the double, 3 rounds

                            seconds        spread   / peer  requests
    bare loop of remove        5.58    5.35..5.65                 20
    resource                   1.67    1.52..1.68     0.30        20
    loop with listing          6.29    6.06..6.33                 30
    engine                     4.51    3.45..4.87     0.72        42
      to reach                                        1.20        40 and the listing

and with `--rounds 2` of a real server (supabase-storage 1.11.2 with files), beside other work on the machine:

    2026-11-25, 2 cores: 10,000 objects of a real server, 2 rounds

    bare loop of remove       11.88  10.79..12.97
    resource                   6.72    6.02..7.42     0.57
    loop with listing         17.22   9.83..24.61
    engine                     7.53    6.32..8.75     0.44
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BUCKET = "benchmark"
LOOP_BATCH = 500
SECONDS_AN_OBJECT = 0.0005


@dataclass(frozen=True)
class Server:
    """A storage server with one bucket; `requests` returns their number since the last call, if it is known."""

    url: str
    key: str
    fill: Callable[[list[str]], object]
    requests: Callable[[], int | None]


def _serve(pipe: Connection) -> None:
    """The double, in a process of its own."""
    from housekeeping_pipelines_tests.storage_server import StorageServer

    with StorageServer(BUCKET) as server:
        server.before["remove"] = lambda: time.sleep(SECONDS_AN_OBJECT * LOOP_BATCH)
        pipe.send((server.url, server.key))
        while (names := pipe.recv()) is not None:
            if names:
                server.put(names, bucket=BUCKET)
            pipe.send(len(server.requests))
            server.requests.clear()


@contextmanager
def double() -> Iterator[Server]:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,))
    process.start()

    def requests(names: Sequence[str] = ()) -> int:
        ours.send(names)
        return int(ours.recv())

    def fill(names: list[str]) -> None:
        requests(names)

    url, key = ours.recv()
    try:
        yield Server(url, key, fill, requests)
    finally:
        ours.send(None)
        process.join()


@contextmanager
def real(url: str, key: str) -> Iterator[Server]:
    client = storage_client(url, key)
    client.create_bucket(BUCKET)

    def fill(names: list[str]) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: client.from_(BUCKET).upload(name, b"content"), names))

    try:
        yield Server(url, key, fill, lambda: None)
    finally:
        client.empty_bucket(BUCKET)
        client.delete_bucket(BUCKET)


def storage_client(url: str, key: str) -> Any:
    from supabase import create_client

    return create_client(url, key).storage


def by_loop(server: Server, names: list[str]) -> Callable[[], None]:
    bucket = storage_client(server.url, server.key).from_(BUCKET)

    def work() -> None:
        for start in range(0, len(names), LOOP_BATCH):
            bucket.remove(names[start : start + LOOP_BATCH])

    return work


def by_loop_with_listing(server: Server, _names: list[str]) -> Callable[[], None]:
    bucket = storage_client(server.url, server.key).from_(BUCKET)

    def work() -> None:
        used: set[str] = set()
        names, cursor = [], None
        while True:
            page = bucket.list_v2({"limit": 1000} | ({"cursor": cursor} if cursor else {}))
            names += [found.name for found in page.objects if found.name not in used]
            if not page.hasNext:
                break
            cursor = page.nextCursor
        for start in range(0, len(names), LOOP_BATCH):
            bucket.remove(names[start : start + LOOP_BATCH])

    return work


def by_resource(server: Server, names: list[str]) -> Callable[[], None]:
    from housekeeping_pipelines.resources.object_storage.supabase_bucket import SupabaseBucket

    bucket = SupabaseBucket(server.url, server.key, BUCKET)

    def work() -> None:
        removal = bucket.remove(names)
        if len(removal.removed) != len(names):
            raise SystemExit(f"{len(removal.removed)} of {len(names)} were removed")

    return work


def by_engine(server: Server, names: list[str]) -> Callable[[], None]:
    from housekeeping_pipelines.application import tables
    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.execution.runner import TaskRunner
    from housekeeping_pipelines.migrations import ensure_schema
    from housekeeping_pipelines.orphans.cleanup import clean_store
    from housekeeping_pipelines.orphans.definitions import CleanupOrphanObjects
    from housekeeping_pipelines.orphans.search import Search
    from housekeeping_pipelines.postgres.engine import make_engine
    from housekeeping_pipelines.settings import load_settings
    from housekeeping_pipelines.stores.folders import BUCKET as STORE
    from housekeeping_pipelines.stores.stores import Stores

    environ = {
        "SUPABASE_URL": server.url,
        "SUPABASE_KEY": server.key,
        "SUPABASE_BUCKET": BUCKET,
        "HOUSEKEEPING_HOME": os.environ["HOUSEKEEPING_HOME"],
        "DATABASE_URL": os.environ["BENCHMARK_DATABASE_URL"],
    }
    settings = load_settings(Path(os.environ["HOUSEKEEPING_HOME"]), environ)
    assert settings.database_url is not None
    engine = make_engine(settings.database_url)
    ensure_schema(engine)
    tables.metadata.create_all(engine)
    stores = Stores(settings)
    limits = Limits(
        batch_size=CleanupOrphanObjects.model_validate({}).batch_size,
        allow_large_deletion=True,
        allow_empty_reference=True,
    )
    search = Search(STORE, timedelta(0))

    def work() -> None:
        # What was written a moment ago is old enough here.
        runner = TaskRunner(engine, clock=lambda: datetime.now(UTC) + timedelta(minutes=1))
        report = runner.run(
            "cleanup_orphan_objects",
            "benchmark",
            lambda run: clean_store(run, stores=stores, search=search, limits=limits),
        )
        if report.deleted != {STORE: len(names)}:
            raise SystemExit(f"{report.status}: {report.message}; {report.deleted} of {len(names)}")

    return work


CONTENDERS = {
    "bare loop of remove": by_loop,
    "resource": by_resource,
    "loop with listing": by_loop_with_listing,
    "engine": by_engine,
}
PEERS = {"resource": "bare loop of remove", "engine": "loop with listing"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and requests to remove objects from a bucket, side by side.")
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    from housekeeping_pipelines.postgres.embedded import embedded_server

    home = Path(tempfile.mkdtemp(prefix="housekeeping-benchmark-"))
    home.chmod(0o755)
    url, key = os.environ.get("SUPABASE_URL"), os.environ.get("SUPABASE_KEY")
    database = embedded_server(home / "database")
    os.environ["HOUSEKEEPING_HOME"] = str(home)
    os.environ["BENCHMARK_DATABASE_URL"] = database.url("postgres").render_as_string(hide_password=False)
    names = [f"{secrets.token_hex(2)}/{secrets.token_hex(16)}.pdf" for _ in range(arguments.objects)]
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    requests: dict[str, int | None] = {}
    with real(url, key) if url and key else double() as server:
        for number in range(arguments.rounds + 1):
            for name, contend in CONTENDERS.items():
                server.fill(names)
                work = contend(server, names)
                server.requests()
                started = time.perf_counter()
                work()
                taken = time.perf_counter() - started
                requests[name] = server.requests()
                # The first round opens connections and fills caches.
                if number:
                    seconds[name].append(taken)
    shutil.rmtree(home, ignore_errors=True)
    kind = "a real server" if url and key else "the double"
    what = f"{len(names):,} objects of {kind}, {arguments.rounds} rounds"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores: {what}\n")
    print(f"{'':<22}{'seconds':>9}{'spread':>14}{'/ peer':>9}{'requests':>10}")
    for name, all_of in seconds.items():
        median = statistics.median(all_of)
        peer = f"{median / statistics.median(seconds[PEERS[name]]):.2f}" if name in PEERS else ""
        spread = f"{min(all_of):.2f}..{max(all_of):.2f}"
        print(f"{name:<22}{median:>9.2f}{spread:>14}{peer:>9}{requests[name] or '':>10}")
    print(f"{'  to reach':<22}{'':>23}{'1.20':>9}{2 * len(names) // LOOP_BATCH:>10} and the listing")


if __name__ == "__main__":
    main()
