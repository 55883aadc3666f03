"""How long it takes to put chunks into pgvector: a bare COPY into the same indexed table, and our store.

    python benchmarks/vectors.py [--chunks 8000] [--rounds 3] [--chunks-a-document 200]

Both write the same rows of 384 dimensions into the tables that the store makes, with their primary key and their HNSW
index, each into a database of its own on one embedded server with its default settings; the tables are emptied before
each round. "bare COPY" is one binary COPY of psycopg in one transaction, whose bytes lie ready in a file. "our store"
writes each document as a generation that no search sees, in a transaction of its own, and switches to it; it starts
from vectors as lists of floats. What an index takes for a row is most of both.
Who comes first changes from round to round.

Last measured, with `--chunks 100000 --rounds 2`, on a shared virtual machine that others used too (hence the spread):

    2026-11-25, PostgreSQL 18.4, pgvector 0.8.5, Python 3.11.7, 2 cores:
    100,000 chunks of 384 dimensions, 200 to a document, 2 rounds

                    seconds            spread  chunks/s  / bare
    bare COPY        224.94    217.57..232.31       445    1.00
    our store        229.48    190.02..268.94       436    1.02
      to reach                                             1.30

and with `--chunks 2000 --rounds 4`, where the index is small and takes less of the time:

    bare COPY          1.65        1.57..1.91      1211    1.00
    our store          1.94        1.73..2.20      1030    1.18
"""

from __future__ import annotations

import argparse
import atexit
import hashlib
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from housekeeping_pipelines.resources.vector_store import Chunk
    from housekeeping_pipelines.resources.vector_store.pgvector import PgVectorStore

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

DIMENSION = 384
TO_REACH = 1.3
BLOCK_BYTES = 2**18
TEXT = "The pump is looked at every week, and its filter is changed every third month; who does so writes it down. " * 8


def documents(chunks: int, each: int) -> Iterator[tuple[str, list[Chunk]]]:
    """Documents whose chunks are near one another, as those of a text are; the same ones every time."""
    from housekeeping_pipelines.resources.vector_store import Chunk

    random = np.random.default_rng(1)
    for number, start in enumerate(range(0, chunks, each)):
        count = min(each, chunks - start)
        vectors = random.normal(size=DIMENSION) + random.normal(size=(count, DIMENSION))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        document = f"custom-documents/document-{number:05}.json"
        texts = [f"{position} {TEXT}" for position in range(count)]
        yield (
            document,
            [
                Chunk(at, text, hashlib.sha256(text.encode()).hexdigest(), vector.tolist(), {"title": document})
                for at, (text, vector) in enumerate(zip(texts, vectors, strict=True))
            ],
        )


def write_rows(path: Path, chunks: int, each: int) -> None:
    """The rows as COPY reads them."""
    from housekeeping_pipelines.resources.vector_store.pgvector import COPY_END, COPY_START, row_maker

    make = row_maker("vector", DIMENSION)
    with path.open("wb") as file:
        file.write(COPY_START)
        for document, found in documents(chunks, each):
            file.writelines(make(document, "one", chunk) for chunk in found)
        file.write(COPY_END)


def by_copy(engine: sa.Engine, rows: Path) -> float:
    from housekeeping_pipelines.resources.vector_store.pgvector import COPY

    started = time.perf_counter()
    with engine.begin() as connection, rows.open("rb") as file:
        driver: Any = connection.connection.driver_connection
        with driver.cursor().copy(COPY) as copy:
            while block := file.read(BLOCK_BYTES):
                copy.write(block)
    return time.perf_counter() - started


def by_store(store: PgVectorStore, chunks: int, each: int) -> float:
    """The time of the store alone: the rows are made between its calls."""
    taken = 0.0
    for document, found in documents(chunks, each):
        started = time.perf_counter()
        store.write(document, "one", found)
        store.switch(document, "one")
        taken += time.perf_counter() - started
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunks-a-document", type=int, default=200)
    arguments = parser.parse_args()
    from housekeeping_pipelines.postgres.embedded import embedded_server
    from housekeeping_pipelines.postgres.engine import make_engine
    from housekeeping_pipelines.resources.vector_store import Chunk, Space
    from housekeeping_pipelines.resources.vector_store.pgvector import PgVectorStore

    home = Path(tempfile.mkdtemp(prefix="housekeeping-benchmark-"))
    # Root's server runs as another account.
    home.chmod(0o755)
    # Registered before the server's own, and so done after it has stopped.
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    server = embedded_server(home)
    engines: dict[str, sa.Engine] = {}
    stores: dict[str, PgVectorStore] = {}
    for name in ("bare", "store"):
        server.ensure_database(name)
        engines[name] = make_engine(server.url(name), pooled=2)
        stores[name] = PgVectorStore(engines[name], Space("benchmark", DIMENSION))
        # This makes the tables.
        stores[name].write("first", "one", [Chunk(0, "first", "first", [1.0] + [0.0] * (DIMENSION - 1))])
    rows = home / "rows"
    chunks, each = arguments.chunks, arguments.chunks_a_document
    write_rows(rows, chunks, each)
    contenders: dict[str, Callable[[], float]] = {
        "bare": lambda: by_copy(engines["bare"], rows),
        "store": lambda: by_store(stores["store"], chunks, each),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(arguments.rounds):
        for name in sorted(contenders, reverse=bool(number % 2)):
            with engines[name].begin() as connection:
                tables = "housekeeping.document_vectors, housekeeping.document_generations"
                connection.exec_driver_sql(f"TRUNCATE {tables}")
            with engines[name].connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("CHECKPOINT")
            seconds[name].append(contenders[name]())
            with engines[name].connect() as connection:
                count = connection.scalar(sa.text("SELECT count(*) FROM housekeeping.document_vectors"))
            if count != chunks:
                raise SystemExit(f"{name} wrote {count} rows, not {chunks}")
    if stores["store"].count() != chunks:
        raise SystemExit("the store does not find what it wrote")
    with engines["bare"].connect() as connection:
        versions = [
            connection.scalar(sa.text(each))
            for each in ("SHOW server_version", "SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        ]
    for engine in engines.values():
        engine.dispose()
    about = f"PostgreSQL {versions[0]}, pgvector {versions[1]}, Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {about}, {os.cpu_count()} cores:")
    print(f"{chunks:,} chunks of {DIMENSION} dimensions, {each} to a document, {arguments.rounds} rounds\n")
    print(f"{'':<14}{'seconds':>9}{'spread':>18}{'chunks/s':>10}{'/ bare':>8}")
    peer = statistics.median(seconds["bare"])
    for name, label in (("bare", "bare COPY"), ("store", "our store")):
        median = statistics.median(seconds[name])
        spread = f"{min(seconds[name]):.2f}..{max(seconds[name]):.2f}"
        print(f"{label:<14}{median:>9.2f}{spread:>18}{chunks / median:>10.0f}{median / peer:>8.2f}")
    print(f"{'  to reach':<14}{'':>37}{TO_REACH:>8.2f}")


if __name__ == "__main__":
    main()
