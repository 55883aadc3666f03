"""SIGINT and SIGTERM: the batch in progress is finished, and the run says what it did."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.deletion import file_outbox, file_trash, file_undo
from housekeeping_pipelines.deletion import trash as row_trash
from housekeeping_pipelines.execution.interruption import INTERRUPTION, Interrupted, Interruption
from housekeeping_pipelines_tests.deletion.support import (
    Watcher,
    column,
    delete,
    family,
    rows,
    scalar,
    sql,
    task_runner,
)
from housekeeping_pipelines_tests.hammer.test_kill import make_rows
from housekeeping_pipelines_tests.support import until
from housekeeping_pipelines_tests.world import DAY, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from housekeeping_pipelines_tests.support import Installation

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def clear() -> Iterator[None]:
    yield
    INTERRUPTION.clear()


class TestSignals:
    @pytest.mark.parametrize("number", SIGNALS)
    def test_a_step_is_finished_and_a_search_is_broken_off(self, number: signal.Signals) -> None:
        interruption, done = Interruption(), []
        before = signal.getsignal(number)
        with interruption.listening():
            with interruption.task(), interruption.step():
                signal.raise_signal(number)
                done.append("step")
            assert interruption
            interruption.clear()
            with suppress(Interrupted), interruption.task():
                signal.raise_signal(number)
                done.append("search")
        assert (done, interruption.name, interruption.exit_code) == (["step"], number.name, 128 + number)
        assert signal.getsignal(number) is before

    def test_a_second_signal_waits_for_nothing(self) -> None:
        interruption = Interruption()
        with interruption.listening(), interruption.task(), interruption.step():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(Interrupted):
                signal.raise_signal(signal.SIGINT)

    def test_a_task_after_the_signal_does_not_begin(self) -> None:
        interruption = Interruption()
        with interruption.listening():
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(Interrupted), interruption.task():
                raise AssertionError("it began")

    def test_a_signal_that_is_ignored_stays_ignored(self) -> None:
        interruption = Interruption()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with interruption.listening():
                signal.raise_signal(signal.SIGINT)
            assert (bool(interruption), signal.getsignal(signal.SIGINT)) == (False, signal.SIG_IGN)
        finally:
            signal.signal(signal.SIGINT, before)

    def test_another_thread_gets_no_signals(self) -> None:
        found: list[Any] = []

        def work() -> None:
            with Interruption().listening():
                found.append(signal.getsignal(signal.SIGINT))

        thread = threading.Thread(target=work)
        before = signal.getsignal(signal.SIGINT)
        thread.start()
        thread.join()
        assert found == [before]


class Interrupting(Watcher):
    """A signal comes when so many candidates are dealt with."""

    def __init__(self, number: signal.Signals, after: int = 1) -> None:
        super().__init__()
        self._number, self._after = number, after

    def on_progress(self, task: str, done: int, total: int, deleted: int) -> None:
        super().on_progress(task, done, total, deleted)
        if done >= self._after and not INTERRUPTION:
            signal.raise_signal(self._number)


def once(monkeypatch: pytest.MonkeyPatch, place: object, name: str, number: signal.Signals) -> None:
    """A signal comes when a function has been called for the first time."""
    function: Callable[..., Any] = getattr(place, name)
    left = [number]

    def interrupted(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        if left:
            signal.raise_signal(left.pop())
        return result

    monkeypatch.setattr(place, name, interrupted)


def is_said(report: Any, number: signal.Signals) -> bool:
    said = (report.status, report.stopped_reason, report.message)
    return said == ("partial", "interrupted", f"interrupted by {number.name}; the next run goes on")


@pytest.mark.parametrize("number", SIGNALS)
class TestRuns:
    """Each says what it did, which is what is there, and the next one goes on."""

    def test_rows(self, engine: sa.Engine, number: signal.Signals) -> None:
        family(engine)
        runner = replace(task_runner(engine), observer=Interrupting(number))
        report = delete(engine, "parents", runner=runner, batch_size=1)
        assert is_said(report, number)
        assert report.deleted == {"parents": 1, "children": 2}
        assert scalar(engine, "SELECT count(*) FROM parents") == 9
        INTERRUPTION.clear()
        assert delete(engine, "parents", run_id="run-2").deleted == {"parents": 9, "children": 18}

    def test_rows_while_they_are_searched(
        self, engine: sa.Engine, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A query is cancelled."""
        family(engine)
        sql(
            engine,
            "CREATE FUNCTION slow(timestamptz) RETURNS timestamptz LANGUAGE sql VOLATILE"
            " AS 'SELECT $1 FROM pg_sleep(60)'",
        )
        from housekeeping_pipelines.deletion.candidates import CandidateList

        def make(self: CandidateList, _: object) -> None:
            threading.Timer(0.5, lambda: signal.pthread_kill(threading.main_thread().ident or 0, number)).start()
            self.connection.execute(sa.text("SELECT slow(now())"))

        monkeypatch.setattr(CandidateList, "make", make)
        report = delete(engine, "parents")
        assert is_said(report, number)
        assert (report.deleted, report.duration_seconds < 30) == ({}, True)
        running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT slow%' AND state = 'active'"
        until(lambda: scalar(engine, running) == 0, seconds=10)

    def test_files(self, world: World, number: signal.Signals) -> None:
        media(world)
        world.observer = Interrupting(number)
        report = world.clean("media", batch_size=1)
        assert is_said(report, number)
        assert report.deleted == {"media": 1}
        assert len(world.files("media")) == 4
        INTERRUPTION.clear()
        world.observer = Watcher()
        assert world.clean("media", run_id="run-2").deleted == {"media": 3}

    def test_files_of_sessions(self, world: World, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
        for n in range(4):
            world.session(f"s{n}", f"s{n}/a.pdf")
            world.put("bucket", f"s{n}/a.pdf")
        monkeypatch.setattr(file_outbox.take, "__kwdefaults__", {"run_id": None, "limit": 1})
        from housekeeping_pipelines.deletion import drain

        once(monkeypatch, drain, "take", number)
        report = world.end_sessions()
        assert is_said(report, number)
        assert report.deleted == {"upload_sessions": 4, "processed_documents": 4, "bucket": 1}
        assert len(world.files("bucket")) == 3
        INTERRUPTION.clear()
        assert world.drain().deleted == {"bucket": 3}

    def test_an_undo(self, world: World, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
        media(world)
        world.clean("media")
        monkeypatch.setattr(file_undo, "BATCH_FILES", 1)
        once(monkeypatch, file_undo, "_move_back", number)
        report = world.undo()
        assert is_said(report, number)
        assert report.restored == {"media": 1}
        assert len(world.files("media")) == 2
        INTERRUPTION.clear()
        assert world.undo().restored == {"media": 3}

    def test_an_undo_of_rows(self, world: World, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
        for n in range(3):
            world.session(f"s{n}")
        world.end_sessions(batch_size=1)
        from housekeeping_pipelines.deletion import undo

        once(monkeypatch, undo, "restore_batch", number)
        report = world.undo()
        assert is_said(report, number)
        assert report.restored == {"upload_sessions": 1}
        assert scalar(world.engine, "SELECT count(*) FROM upload_sessions") == 1
        INTERRUPTION.clear()
        assert world.undo().restored == {"upload_sessions": 2}

    @pytest.mark.parametrize("what", ["rows", "files"])
    def test_a_purge(self, world: World, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
        media(world)
        world.clean("media")
        world.session("s")
        world.session("t")
        world.end_sessions(batch_size=1, run_id="run-2")
        if what == "rows":
            monkeypatch.setattr(row_trash, "PURGE_ROWS", 1)
            once(monkeypatch, row_trash, "prefer_indexes", number)
        else:
            monkeypatch.setattr(file_trash, "BATCH_FILES", 1)
            once(monkeypatch, file_trash, "_remove", number)
        report = world.purge()
        assert is_said(report, number)
        # The rows of several runs go before the files of these.
        assert report.deleted == ({"upload_sessions": 1} if what == "rows" else {"upload_sessions": 2, "media": 1})
        INTERRUPTION.clear()
        monkeypatch.undo()
        world.purge()
        assert scalar(world.engine, "SELECT count(*) FROM housekeeping.trash_batches") == 0
        assert column(world.engine, "SELECT name FROM housekeeping.trashed_files") == []


@pytest.fixture
def world(engine: sa.Engine, tmp_path: Path) -> World:
    return World(engine, tmp_path / "home")


def media(world: World) -> None:
    """One file that a row names, and four that none does."""
    sql(
        world.engine,
        "INSERT INTO security_events (risk_level, risk_score, summary, started_at) VALUES ('low', 1, '', now())",
        "INSERT INTO detections (event_id, file_path, detected_at) VALUES (1, 'used.jpg', now())",
    )
    for name in ("used", "1", "2", "3"):
        world.put("media", f"{name}.jpg", age=30 * DAY)
    world.put("media", "4.jpg", age=30 * DAY)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_says_what_it_did_and_ends_with_the_code_of_the_signal(
    engine: sa.Engine, installation: Installation, number: signal.Signals
) -> None:
    make_rows(engine, 1_500)
    assert installation.run("init").returncode == 0
    config = '{"batch_size": 1, "allow_large_deletion": true}'
    command = "from housekeeping_pipelines.cli import main; main()"
    arguments = ["run", "delete_old_conversations", "--config", config, "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *arguments],
        cwd=installation.directory, env=installation.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    trashed = "SELECT count(*) FROM housekeeping.trash_batches"
    is_there = "SELECT count(*) FROM pg_class WHERE relname = 'trash_batches'"
    until(lambda: scalar(engine, is_there) and scalar(engine, trashed) > 3, seconds=60)
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    report = json.loads(out)
    assert (report["status"], report["stopped_reason"]) == ("partial", "interrupted")
    gone = 1_500 - scalar(engine, "SELECT count(*) FROM conversations")
    assert 3 < report["deleted"]["conversations"] == gone < 1_500
    # Dagster knows the run as one that was cancelled, with the report on the asset.
    shown = (
        "import dagster as dg, sys\n"
        "from housekeeping_pipelines.tasks.reporting import read_reports\n"
        "with dg.DagsterInstance.get() as i:\n"
        " print(i.get_run_by_id(sys.argv[1]).status.value)\n"
        " print(read_reports(i, sys.argv[1])['delete_old_conversations'].deleted['conversations'])"
    )
    home = {"DAGSTER_HOME": str(installation.directory / ".housekeeping" / "dagster")}
    assert installation.python("-c", shown, report["run_id"], **home).stdout.split() == ["CANCELED", str(gone)]
    undone = installation.json("undo", report["run_id"])
    assert undone["restored"]["conversations"] == gone
    assert rows(engine, "SELECT count(*) FROM conversations") == [(1_500,)]
