"""How long it takes to delete old conversations with their messages: Django, a bare loop, and this engine.

    python benchmarks/retention.py [--conversations 50000] [--rounds 3]

The tables are those of the Django website that the tests have, made by its migrations: keys that the database checks
at the end of a transaction and does not cascade. Half of the conversations and a little more stay. Each contender
selects by last activity (`updated_at`, and no message since), in a process of its own, on a fresh copy of the same
data, vacuumed and checkpointed, on an embedded server with its default durability. Time starts after the imports and
does not count them; memory is the highest resident size of the process less that after its imports. Transactions are
seen by asking pg_stat_activity 50 times a second, so that one may be 20 ms longer than it says here ("writing": one
that has locked or changed a row). "CPU" is of the process and its server process together, which other load on the
machine disturbs less.

Last measured, with no option, on a shared virtual machine:

    2026-11-27, PostgreSQL 18.4, 2 cores: 50,000 of 101,000 conversations with 10 messages each,
    median of 5 rounds
                                seconds        spread  / Django  / loop    CPU  memory  longest  writing
    Django's QuerySet.delete()     1.93    1.77..2.00      1.00    2.05   1.87   68 MB   1.07 s   1.07 s
    bare psycopg loop              0.95    0.91..1.02      0.49    1.00   0.88    1 MB   0.11 s   0.11 s
    this engine, trash off         1.17    1.09..1.24      0.61    1.24   1.12    5 MB   0.16 s   0.16 s
      to reach                                              0.6    1.15          60 MB      2 s
    this engine, trash on          1.78    1.64..1.85      0.92    1.88   1.72    6 MB   0.18 s   0.18 s
      to reach                                              1.0                  60 MB      2 s

Counting what each transaction deleted takes 1.7 % of the time with the trash off (to reach: 3 %). On a slower day of
the same machine, without the count of survivors and the comparison of each batch with its plan: 0.58 of Django, 0.95 of
the loop.

With `--conversations 1000000 --rounds 1` on 2026-11-23, when a mirror still had a B-tree, 1,000,000 of 2,020,000
conversations:

                                seconds  / Django  / loop    CPU   memory  longest
    Django's QuerySet.delete()    73.62      1.00    1.76  67.08  1354 MB  43.54 s
    bare psycopg loop             41.94      0.57    1.00  33.91     1 MB   0.45 s
    this engine, trash off        48.27      0.66    1.15  44.09     6 MB   0.81 s
    this engine, trash on         88.08      1.20    2.10  71.93     7 MB   0.97 s
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.postgres.catalog import Catalog

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = "housekeeping_pipelines_tests.django.website.settings"
CUTOFF_DAYS = 30
LOOP_BATCH = 1000
MESSAGES = 10
USERS = 1000
WATCH_SECONDS = 0.02

CONTENDERS = {
    "django": "Django's QuerySet.delete()",
    "loop": "bare psycopg loop",
    "engine": "this engine, trash off",
    "trash": "this engine, trash on",
}

# Old ones first, as their numbers are in life; a body is as long as a few sentences of chat.
_FILL = f"""
INSERT INTO auth_user (username, password, email, first_name, last_name, is_active, is_staff, is_superuser, date_joined)
SELECT 'user ' || n, '', '', '', '', true, false, false, now() - interval '2 years' FROM generate_series(1, {USERS}) n;
INSERT INTO chat_conversation (owner_id, title, created_at, updated_at, is_pinned)
SELECT 1 + n %% {USERS}, 'Conversation ' || n, moment, moment, false FROM generate_series(1, %(old)s + %(young)s) n,
LATERAL (SELECT CASE WHEN n <= %(old)s THEN now() - interval '400 days' + n * (interval '360 days' / %(old)s)
    ELSE now() - interval '20 days' + (n - %(old)s) * (interval '20 days' / %(young)s) END AS moment);
