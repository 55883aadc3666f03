"""Drupal Wiki's REST interface, as a server on loopback answers it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from housekeeping_pipelines.resources.fetching import Fetcher
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Outcome, State, Unchanged
from housekeeping_pipelines.watched_documents.sources.drupalwiki import DrupalWikiSource
from housekeeping_pipelines.watched_documents.sources.references import parse_reference
from housekeeping_pipelines_tests.web_server import Answer, Asked, WebServer

API = "/api/rest/scope/api/page"
TOKEN = "a-secret-token"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Wiki:
    """Pages by their ids, in one space; a list has pages as Spring makes them."""

    web: WebServer
    pages: dict[int, dict[str, Any]] = field(default_factory=dict)
    space: int = 7
    # How many a list has, whatever was asked for.
    most: int = 100

    def put(self, number: int, title: str, body: str, changed: int | None) -> None:
        page = {"id": number, "title": title, "type": "page", "homeSpace": self.space, "body": body}
        self.pages[number] = page if changed is None else {**page, "lastModified": changed}
        self.web.routes |= {API: self._list, f"{API}/{number}": self._page}

    def _page(self, asked: Asked) -> Answer:
        number = int(asked.path.rpartition("/")[2])
        if asked.headers["Authorization"] != f"Bearer {TOKEN}":
            return Answer.json({"message": "unauthorized"}, 401)
        return Answer.json(self.pages[number]) if number in self.pages else Answer.json({"message": "none"}, 404)

    def _list(self, asked: Asked) -> Answer:
        if asked.headers["Authorization"] != f"Bearer {TOKEN}":
            return Answer.json({"message": "unauthorized"}, 401)
        if int(asked.query["space"]) != self.space:
            return Answer.json({"message": "no such space"}, 404)
        at, size = int(asked.query["page"]), min(int(asked.query["size"]), self.most)
        # The server's order is not that of the ids.
        listed = [{k: v for k, v in page.items() if k != "body"} for page in self.pages.values()]
        part = listed[at * size : (at + 1) * size]
        total = -(-len(listed) // size)
        return Answer.json(
            {"content": part, "last": at + 1 >= total, "totalPages": total, "totalElements": len(listed)}
        )


@pytest.fixture
def wiki(web: WebServer) -> Wiki:
    return Wiki(web)


@pytest.fixture
def source(web: WebServer, fetcher: Fetcher) -> DrupalWikiSource:
    return DrupalWikiSource(fetcher, base_url=web.url, token=TOKEN, now=lambda: NOW)


def ask(source: DrupalWikiSource, site: str, rest: str, previous: State | None = None) -> Outcome:
    return source.fetch(parse_reference(f"drupalwiki://{site}{rest}"), previous)


@pytest.mark.parametrize("rest", ["?pageId=12", "/node/12", "/node/12?tab=1", "?spaceId=7&pageId=12"])
def test_a_page(rest: str, wiki: Wiki, source: DrupalWikiSource) -> None:
    wiki.put(12, "Door  codes", "<h2>Front</h2><p>Ask <b>Ana</b>.</p><ul><li>one</li></ul>", 1722935527)
    outcome = ask(source, wiki.web.url, rest)
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "# Door codes\n\n## Front\n\nAsk **Ana**.\n\n- one"
    assert outcome.title == "Door codes"
    assert outcome.state == {"lastModified": 1722935527}
    assert outcome.bytes > 0
    again = ask(source, wiki.web.url, rest, outcome.state)
    assert isinstance(again, Unchanged)
    wiki.put(12, "Door codes", "<p>New.</p>", 1722939999)
    changed = ask(source, wiki.web.url, rest, outcome.state)
    assert isinstance(changed, Content)
    assert changed.text == "# Door codes\n\nNew."
    del wiki.pages[12]
    assert isinstance(ask(source, wiki.web.url, rest, changed.state), Gone)


def test_a_page_that_does_not_say_when_it_was_changed_is_content_every_time(
    wiki: Wiki, source: DrupalWikiSource
) -> None:
    wiki.put(12, "Title", "<p>Text.</p>", None)
    outcome = ask(source, wiki.web.url, "?pageId=12")
    assert isinstance(outcome, Content)
    assert outcome.state == {}
    assert isinstance(ask(source, wiki.web.url, "?pageId=12", outcome.state), Content)


@pytest.mark.parametrize("parameter", ["space", "spaceId"])
def test_a_space_is_named_by_either_parameter(parameter: str, wiki: Wiki, source: DrupalWikiSource) -> None:
    wiki.put(1, "Title", "<p>Text.</p>", 1000)
    outcome = ask(source, wiki.web.url, f"?{parameter}=7")
    assert isinstance(outcome, Content)
    assert outcome.text == "# Title\n\nText."


def test_a_space_is_all_of_its_pages_in_the_order_of_their_ids(wiki: Wiki, source: DrupalWikiSource) -> None:
    """Several lists are asked for, and only those while nothing changed."""
    wiki.most = 5
    for number in range(12, 0, -1):
        wiki.put(number, f"Page {number}", f"<p>Text {number}.</p>" if number != 5 else "", 1000 + number)
    first = ask(source, wiki.web.url, "?spaceId=7")
    assert isinstance(first, Content), first
    numbers = [number for number in range(1, 13) if number != 5]
    assert first.text == "\n\n".join(f"# Page {number}\n\nText {number}." for number in numbers)
    assert len(wiki.web.requests) == 3 + 12
    wiki.web.requests.clear()
    assert isinstance(ask(source, wiki.web.url, "?spaceId=7", first.state), Unchanged)
    assert [asked.query["page"] for asked in wiki.web.requests] == ["0", "1", "2"]
    for change in (
        lambda: wiki.put(9, "Page 9", "<p>New.</p>", 9999),
        lambda: wiki.pages.pop(10),
        lambda: wiki.put(999, "More", "<p>x</p>", 1),
    ):
        change()
        outcome = ask(source, wiki.web.url, "?spaceId=7", first.state)
        assert isinstance(outcome, Content)
        assert outcome.state != first.state
        first = outcome


def test_a_page_that_goes_while_a_space_is_read_is_left_out(wiki: Wiki, source: DrupalWikiSource) -> None:
    wiki.put(1, "One", "<p>a</p>", 1)
    wiki.put(2, "Two", "<p>b</p>", 2)
    wiki.web.routes[f"{API}/1"] = Answer(b"", 404)
    outcome = ask(source, wiki.web.url, "?spaceId=7")
    assert isinstance(outcome, Content)
    assert outcome.text == "# Two\n\nb"
    wiki.web.routes[f"{API}/1"] = Answer(b"", 503, {"Retry-After": "5"})
    assert ask(source, wiki.web.url, "?spaceId=7") == Failed("127.0.0.1 answers 503", timedelta(seconds=5))


def test_a_space_that_is_not_there_and_one_that_is_empty(wiki: Wiki, source: DrupalWikiSource) -> None:
    wiki.put(1, "One", "<p>a</p>", 1)
    assert isinstance(ask(source, wiki.web.url, "?spaceId=8"), Gone)
    wiki.pages.clear()
    outcome = ask(source, wiki.web.url, "?spaceId=7")
    assert isinstance(outcome, Failed)
    assert "DRUPALWIKI_TOKEN" in outcome.reason


def test_what_no_database_takes_is_taken_out(wiki: Wiki, source: DrupalWikiSource) -> None:
    wiki.put(12, "a\0b \ud800", "<p>c\0d \ud83d\ude00 \ud800 e</p><p>f</p>", 1)
    outcome = ask(source, wiki.web.url, "?pageId=12")
    assert isinstance(outcome, Content)
    assert outcome.text == "# ab \ufffd\n\ncd 😀 \ufffd e\n\nf"


def test_a_list_ends_where_its_number_of_pages_says_so(wiki: Wiki, source: DrupalWikiSource) -> None:
    wiki.put(1, "One", "<p>a</p>", 1)
    wiki.web.routes[API] = Answer.json({"content": [{"id": 1, "title": "One", "lastModified": 1}], "totalPages": 1})
    assert isinstance(ask(source, wiki.web.url, "?spaceId=7"), Content)
    assert len(wiki.web.requests) == 2


def test_a_wiki_that_lists_without_end(wiki: Wiki, source: DrupalWikiSource) -> None:
    same = {"content": [{"id": 1, "title": "One", "lastModified": 1}], "last": False}
    wiki.web.routes[API] = Answer.json(same)
    outcome = ask(source, wiki.web.url, "?spaceId=7")
    assert outcome == Failed("the wiki returns the same pages repeatedly")
    assert len(wiki.web.requests) == 2


@pytest.mark.parametrize("rest", ["", "/", "?pageId=abc", "?spaceId=", "?pageId=²", "/wiki/Home", "?pageId=1;drop"])
def test_a_reference_that_names_nothing(rest: str, wiki: Wiki, source: DrupalWikiSource) -> None:
    outcome = ask(source, wiki.web.url, rest)
    assert isinstance(outcome, Failed)
    assert "does not name a page or a space" in outcome.reason
    assert not wiki.web.requests


@pytest.mark.parametrize(
    "site",
    [
        "https://other.example",
        "http://127.0.0.1:1",
        "https://127.0.0.1:{port}",
        "http://localhost:{port}",
        "127.0.0.1:{port}",
    ],
)
def test_another_host_is_not_asked(site: str, wiki: Wiki, source: DrupalWikiSource) -> None:
    """The token is for one wiki."""
    wiki.put(12, "Title", "<p>Text.</p>", 1)
    outcome = ask(source, site.format(port=wiki.web.port), "?pageId=12")
    assert isinstance(outcome, Failed)
    assert "DRUPALWIKI_URL" in outcome.reason
    assert not wiki.web.requests


def test_without_settings(wiki: Wiki, fetcher: Fetcher) -> None:
    outcome = ask(DrupalWikiSource(fetcher, base_url=None, token=None), wiki.web.url, "?pageId=12")
    assert isinstance(outcome, Failed)
    assert "DRUPALWIKI_URL" in outcome.reason


@pytest.mark.parametrize("token", [None, "wrong-secret"])
def test_a_token_that_is_not_accepted(token: str | None, wiki: Wiki, fetcher: Fetcher) -> None:
    wiki.put(12, "Title", "<p>Text.</p>", 1)
    outcome = ask(DrupalWikiSource(fetcher, base_url=wiki.web.url + "/", token=token), wiki.web.url, "?pageId=12")
    assert outcome == Failed("127.0.0.1 answers 401; check DRUPALWIKI_TOKEN")


def test_the_token_does_not_follow_a_redirect(wiki: Wiki, source: DrupalWikiSource) -> None:
    with WebServer() as other:
        other.routes["/stolen"] = Answer.html("<p>Log in</p>")
        wiki.web.routes[f"{API}/12"] = Answer.to(other.url + "/stolen")
        outcome = ask(source, wiki.web.url, "?pageId=12")
        assert isinstance(outcome, Failed)
        assert "does not answer as a Drupal Wiki" in outcome.reason
        assert wiki.web.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
        assert TOKEN not in str(other.requests[0].headers.items())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(b"{"), "check DRUPALWIKI_URL"),
        (Answer.json([1]), "check DRUPALWIKI_URL"),
        (Answer.json({"title": "No body"}), "has no text"),
        (Answer.json({"title": 5, "body": 6}), "has no text"),
        (Answer.json({}, 500), "answers 500"),
        (Answer.json({}, 403), "check DRUPALWIKI_TOKEN"),
    ],
)
def test_what_is_no_page_is_a_failure(answer: Answer, expected: str, wiki: Wiki, source: DrupalWikiSource) -> None:
    wiki.web.routes[f"{API}/12"] = answer
    outcome = ask(source, wiki.web.url, "?pageId=12")
    assert isinstance(outcome, Failed)
    assert expected in outcome.reason
    assert TOKEN not in outcome.reason


@pytest.mark.parametrize("answer", [{"content": "x"}, {"content": [1]}, {"content": [{"id": "x"}]}, {}])
def test_what_is_no_list_is_a_failure(answer: Any, wiki: Wiki, source: DrupalWikiSource) -> None:
    wiki.web.routes[API] = Answer.json(answer)
    outcome = ask(source, wiki.web.url, "?spaceId=7")
    assert isinstance(outcome, Failed)
    assert "check DRUPALWIKI_URL" in outcome.reason
