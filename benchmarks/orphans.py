"""How long it takes to find the files that nothing refers to: a shell pipeline, plain Python, and this engine.

    python benchmarks/orphans.py [--files 1000000] [--rounds 3]

Files are empty, 1000 to a folder; nine of ten are named by `detections.file_path` or `thumbnail_path`, relative to the
folder, and one reference in ten has no file. All contenders run in a process of their own over the same files and the
same embedded server with its default settings, and must find as many orphans. The shell sorts psql's export and the
output of `find` bytewise and compares them with `comm`; it learns neither a size nor an age, nor which references have
no file. Plain Python looks up each file of `Path.rglob` in a set, and gets an orphan's size and time by `stat`. The
engine does a dry run: it examines each orphan for size and age, counts the references without a file, and deletes
nothing. Time starts after the imports; memory is the highest resident size of the process less that after its
imports, without what the shell starts. The files are in the page cache for all contenders.

Last measured. The goals, 1.5 times a shell pipeline that learns no sizes, no ages and no references without a file, and
six times faster than Python, are not reached:

    2026-11-27, PostgreSQL 18.4, Python 3.11.7, 2 cores: 300,000 files,
    30,000 of them orphans, 300,000 references, median of 3 rounds

                              seconds         spread   / shell  / Python   memory
    find | sort | comm           0.49     0.45..0.52      1.00     0.068     0 MB
    set, rglob, stat             7.26     6.64..7.51     14.73     1.000   187 MB
    this engine, dry run         1.77     1.66..2.01      3.60     0.244    13 MB
      to reach                                            1.50     0.167    60 MB

    1,000,000 files, 2 rounds

    find | sort | comm           1.49     1.31..1.66      1.00     0.057     0 MB
    set, rglob, stat            26.03   23.02..29.05     17.50     1.000   631 MB
    this engine, dry run         7.30     6.69..7.92      4.91     0.281    24 MB

On another day the first table said 2.92 and 0.240; before references were read in every form it was 2.3 times the
shell. Where time goes with 300,000 files, in seconds: 0.3 to list; 0.7 for the full join, a third of it in the
expressions that make the keys; 0.3 to examine the orphans, most of which arrive when the join is done; 0.3 to read the
references that matched nothing, and to match them again. Sizes of hash tables and batches, and one row per folder for
the listing, made no difference.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
FILES_A_FOLDER = 1000
PATTERN = ("jpg", "jpeg", "png", "gif", "bmp", "webp", "mp4", "webm", "mkv", "avi", "mov", "m4v")
MIN_AGE = timedelta(hours=24)

CONTENDERS = {
    "shell": "find | sort | comm",
    "python": "set, rglob, stat",
    "engine": "this engine, dry run",
}

_NAMES = """
    SELECT file_path FROM detections WHERE file_path IS NOT NULL
    UNION ALL SELECT thumbnail_path FROM detections WHERE thumbnail_path IS NOT NULL"""

_SHELL = """
set -eu -o pipefail
export LC_ALL=C
{export} | sort -u > "$2/known"
find "$1" -type f -printf '%P\\n' | sort | comm -23 - "$2/known" > "$2/orphans"
wc -l < "$2/orphans"
"""


def find_by_shell(folder: Path, address: dict[str, Any]) -> Callable[[], int]:
    environ = os.environ | {
        "PGHOST": address["host"],
        "PGPORT": address["port"],
        "PGUSER": address["user"],
        "PGDATABASE": address["dbname"],
    }
    export = f'psql -XAtqc "COPY ({_NAMES}) TO STDOUT"'
    if shutil.which("psql") is None:
        export = f'"{sys.executable}" "{__file__}" --export \'{json.dumps(address)}\''

    def work() -> int:
        with tempfile.TemporaryDirectory() as place:
            command = ["bash", "-c", _SHELL.replace("{export}", export), "bash", str(folder), place]
            return int(subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True).stdout)

    return work


def export(address: dict[str, Any]) -> None:
    """What psql would print."""
    with psycopg.connect(**address) as connection, connection.cursor().copy(f"COPY ({_NAMES}) TO STDOUT") as copy:
        for block in copy:
            sys.stdout.buffer.write(block)


def find_by_python(folder: Path, address: dict[str, Any]) -> Callable[[], int]:
    def work() -> int:
        with psycopg.connect(**address) as connection:
            known = {row[0] for row in connection.execute(_NAMES)}
        floor = time.time() - MIN_AGE.total_seconds()
        found = []
        for path in folder.rglob("*"):
            if not path.is_file() or str(path.relative_to(folder)) in known:
                continue
            status = path.stat()
            if status.st_mtime < floor:
                found.append((status.st_mtime, status.st_size, path))
        found.sort(key=lambda item: item[0])
        return len(found)

    return work


def find_by_engine(folder: Path, address: dict[str, Any]) -> Callable[[], int]:
    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.orphans.finding import find_orphans
    from housekeeping_pipelines.orphans.listing import Kind
    from housekeeping_pipelines.orphans.search import Scan
    from housekeeping_pipelines.postgres.catalog import Catalog
    from housekeeping_pipelines.postgres.engine import make_engine
    from housekeeping_pipelines.resources.object_storage.local_folder import LocalFolder
    from housekeeping_pipelines.stores.references import ReferenceSource, Root, naming

    def work() -> int:
        with make_engine(url(address)).connect() as connection:
            table = Catalog(connection).find("detections")
            if table is None:
                raise SystemExit("no table detections")
            columns = ("file_path", "thumbnail_path")
            sources = [ReferenceSource.of(table, column, naming=naming(Root(folder))) for column in columns]
            scan = Scan(
                storage=LocalFolder(folder, trust_mtime=True),
                sources=sources,
                floor=datetime.now(UTC) - MIN_AGE,
                limits=Limits(),
                kind=Kind(extensions=PATTERN),
            )
            found = find_orphans(connection, scan)
            return sum(len(batch) for batch in found.candidates(5000))

    return work


def url(address: dict[str, Any]) -> Any:
    """The address for SQLAlchemy."""
    import sqlalchemy as sa

    query = {"host": address["host"], "port": address["port"]}
    return sa.URL.create("postgresql+psycopg", username=address["user"], database=address["dbname"], query=query)


def contend(name: str, folder: Path, address: dict[str, Any]) -> None:
    """Do the work in this process and print its time and memory, as JSON."""
    prepare = {"shell": find_by_shell, "python": find_by_python, "engine": find_by_engine}
    work = prepare[name](folder, address)
    before = _peak_bytes(reset=True)
    started = time.perf_counter()
    orphans = work()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "bytes": _peak_bytes() - before, "orphans": orphans}))


def _peak_bytes(*, reset: bool = False) -> int:
    """The highest resident size so far.

    Linux hands a parent's ru_maxrss on to what it starts, so that it tells nothing about a small child of a big parent.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@dataclass(frozen=True)
