"""What strangers write is shown, never obeyed."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines import logs
from housekeeping_pipelines.cli import output
from housekeeping_pipelines.execution.report import Candidate, Ending, FailedItem, Report
from housekeeping_pipelines.foreign_text import in_json, in_markdown, shown
from housekeeping_pipelines.tasks.reporting import to_markdown
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import OLD, delete, sql

if TYPE_CHECKING:
    import sqlalchemy as sa

CLEAR_SCREEN = "\x1b[2J\x1b]0;title\x07"
HOSTILE = [CLEAR_SCREEN, "\x9b2J", "\u202egnp.exe", "two\nlines", "\r\x1b[1A overwritten", "\x00", "\ud800"]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    found = shown(text)
    assert found.isprintable()
    found.encode()
    assert "\\x" in found or "\\u" in found


def test_what_is_printable_stays_as_it_is() -> None:
    for text in ("cam/1.jpg", "Füße €", "日本語", "a\\b", "\u00a0x"):
        assert shown(text) == text
    assert shown("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"


def test_a_text_of_any_length_is_cut() -> None:
    found = shown("x" * 200_000)
    assert len(found) < 1100
    assert found.endswith("… (200,000 characters)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("![x](http://evil/p.png)", "!\\[x\\](http:\\/\\/evil/p.png)"),
        ("<img src=x>", "\\<img src=x\\>"),
        ("www.evil.example", "www\\.evil.example"),
        ("chat_messages/1", "chat_messages/1"),
    ],
)
def test_markdown_of_a_name_is_a_name(text: str, expected: str) -> None:
    assert in_markdown(text) == expected


def report(name: str) -> Report:
    values = {"failed": (FailedItem(name, name),), "failed_count": 1, "warnings": (name,)}
    done = Report.minimal("task", "run-1", Ending("failed", f"no: {name}"), NOW)
    return Report(**{**vars(done), **values, "sample": (Candidate(name, None, None, name),)})


@pytest.mark.parametrize("text", HOSTILE)
def test_a_report_obeys_nothing_on_a_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.report(report(text))
    output.table(["name"], [[text]])
    output.error("Error", text, text, as_json=False)
    printed = capsys.readouterr()
    assert (printed.out + printed.err).replace("\n", "").isprintable()


def test_json_says_it_all_and_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"name": "\x1b \x9b \u202e é"}
    output.as_json(document)
    printed = capsys.readouterr().out
    assert json.loads(printed) == document
    assert printed.replace("\n", "").isprintable()
    assert "é" in printed
    assert in_json('"\ud800"') == '"\\ud800"'


def test_an_image_in_a_name_is_not_fetched_by_who_opens_the_run() -> None:
    found = to_markdown(report("![x](http://evil/p.png) <img src='http://evil'>" + CLEAR_SCREEN))
    assert "![" not in found
    assert "<img" not in found.replace("\\<img", "")
    assert "http://" not in found
    assert found.replace("\n", "").isprintable()


def test_a_message_of_the_log_is_one_line() -> None:
    formatter = logs._Formatter("%(message)s")
    record = logging.LogRecord("x", logging.INFO, "", 0, "gone: %s", ("a\nb" + CLEAR_SCREEN,), None)
    assert formatter.format(record).isprintable()


def test_a_key_of_any_length_and_kind_makes_a_short_report(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE notes (id text PRIMARY KEY, at timestamptz)",
        f"INSERT INTO notes SELECT string_agg(md5(n::text), E'\\x1b[2J'), '{OLD}' FROM generate_series(1, 50) n",
    )
    found = delete(engine, "notes", dry_run=True, max_fraction=1.0)
    assert found.would_delete == {"notes": 1}
    assert len(found.sample[0].item) < 300
    assert found.sample[0].item.isprintable()
