"""How long a sync of many watched documents takes, and how little of it is done again.

    python benchmarks/watched_documents.py [--documents 1000] [--latency-ms 100]

The pages, of eight paragraphs each, are on a server of its own process that answers after the given time and knows
ETags. "one after another" is the same sync with one document at a time; both have the offline embedder and pgvector on
an embedded server. FETCH_PER_HOST, four by default out of politeness to one server, is set to the concurrency. In the
first pass everything is new; in the second nothing changed, and the third is of a document of 200 chunks in which one
paragraph did. How fast vectors get into pgvector is measured by `vectors.py`.

Last measured, with no option, on a shared virtual machine. What is new is fetched, taken apart, embedded and written
in 10 ms of one processor's time a document, which threads of one process do one after another:

    2026-11-25, PostgreSQL 18.4, Python 3.11.7, 2 cores: 1,000 documents, 100 ms an answer, 16 at a time

                                        seconds  requests    304  embedded    rows   times faster
    everything is new, one after another   115.24     1,000      0     2,710   2,710            1.0
    everything is new, 16 at a time         12.90     1,000      0     2,710   2,710            8.9
    nothing changed, one after another     105.01     1,000  1,000         0       0            1.0
    nothing changed, 16 at a time            6.91     1,000  1,000         0       0           15.2
      to reach                                                                               12.0

    a document of 197 chunks, one paragraph changed: 3 embedded (to reach: 3)
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from housekeeping_pipelines.migrations import ensure_schema
from housekeeping_pipelines.postgres.embedded import embedded_server
from housekeeping_pipelines.postgres.engine import make_engine
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.watched_documents.sources.opening import Sources
from housekeeping_pipelines_tests.watched_documents.support import WEEK, World

if TYPE_CHECKING:
    from multiprocessing.managers import DictProxy

    from housekeeping_pipelines.postgres.embedded import EmbeddedServer

CONCURRENCY = 16
PARAGRAPHS = 8
LARGE_PARAGRAPHS = 850


def paragraph(page: int, number: int) -> str:
    return (
        f"Section {number} of page {page} says what is to be done in case {page * number % 97}. Whoever is on duty"
        f" looks at gauge {number * 7 % 31} first, writes down what it shows, and calls the person of day {page % 7}."
        f" If nobody answers within {number + 3} minutes, valve {page * 13 % 101} is closed by hand, and the time of"
        f" it is written into book {page % 11} beside the number {page * 1000 + number}."
    )


def serve(port: Any, seen: DictProxy[str, int], latency_seconds: float) -> None:
    """The pages; `seen` counts what is asked, and its `changed` is the paragraph that is another one."""
    import asyncio

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                page = int(head.split(b" ", 2)[1].rsplit(b"/", 1)[1])
                count = LARGE_PARAGRAPHS if page == 0 else PARAGRAPHS
                changed = seen["changed"] if page == 0 else -1
                etag = f'"{page}-{changed}"'
                await asyncio.sleep(latency_seconds)
                seen["requests"] += 1
                if f"if-none-match: {etag}" in head.decode().lower():
                    seen["not modified"] += 1
                    writer.write(f"HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\n\r\n".encode())
                    continue
                texts = [paragraph(page, 1000 + n if n == changed else n) for n in range(count)]
                body = "".join(f"<p>{text}</p>" for text in texts)
                content = f"<html><title>Page {page}</title><body><article>{body}</article></body></html>".encode()
                writer.write(
                    f"HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Type: text/html\r\n"
                    f"Content-Length: {len(content)}\r\n\r\n".encode()
                    + content
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(main())


@dataclass
class Pass:
    """What one run took: seconds, requests, those answered by 304, chunks embedded, and rows written to the vectors."""

    seconds: float
    requests: int
    not_modified: int
    embedded: int
    written: int


def make_world(server: EmbeddedServer, folder: Path, pages: list[int], port: int, concurrency: int) -> World:
    name = f"documents_{concurrency}_{len(pages)}"
    server.ensure_database(name)
    engine = make_engine(server.url(name).set(drivername="postgresql+psycopg"))
    ensure_schema(engine)
    environ = {"FETCH_ALLOWED_HOSTS": "127.0.0.1", "FETCH_PER_HOST": str(concurrency)}
    world = World(engine, folder / name, source=Sources(load_settings(folder, environ))).make()
    for page in pages:
        world.document(f"http://127.0.0.1:{port}/{page}", text=None, filename=f"page-{page}.json")
    return world


def sync(world: World, seen: DictProxy[str, int], concurrency: int) -> Pass:
    def written() -> int:
        with world.engine.connect() as connection:
            statement = "SELECT coalesce(sum(n_tup_ins), 0) FROM pg_stat_user_tables WHERE relname = 'document_vectors'"
            connection.execute(sa.text("SELECT pg_stat_force_next_flush()"))
            return int(connection.scalar(sa.text(statement)) or 0)

    before = dict(seen)
    rows = written()
    world.embedder.texts.clear()
    started = time.monotonic()
    report = world.sync(concurrency=concurrency)
    seconds = time.monotonic() - started
    assert report.status == "succeeded", report
    world.now += WEEK + timedelta(seconds=1)
    # A server process tells of its rows when it ends, or after a while.
    time.sleep(1.5)
    return Pass(
        seconds,
        seen["requests"] - before["requests"],
        seen["not modified"] - before["not modified"],
        len(world.embedder.texts),
        written() - rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--latency-ms", type=float, default=100)
    options = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="housekeeping-bench-"))
    folder.chmod(0o755)
    with multiprocessing.Manager() as manager:
        port = multiprocessing.Value("i", 0)
        seen = manager.dict({"requests": 0, "not modified": 0, "changed": -1})
        web = multiprocessing.Process(target=serve, args=(port, seen, options.latency_ms / 1000), daemon=True)
        web.start()
        server = embedded_server(folder)
        while not port.value:
            time.sleep(0.01)
        pages = list(range(1, options.documents + 1))
        results = {}
        for concurrency in (CONCURRENCY, 1):
            world = make_world(server, folder, pages, port.value, concurrency)
            results[concurrency] = [sync(world, seen, concurrency) for _ in range(2)]
        large = make_world(server, folder, [0], port.value, 1)
        first = sync(large, seen, 1)
        seen["changed"] = LARGE_PARAGRAPHS // 2
        third = sync(large, seen, 1)
        web.kill()
    shutil.rmtree(folder, ignore_errors=True)

    print(f"{options.documents:,} documents, {options.latency_ms:g} ms an answer, {CONCURRENCY} at a time\n")
    print(f"{'':<34}{'seconds':>9}{'requests':>10}{'304':>7}{'embedded':>10}{'rows':>8}{'  times faster':>15}")
    for number, name in enumerate(("everything is new", "nothing changed")):
        slow, fast = results[1][number], results[CONCURRENCY][number]
        for title, each in ((f"{name}, one after another", slow), (f"{name}, {CONCURRENCY} at a time", fast)):
            faster = f"{slow.seconds / each.seconds:>15.1f}"
            print(
                f"{title:<34}{each.seconds:>9.2f}{each.requests:>10,}{each.not_modified:>7,}{each.embedded:>10,}"
                f"{each.written:>8,}{faster}"
            )
    print(f"{'  to reach':<74}{'':>4}{'12.0':>15}")
    print(f"\na document of {first.embedded} chunks, one paragraph changed: {third.embedded} embedded (to reach: 3)")


if __name__ == "__main__":
    main()