INSERT INTO chat_chatmessage (conversation_id, body, sent_at)
SELECT c.id, repeat(md5(c.id::text || m), 6), c.updated_at - m * interval '1 minute'
FROM chat_conversation c, generate_series(1, {MESSAGES}) m ORDER BY c.id, m DESC;
"""


def delete_by_django(_address: dict[str, Any], cutoff: datetime) -> Callable[[], int]:
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    import django
    from django.db import connection
    from django.db.models import Exists, OuterRef

    django.setup()
    from housekeeping_pipelines_tests.django.website.chat.models import ChatMessage, Conversation

    def work() -> int:
        connection.ensure_connection()
        recent = ChatMessage.objects.filter(conversation=OuterRef("pk"), sent_at__gte=cutoff)
        old = Conversation.objects.filter(~Exists(recent), updated_at__lt=cutoff, is_pinned=False)
        return int(old.delete()[1]["chat.Conversation"])

    return work


def delete_by_loop(address: dict[str, Any], cutoff: datetime) -> Callable[[], int]:
    select = """
        SELECT id FROM chat_conversation c WHERE updated_at < %s AND NOT is_pinned AND NOT EXISTS (
            SELECT FROM chat_chatmessage m WHERE m.conversation_id = c.id AND m.sent_at >= %s)
        AND id > %s ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"""

    def work() -> int:
        deleted, last = 0, 0
        with psycopg.connect(**address) as connection:
            # Without `id > last` each batch would read again what the ones before it deleted, at twice the time.
            while ids := [row[0] for row in connection.execute(select, [cutoff, cutoff, last, LOOP_BATCH])]:
                connection.execute("DELETE FROM chat_chatmessage WHERE conversation_id = ANY (%s)", [ids])
                connection.execute("DELETE FROM chat_conversation WHERE id = ANY (%s)", [ids])
                connection.commit()
                deleted, last = deleted + len(ids), ids[-1]
        return deleted

    return work


def delete_by_engine(address: dict[str, Any], _cutoff: datetime, *, trashed: bool) -> Callable[[], int]:
    from housekeeping_pipelines.application.config import read_config
    from housekeeping_pipelines.application.platform import Platform
    from housekeeping_pipelines.deletion.further_deletions import DeletionCounter
    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.deletion.rows import delete_rows
    from housekeeping_pipelines.execution.runner import TaskRunner
    from housekeeping_pipelines.postgres.engine import make_engine
    from housekeeping_pipelines.retention import policies

    config = read_config(ROOT / "housekeeping_pipelines_tests/django/housekeeping.yaml")

    def conversations(catalog: Catalog, now: datetime) -> RowPolicy:
        platform = Platform(catalog, config)
        return policies.conversations(platform, now, older_than_days=CUTOFF_DAYS, age_column="last_activity")

    def work() -> int:
        _time_counting(DeletionCounter)
        runner = TaskRunner(engine=make_engine(url(address)), trashed=trashed)
        report = runner.run(
            "delete_old_conversations", "benchmark", lambda run: delete_rows(run, conversations, Limits())
        )
        if report.status != "succeeded":
            raise SystemExit(f"{report.status}: {report.message}")
        return report.deleted["chat_conversation"]

    return work


_counting = 0.0


def _time_counting(counter: Any) -> None:
    """Add up how long it takes to ask how many rows each transaction has deleted, from which table."""
    read = counter._read

    def timed(self: object) -> dict[int, int]:
        global _counting
        started = time.perf_counter()
        try:
            return read(self)  # type: ignore[no-any-return]
        finally:
            _counting += time.perf_counter() - started

    counter._read = timed


def url(address: dict[str, Any]) -> Any:
    """The address for SQLAlchemy."""
    import sqlalchemy as sa

    query = {"host": address["host"], "port": address["port"]}
    return sa.URL.create("postgresql+psycopg", username=address["user"], database=address["dbname"], query=query)


def contend(name: str, address: dict[str, Any]) -> None:
    """In a process of its own: do the work and print what it took, as JSON."""
    cutoff = datetime.now(UTC) - timedelta(days=CUTOFF_DAYS)
    prepare: dict[str, Callable[[], Callable[[], int]]] = {
        "django": lambda: delete_by_django(address, cutoff),
        "loop": lambda: delete_by_loop(address, cutoff),
        "engine": lambda: delete_by_engine(address, cutoff, trashed=False),
        "trash": lambda: delete_by_engine(address, cutoff, trashed=True),
    }
    work = prepare[name]()
    before = _peak_bytes(reset=True)
    started, used = time.perf_counter(), time.process_time()
    deleted = work()
    seconds = time.perf_counter() - started
    used = time.process_time() - used
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": used,
                "bytes": _peak_bytes() - before,
                "counting": _counting,
                "deleted": deleted,
            }
        )
    )


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


@dataclass
class Watch:
    """What was seen of a database's sessions.

    Attributes:
        longest, longest_writing: seconds of the longest transaction, and of the longest that locked or wrote rows.
        cpu: processor seconds of each session's server process; empty where there is no /proc.
    """

    address: dict[str, Any]
    database: str
    longest: float = 0.0
    longest_writing: float = 0.0
    cpu: dict[int, float] = field(default_factory=dict)
    _end: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _look(self) -> None:
        query = """
            SELECT pid, coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float, backend_xid IS NOT NULL
            FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"""
        with psycopg.connect(**self.address, autocommit=True) as connection:
            while not self._end.wait(WATCH_SECONDS):
                for pid, age, writes in connection.execute(query, [self.database]):
                    self.longest = max(self.longest, age)
                    self.longest_writing = max(self.longest_writing, age if writes else 0.0)
                    with contextlib.suppress(OSError):
                        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                        self.cpu[pid] = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measurement:
    seconds: float
    cpu: float
    bytes: int
    longest: float
    longest_writing: float
    counting: float


def measure(name: str, server: dict[str, Any], old: int, young: int) -> Measurement:
    """One contender on a fresh copy of the data.

    Raises:
        SystemExit: it deleted something else than it should.
    """
    copy = server | {"dbname": "copy"}
    _execute(server, "DROP DATABASE IF EXISTS copy", "CREATE DATABASE copy TEMPLATE website STRATEGY file_copy")
    _execute(copy, "VACUUM (ANALYZE)", "CHECKPOINT")
    watch = Watch(server, "copy")
    with watch.running():
        done = subprocess.run(
            [sys.executable, __file__, "--contender", name, "--address", json.dumps(copy)],
            env=_environment(copy),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout)
    left = [_value(copy, f"SELECT count(*) FROM {table}") for table in ("chat_conversation", "chat_chatmessage")]
    if (found["deleted"], left) != (old, [young, young * MESSAGES]):
        raise SystemExit(f"{name} deleted {found['deleted']} and left {left}")
    cpu = found["cpu"] + sum(watch.cpu.values())
    return Measurement(found["seconds"], cpu, found["bytes"], watch.longest, watch.longest_writing, found["counting"])


def _environment(address: dict[str, Any]) -> dict[str, str]:
    libpq = {"PGHOST": address["host"], "PGPORT": address["port"], "PGUSER": address["user"]}
    return os.environ | libpq | {"PGDATABASE": address["dbname"], "PYTHONPATH": str(ROOT)}


def _execute(address: dict[str, Any], *statements: str) -> None:
    with psycopg.connect(**address, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def _value(address: dict[str, Any], query: str) -> int:
    with psycopg.connect(**address) as connection:
        row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0


def prepare_data(server: dict[str, Any], old: int, young: int) -> None:
    """The database `website`, which the copies are made from, with the schema `housekeeping` in it."""
    from housekeeping_pipelines.migrations import ensure_schema
    from housekeeping_pipelines.postgres.engine import make_engine

    _execute(server, "CREATE DATABASE website")
    website = server | {"dbname": "website"}
    migrate = [sys.executable, "-m", "django", "migrate", "--settings", SETTINGS, "--verbosity", "0"]
    subprocess.run(migrate, env=_environment(website), check=True)
    ensure_schema(make_engine(url(website)))
    with psycopg.connect(**website) as connection:
        for statement in filter(str.strip, _FILL.split(";")):
            connection.execute(statement % {"old": old, "young": young})
    _execute(website, "VACUUM (FREEZE, ANALYZE)", "CHECKPOINT")


def show(results: dict[str, list[Measurement]]) -> None:
    """The medians and the ratios, and what they were meant to be."""
    medians = {name: statistics.median(m.seconds for m in of) for name, of in results.items()}
    targets = {"engine": ("0.6", "1.15", "60 MB", "2 s"), "trash": ("1.0", "", "60 MB", "2 s")}
    heads = ("seconds", "spread", "/ Django", "/ loop", "CPU", "memory", "longest", "writing")
    print(" " * 26 + _row(*heads))
    for name, of in results.items():
        cells = (
            f"{medians[name]:.2f}",
            f"{min(m.seconds for m in of):.2f}..{max(m.seconds for m in of):.2f}",
            f"{medians[name] / medians['django']:.2f}",
            f"{medians[name] / medians['loop']:.2f}",
            f"{statistics.median(m.cpu for m in of):.2f}",
            f"{max(m.bytes for m in of) / 1e6:.0f} MB",
            f"{max(m.longest for m in of):.2f} s",
            f"{max(m.longest_writing for m in of):.2f} s",
        )
        print(f"{CONTENDERS[name]:<26}{_row(*cells)}")
        if name in targets:
            django, loop, memory, longest = targets[name]
            print(f"{'  to reach':<26}{_row('', '', django, loop, '', memory, longest, '')}".rstrip())
    share = statistics.median(m.counting / m.seconds for m in results["engine"])
    print(f"counting what was deleted takes {share:.1%} of the time with the trash off; to reach: 3 %")


def _row(*cells: str) -> str:
    widths = (9, 14, 10, 8, 7, 8, 9, 9)
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory to delete old conversations, side by side.")
    parser.add_argument("--conversations", type=int, default=50_000, help=f"old ones, with {MESSAGES} messages each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--address", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        contend(arguments.contender, arguments.address)
        return
    from housekeeping_pipelines.postgres.embedded import embedded_server

    home = Path(tempfile.mkdtemp(prefix="housekeeping-benchmark-"))
    # Registered before the server's own, and so done after it has stopped.
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    # Root's server runs as another account.
    home.chmod(0o755)
    found = embedded_server(home)
    server = {"host": str(found.socket_folder), "port": "5432", "user": "postgres", "dbname": "postgres"}
    old = arguments.conversations
    young = old + old // 50
    prepare_data(server, old, young)
    results: dict[str, list[Measurement]] = {name: [] for name in CONTENDERS}
    for number in range(1, arguments.rounds + 1):
        for name in CONTENDERS:
            results[name].append(measure(name, server, old, young))
            print(f"round {number}: {CONTENDERS[name]}: {results[name][-1].seconds:.2f} s", file=sys.stderr)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, PostgreSQL {found.version}, {os.cpu_count()} cores: {old:,} of"
        f" {old + young:,} conversations with {MESSAGES} messages each, median of {arguments.rounds} rounds\n"
    )
    show(results)


if __name__ == "__main__":
    main()
