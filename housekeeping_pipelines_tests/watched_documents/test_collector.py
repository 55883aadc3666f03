"""The collector's protocol, spoken to a server on loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from housekeeping_pipelines.watched_documents.sources import Content, Failed
from housekeeping_pipelines.watched_documents.sources.collector import CollectorSource
from housekeeping_pipelines.watched_documents.sources.references import parse_reference
from housekeeping_pipelines_tests.web_server import Answer, Asked, Raw, WebServer

PATH = "/ext/resync-source-document"
LINK = parse_reference("link://https://example.com/page?a=1")


@pytest.fixture
def collector(web: WebServer) -> Iterator[CollectorSource]:
    source = CollectorSource(web.url + "/", timeout_seconds=5.0, max_bytes=2**20)
    yield source
    source.close()


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("link://https://example.com/page?a=1", {"link": "https://example.com/page?a=1"}),
        (
            "youtube://https://www.youtube.com/watch?v=abcdefghijk",
            {"link": "https://www.youtube.com/watch?v=abcdefghijk"},
        ),
        ("youtube://youtu.be/abcdefghijk", {"link": "https://youtu.be/abcdefghijk"}),
        ("youtube://abcdefghijk", {"link": "https://www.youtube.com/watch?v=abcdefghijk"}),
        ("github://https://github.com/a/b?branch=main", {"chunkSource": "github://https://github.com/a/b?branch=main"}),
        ("gitlab://https://gitlab.com/a/b", {"chunkSource": "gitlab://https://gitlab.com/a/b"}),
        ("gitea://https://gitea.example/a/b", {"chunkSource": "gitea://https://gitea.example/a/b"}),
        ("confluence://https://x.atlassian.net/wiki", {"chunkSource": "confluence://https://x.atlassian.net/wiki"}),
        ("drupalwiki://https://w.example?payload=xyz", {"chunkSource": "drupalwiki://https://w.example?payload=xyz"}),
    ],
)
def test_what_is_asked(text: str, options: dict[str, str], web: WebServer, collector: CollectorSource) -> None:
    web.routes[PATH] = Answer.json({"success": True, "content": "The text.", "reason": None})
    outcome = collector.fetch(parse_reference(text), {"etag": "of another source"})
    assert isinstance(outcome, Content)
    assert (outcome.text, outcome.title, outcome.state) == ("The text.", None, {})
    assert outcome.bytes > 0
    asked = web.requests[0]
    assert (asked.method, asked.path) == ("POST", PATH)
    assert asked.json() == {"type": text.partition("://")[0], "options": options}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"success": False, "content": None, "reason": "No transcript\n found"}, "No transcript found"),
        ({"success": True, "content": None, "reason": None}, "gives no reason"),
        ({"success": False, "content": "text", "reason": "but no"}, "but no"),
        ({"success": "yes", "content": "text"}, "gives no reason"),
        ({"success": True, "content": {"a": 1}}, "gives no reason"),
        ({"success": True, "content": " \n "}, "found no text"),
        ([], "check COLLECTOR_URL"),
        ("text", "check COLLECTOR_URL"),
        (None, "check COLLECTOR_URL"),
    ],
)
def test_no_content_is_a_failure(answer: Any, expected: str, web: WebServer, collector: CollectorSource) -> None:
    web.routes[PATH] = Answer.json(answer)
    outcome = collector.fetch(LINK, None)
    assert isinstance(outcome, Failed)
    assert expected in outcome.reason
    assert "\n" not in outcome.reason


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(b"<html>not found</html>", 404), "answers 404"),
        (Answer(b"broken", 500), "answers 500"),
        (Answer.to("/elsewhere"), "answers 302"),
        (Answer(b"{"), "check COLLECTOR_URL"),
        (Answer(b"[" * 100_000), "check COLLECTOR_URL"),
        (Answer(b"\xff\xfe"), "check COLLECTOR_URL"),
        (Answer(b'"' + b"x" * 2**20 + b'"'), "larger than 1 MiB"),
        (Raw(lambda send: send(b"nonsense")), "does not answer"),
    ],
)
def test_what_is_no_answer_is_a_failure(
    answer: Answer | Raw, expected: str, web: WebServer, collector: CollectorSource
) -> None:
    web.routes[PATH] = answer
    outcome = collector.fetch(LINK, None)
    assert isinstance(outcome, Failed)
    assert expected in outcome.reason


def test_what_no_database_takes_is_taken_out(web: WebServer, collector: CollectorSource) -> None:
    web.routes[PATH] = Answer(b'{"success": true, "content": "a\\u0000b \\ud83d\\ude00 \\ud800"}')
    outcome = collector.fetch(LINK, None)
    assert isinstance(outcome, Content)
    assert outcome.text == "ab 😀 \ufffd"


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        outcome = CollectorSource(f"http://me:secret@127.0.0.1:{taken.getsockname()[1]}").fetch(LINK, None)
    assert isinstance(outcome, Failed)
    assert "COLLECTOR_URL" in outcome.reason
    assert "secret" not in outcome.reason


@pytest.mark.parametrize("piece", [b"", b" "])
def test_the_time_is_for_the_whole_answer(piece: bytes, web: WebServer) -> None:
    def drip(send: Callable[[bytes], None]) -> None:
        send(b"HTTP/1.1 200 OK\r\n\r\n")
        until = time.monotonic() + 3
        while time.monotonic() < until:
            send(piece)
            time.sleep(0.02)

    web.routes[PATH] = Raw(drip)
    started = time.monotonic()
    outcome = CollectorSource(web.url, timeout_seconds=0.3).fetch(LINK, None)
    assert outcome == Failed(f"the collector at 127.0.0.1:{web.port} did not answer in full within 0.3 s")
    assert time.monotonic() - started < 1


def test_many_threads_ask_at_once(web: WebServer, collector: CollectorSource) -> None:
    def echo(asked: Asked) -> Answer:
        return Answer.json({"success": True, "content": asked.json()["options"]["link"], "reason": None})

    web.routes[PATH] = echo
    references = [parse_reference(f"link://https://example.com/{number}") for number in range(50)]
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda reference: collector.fetch(reference, None), references))
    assert [outcome.text for outcome in outcomes if isinstance(outcome, Content)] == [
        each.address for each in references
    ]