class Measurement:
    seconds: float
    bytes: int


def measure(name: str, folder: Path, address: dict[str, Any], orphans: int) -> Measurement:
    """One contender.

    Raises:
        SystemExit: it found another number of orphans than there are.
    """
    command = [sys.executable, __file__, "--contender", name, "--folder", str(folder), "--address", json.dumps(address)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    found = json.loads(subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True).stdout)
    if found["orphans"] != orphans:
        raise SystemExit(f"{name} found {found['orphans']:,} orphans, not {orphans:,}")
    return Measurement(found["seconds"], found["bytes"])


def make_files(folder: Path, count: int) -> None:
    """Files `0000/000000000.jpg` and on, two days old.

    Raises:
        SystemExit: the file system has no room for so many.
    """
    free = os.statvfs(folder).f_favail
    if 0 < free < count * 1.1:
        raise SystemExit(f"{folder} has room for {free:,} files only")
    moment = time.time() - 2 * MIN_AGE.total_seconds()
    for number in range(count):
        place = folder / f"{number // FILES_A_FOLDER:04}"
        if number % FILES_A_FOLDER == 0:
            place.mkdir()
        path = f"{place}/{number:09}.jpg"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        os.utime(path, (moment, moment))


def make_references(address: dict[str, Any], count: int) -> None:
    """As many references as files, two a row; one in ten has no file, and one file in ten no reference."""
    path = f"lpad((({{n}}) / {FILES_A_FOLDER})::text, 4, '0') || '/' || lpad(({{n}})::text, 9, '0') || '.jpg'"

    def reference(n: str) -> str:
        # One that has no file ends like no other: as a path from another root it would name a file.
        return path.format(n=f"{n} + CASE WHEN ({n}) % 10 = 0 THEN {count} ELSE 0 END")

    with psycopg.connect(**address, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE detections (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id bigint NOT NULL,"
            " file_path text, thumbnail_path text, detected_at timestamptz NOT NULL DEFAULT now())"
        )
        connection.execute(
            "INSERT INTO detections (event_id, file_path, thumbnail_path)"
            f" SELECT n / 10, {reference('2 * n')}, {reference('2 * n + 1')}"
            f" FROM generate_series(0, {count // 2 - 1}) n"
        )
        connection.execute("VACUUM (FREEZE, ANALYZE) detections")
        connection.execute("CHECKPOINT")


def show(results: dict[str, list[Measurement]]) -> None:
    """Print the medians, the ratios and the goals."""
    medians = {name: statistics.median(m.seconds for m in of) for name, of in results.items()}
    print(" " * 24 + _row("seconds", "spread", "/ shell", "/ Python", "memory"))
    for name, of in results.items():
        cells = (
            f"{medians[name]:.2f}",
            f"{min(m.seconds for m in of):.2f}..{max(m.seconds for m in of):.2f}",
            f"{medians[name] / medians['shell']:.2f}",
            f"{medians[name] / medians['python']:.3f}",
            f"{max(m.bytes for m in of) / 1e6:.0f} MB",
        )
        print(f"{CONTENDERS[name]:<24}{_row(*cells)}")
    print(f"{'  to reach':<24}{_row('', '', '1.50', '0.167', '60 MB')}")


def _row(*cells: str) -> str:
    widths = (9, 15, 10, 10, 9)
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def compare_finding(address: dict[str, Any], version: str, count: int, rounds: int) -> None:
    """The contenders over local files, in turn."""
    with tempfile.TemporaryDirectory(prefix="housekeeping-benchmark-files-") as place:
        folder = Path(place)
        make_files(folder, count)
        make_references(address, count)
        results: dict[str, list[Measurement]] = {name: [] for name in CONTENDERS}
        for number in range(1, rounds + 1):
            for name in CONTENDERS:
                results[name].append(measure(name, folder, address, count // 10))
                print(f"round {number}: {CONTENDERS[name]}: {results[name][-1].seconds:.2f} s", file=sys.stderr)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, PostgreSQL {version}, Python {sys.version.split()[0]}, {os.cpu_count()} cores:"
        f" {count:,} files, {count // 10:,} of them orphans, {count:,} references, median of {rounds} rounds\n"
    )
    show(results)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory to find orphans, side by side.")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--export", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.export:
        export(arguments.export)
        return
    if arguments.contender:
        contend(arguments.contender, arguments.folder, arguments.address)
        return
    from housekeeping_pipelines.postgres.embedded import embedded_server

    home = Path(tempfile.mkdtemp(prefix="housekeeping-benchmark-"))
    # Registered before the server's own, and so done after it has stopped.
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    # Root's server runs as another account.
    home.chmod(0o755)
    found = embedded_server(home)
    address = {"host": str(found.socket_folder), "port": "5432", "user": "postgres", "dbname": "postgres"}
    compare_finding(address, found.version, arguments.files, arguments.rounds)


if __name__ == "__main__":
    main()
