"""Confluence's REST interface, of the cloud and of a server, on loopback, asked by the client that is named for it."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from housekeeping_pipelines.resources.fetching import Fetcher, FetchPolicy
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Outcome, State, Unchanged
from housekeeping_pipelines.watched_documents.sources.confluence import MAX_PAGES, ConfluenceSource
from housekeeping_pipelines.watched_documents.sources.references import parse_reference
from housekeeping_pipelines_tests.web_server import Answer, Asked, Raw, WebServer

TOKEN = "ATATT-a-secret-token"
USER = "ana@example.com"
BASIC = f"Basic {base64.b64encode(f'{USER}:{TOKEN}'.encode()).decode()}"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Site:
    """Pages of one space by their ids; a list has `most` of them at a time, whatever it was asked for."""

    web: WebServer
    folder: str = "/wiki"
    space: str = "DOC"
    most: int = 100
    # As the cloud lists some things by now.
    cursor: bool = False
    accepted: tuple[str | None, ...] = (BASIC, f"Bearer {TOKEN}")
    pages: dict[int, dict[str, Any]] = field(default_factory=dict)

    def put(self, number: int, title: str, body: str, version: int = 1, status: str = "current") -> None:
        self.pages[number] = {
            "id": str(number),
            "type": "page",
            "status": status,
            "title": title,
            "version": {"number": version, "when": "2026-02-01T00:00:00.000Z"},
            "body": {"storage": {"value": body, "representation": "storage"}},
        }
        self.web.routes[f"{self.folder}/rest/api/content"] = self._list
        self.web.routes[f"{self.folder}/rest/api/content/{number}"] = self._page

    def _expanded(self, page: dict[str, Any], asked: Asked) -> dict[str, Any]:
        expand = asked.query.get("expand", "").split(",")
        shown = {name: page[name] for name in ("id", "type", "status", "title")}
        if "version" in expand:
            shown["version"] = page["version"]
        if "body.storage" in expand:
            shown["body"] = page["body"]
        return {**shown, "_links": {"webui": f"/spaces/{self.space}/pages/{page['id']}"}}

    def _page(self, asked: Asked) -> Answer:
        page = self.pages.get(int(asked.path.rpartition("/")[2]))
        if refusal := self._refusal(asked):
            return refusal
        if page is None:
            message = "com.atlassian.confluence.api.service.exceptions.api.NotFoundException: No content found with id"
            return Answer.json({"statusCode": 404, "message": message}, 404)
        return Answer.json(self._expanded(page, asked))

    def _list(self, asked: Asked) -> Answer:
        if refusal := self._refusal(asked):
            return refusal
        if asked.query["spaceKey"] != self.space:
            return Answer.json({"statusCode": 404, "message": f"No space with key : {asked.query['spaceKey']}"}, 404)
        assert asked.query["type"] == "page"
        title = asked.query.get("title")
        found = [page for page in self.pages.values() if title is None or page["title"] == title]
        start = int(asked.query.get("cursor", "_0")[1:] if self.cursor else asked.query.get("start", "0"))
        limit = min(int(asked.query.get("limit", "25")), self.most)
        part = found[start : start + limit]
        links = {"base": f"{self.web.url}{self.folder}", "context": self.folder, "self": "https://elsewhere.example/"}
        if start + limit < len(found):
            where = {"cursor": f"_{start + limit}"} if self.cursor else {"start": start + limit}
            links["next"] = f"/rest/api/content?{urlencode({**asked.query, 'limit': limit, **where})}"
        results = [self._expanded(page, asked) for page in part]
        return Answer.json({"results": results, "start": start, "limit": limit, "size": len(part), "_links": links})

    def _refusal(self, asked: Asked) -> Answer | None:
        if asked.headers["Authorization"] in self.accepted:
            return None
        return Answer.json({"code": 401, "message": "Unauthorized; scope does not match"}, 401)


@pytest.fixture
def site(web: WebServer) -> Site:
    return Site(web)


@pytest.fixture
def source(web: WebServer, fetcher: Fetcher) -> ConfluenceSource:
    return cloud(web, fetcher)


def cloud(web: WebServer, fetcher: Fetcher, folder: str = "") -> ConfluenceSource:
    url = f"{web.url}{folder}"
    return ConfluenceSource(fetcher.session, url=url, username=USER, token=TOKEN, clock=lambda: NOW)


def ask(source: ConfluenceSource, site: Site, rest: str, previous: State | None = None) -> Outcome:
    return source.fetch(parse_reference(f"confluence://{site.web.url}{site.folder}{rest}"), previous)


BODY = (
    '<h2>Front</h2><p>Ask <strong>Ana</strong>.</p><ac:structured-macro ac:name="code"><ac:parameter ac:name="title">'
    "x</ac:parameter><ac:plain-text-body><![CDATA[open < door && go]]></ac:plain-text-body></ac:structured-macro>"
)
TEXT = "# Door codes\n\n## Front\n\nAsk **Ana**.\n\n```\nopen < door && go\n```"


@pytest.mark.parametrize(
    "rest",
    [
        "/spaces/DOC/pages/12",
        "/spaces/DOC/pages/12/Door+codes",
        "/spaces/DOC/pages/12/Door+codes#front",
        "/pages/viewpage.action?pageId=12",
        "/spaces/viewspace.action?key=DOC&pageId=12",
    ],
)
def test_a_page_and_one_request_says_that_its_version_is_the_same(
    rest: str, site: Site, source: ConfluenceSource
) -> None:
    site.put(12, "Door  codes", BODY, 7)
    outcome = ask(source, site, rest)
    assert isinstance(outcome, Content), outcome
    assert outcome.text == TEXT
    assert outcome.title == "Door codes"
    assert outcome.bytes > len(BODY)
    site.web.requests.clear()
    again = ask(source, site, rest, outcome.state)
    assert isinstance(again, Unchanged)
    assert again.bytes < 500
    (asked,) = site.web.requests
    assert (asked.path, asked.query) == ("/wiki/rest/api/content/12", {"expand": "version"})
    site.put(12, "Door codes", "<p>New.</p>", 8)
    changed = ask(source, site, rest, outcome.state)
    assert isinstance(changed, Content)
    assert changed.text == "# Door codes\n\nNew."
    del site.pages[12]
    gone = ask(source, site, rest, changed.state)
    assert isinstance(gone, Gone)
    # Confluence says so of a page that may not be read, too.
    assert "404" in gone.reason
    assert "CONFLUENCE_TOKEN" in gone.reason


@pytest.mark.parametrize("rest", ["/display/DOC/Door+codes", "/display/DOC/Door%20codes/"])
def test_a_page_by_its_title_is_not_the_whole_space(rest: str, site: Site, source: ConfluenceSource) -> None:
    site.put(11, "Other", "<p>Not this.</p>")
    site.put(12, "Door codes", BODY)
    outcome = ask(source, site, rest)
    assert isinstance(outcome, Content), outcome
    assert outcome.text == TEXT
    site.web.requests.clear()
    assert isinstance(ask(source, site, rest, outcome.state), Unchanged)
    assert len(site.web.requests) == 1
    # Another page of that title, as new as the one before.
    del site.pages[12]
    site.put(13, "Door codes", "<p>New.</p>")
    assert isinstance(ask(source, site, rest, outcome.state), Content)
    del site.pages[13]
    assert isinstance(ask(source, site, rest), Gone)


@pytest.mark.parametrize("status", ["trashed", "archived"])
def test_a_page_in_the_trash_is_gone(status: str, site: Site, source: ConfluenceSource) -> None:
    site.put(12, "Door codes", BODY, status=status)
    assert ask(source, site, "/spaces/DOC/pages/12") == Gone(f"the page is {status}")


@pytest.mark.parametrize("body", ["", "<p> </p>", '<ac:structured-macro ac:name="toc" />'])
def test_a_page_without_text_is_a_failure(body: str, site: Site, source: ConfluenceSource) -> None:
    site.put(12, "Door codes", body)
    assert ask(source, site, "/spaces/DOC/pages/12") == Failed("the page has no text")


def test_what_no_database_takes_is_taken_out(site: Site, source: ConfluenceSource) -> None:
    site.put(12, "a\0b \ud800", "<p>c\0d \ud83d\ude00 \ud800 e</p><p>f</p>")
    outcome = ask(source, site, "/spaces/DOC/pages/12")
    assert isinstance(outcome, Content)
    assert outcome.text == "# ab \ufffd\n\ncd 😀 \ufffd e\n\nf"


@pytest.mark.parametrize("most", [100, 3])
@pytest.mark.parametrize("cursor", [False, True])
@pytest.mark.parametrize(
    "rest", ["/spaces/DOC", "/spaces/DOC/overview", "/display/DOC", "/spaces/viewspace.action?key=DOC"]
)
def test_a_space_is_all_of_its_pages_in_the_order_of_their_ids(
    rest: str, cursor: bool, most: int, site: Site, source: ConfluenceSource
) -> None:
    """A server lists fewer at a time than it is asked for when bodies are to be shown."""
    site.most, site.cursor = most, cursor
    for number in range(12, 5, -1):
        site.put(number, f"Page {number}", f"<p>Text {number}.</p>" if number != 8 else "")
    outcome = ask(source, site, rest)
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "\n\n".join(f"# Page {n}\n\nText {n}." for n in (6, 7, 9, 10, 11, 12))
    lists = 1 if most == 100 else 3
    assert len(site.web.requests) == 2 * lists
    site.web.requests.clear()
    assert isinstance(ask(source, site, rest, outcome.state), Unchanged)
    assert [asked.query["expand"] for asked in site.web.requests] == ["version"] * lists


def test_a_space_that_is_listed_page_by_page_is_read_to_its_end(site: Site, source: ConfluenceSource) -> None:
    site.most = 1
    for number in range(22):
        site.put(number, "Page", f"<p>Text {number}.</p>")
    outcome = ask(source, site, "/spaces/DOC")
    assert isinstance(outcome, Content), outcome
    assert outcome.text.endswith("Text 21.")
    assert len(site.web.requests) == 44


def test_any_change_in_a_space_is_one(site: Site, source: ConfluenceSource) -> None:
    for number in (1, 2, 3):
        site.put(number, f"Page {number}", "<p>Text.</p>")
    first = ask(source, site, "/spaces/DOC")
    assert isinstance(first, Content)
    for change in (
        lambda: site.put(2, "Page 2", "<p>New.</p>", 2),
        lambda: site.pages.pop(1),
        lambda: site.put(4, "Page 4", "<p>Text.</p>"),
    ):
        change()
        outcome = ask(source, site, "/spaces/DOC", first.state)
        assert isinstance(outcome, Content)
        assert outcome.state != first.state
        first = outcome


def test_a_space_that_is_not_there_is_empty_or_is_too_large(site: Site, source: ConfluenceSource) -> None:
    site.put(1, "Page", "")
    assert isinstance(ask(source, site, "/spaces/NONE"), Gone)
    assert ask(source, site, "/spaces/DOC") == Failed("the space DOC has no text")
    site.pages.clear()
    assert ask(source, site, "/spaces/DOC") == Failed("the space DOC has no page that this account may read")
    for number in range(MAX_PAGES + 60):
        site.put(number, "Page", "<p>Text.</p>")
    site.web.requests.clear()
    outcome = ask(source, site, "/spaces/DOC")
    assert isinstance(outcome, Failed)
    assert "more than 1,000 pages" in outcome.reason
    assert len(site.web.requests) == 21


def test_a_list_without_end_ends(site: Site, source: ConfluenceSource) -> None:
    page = {"id": "1", "version": {"number": 1}}
    links = {"next": "/rest/api/content?start=0"}
    site.web.routes["/wiki/rest/api/content"] = Answer.json({"results": [page] * 50, "_links": links})
    outcome = ask(source, site, "/spaces/DOC")
    assert isinstance(outcome, Failed)
    assert len(site.web.requests) == 21
    site.web.requests.clear()
    site.web.routes["/wiki/rest/api/content"] = Answer.json({"results": [], "_links": links})
    assert isinstance(ask(source, site, "/spaces/DOC"), Failed)
    assert len(site.web.requests) == 1


def test_a_space_that_is_hidden_while_it_is_read_is_a_failure(site: Site, source: ConfluenceSource) -> None:
    site.put(1, "Page", "<p>Text.</p>")
    listed = site.web.routes["/wiki/rest/api/content"]

    def once(asked: Asked) -> Answer | Raw:
        site.web.routes["/wiki/rest/api/content"] = Answer.json({"message": "No space with key : DOC"}, 404)
        assert callable(listed)
        return listed(asked)

    site.web.routes["/wiki/rest/api/content"] = once
    outcome = ask(source, site, "/spaces/DOC")
    assert isinstance(outcome, Failed)
    assert "a part that it lists" in outcome.reason


@pytest.mark.parametrize("space", ["~ana", "~557058:2e0a1b"])
def test_a_space_of_a_person(space: str, site: Site, source: ConfluenceSource) -> None:
    site.space = space
    site.put(1, "Page", "<p>Text.</p>")
    for written in (space, space.replace("~", "%7E").replace(":", "%3A")):
        outcome = ask(source, site, f"/spaces/{written}/overview")
        assert isinstance(outcome, Content), outcome
        assert outcome.text == "# Page\n\nText."


@pytest.mark.parametrize("configured", ["", "/wiki"])
def test_the_cloud_is_asked_as_an_account_with_its_token(configured: str, site: Site, fetcher: Fetcher) -> None:
    site.put(12, "Door codes", BODY)
    outcome = ask(cloud(site.web, fetcher, configured), site, "/spaces/DOC/pages/12")
    assert isinstance(outcome, Content), outcome
    assert {asked.headers["Authorization"] for asked in site.web.requests} == {BASIC}
    assert site.web.paths() == ["/wiki/rest/api/content/12"] * 2


@pytest.mark.parametrize("folder", ["", "/confluence", "/tools/wiki2"])
def test_a_server_in_a_folder_is_asked_with_a_personal_token(folder: str, web: WebServer, fetcher: Fetcher) -> None:
    site = Site(web, folder)
    site.put(12, "Door codes", BODY)
    source = ConfluenceSource(fetcher.session, url=f"{web.url}{folder}", username=None, token=TOKEN)
    outcome = ask(source, site, "/pages/viewpage.action?pageId=12")
    assert isinstance(outcome, Content), outcome
    assert {asked.headers["Authorization"] for asked in web.requests} == {f"Bearer {TOKEN}"}
    assert web.paths() == [f"{folder}/rest/api/content/12"] * 2


@pytest.mark.parametrize(
    "configured",
    [None, "https://other.example", "http://127.0.0.1:1", "https://127.0.0.1:{port}", "http://localhost:{port}"],
)
def test_what_is_public_elsewhere_is_read_without_credentials(
    configured: str | None, site: Site, fetcher: Fetcher
) -> None:
    site.accepted = (None,)
    site.put(12, "Door codes", BODY)
    url = configured and configured.format(port=site.web.port)
    for username in (USER, None):
        source = ConfluenceSource(fetcher.session, url=url, username=username, token=TOKEN)
        assert isinstance(ask(source, site, "/spaces/DOC/pages/12"), Content)
    for asked in site.web.requests:
        assert asked.headers["Authorization"] is None
        assert TOKEN not in str(asked.headers.items())


@pytest.mark.parametrize("username", [USER, None])
def test_the_credentials_do_not_follow_a_redirect_to_another_host(
    username: str | None, site: Site, fetcher: Fetcher
) -> None:
    source = ConfluenceSource(fetcher.session, url=site.web.url, username=username, token=TOKEN)
    with WebServer() as other:
        other.routes["/login"] = Answer.html("<p>Log in</p>")
        site.web.routes["/wiki/rest/api/content/12"] = Answer.to(f"{other.url}/login")
        outcome = ask(source, site, "/spaces/DOC/pages/12")
        assert isinstance(outcome, Failed)
        assert site.web.requests[0].headers["Authorization"] in (BASIC, f"Bearer {TOKEN}")
        assert len(other.requests) == 1
        assert other.requests[0].headers["Authorization"] is None


def test_a_page_that_moved_is_followed(site: Site, source: ConfluenceSource) -> None:
    site.put(12, "Door codes", BODY)

    def moved(asked: Asked) -> Answer:
        return Answer.to(f"/wiki/rest/api/content/12?{urlencode(asked.query)}", 301)

    site.web.routes["/wiki/rest/api/content/5"] = moved
    outcome = ask(source, site, "/spaces/DOC/pages/5")
    assert isinstance(outcome, Content), outcome
    assert outcome.text == TEXT


@pytest.mark.parametrize("rest", ["/spaces/DOC/pages/12", "/spaces/DOC", "/display/DOC/Door+codes"])
@pytest.mark.parametrize(
    "answer",
    [
        Answer.json({"code": 401, "message": "Unauthorized"}, 401),
        Answer("<html>Basic auth with password is not allowed</html>", 401, {"WWW-Authenticate": "OAuth realm=x"}),
        Answer.json({"statusCode": 403, "message": "Request rejected because issuer is not authorized"}, 403),
    ],
)
def test_credentials_that_are_not_accepted_are_named(
    answer: Answer, rest: str, site: Site, source: ConfluenceSource
) -> None:
    site.web.routes |= {"/wiki/rest/api/content": answer, "/wiki/rest/api/content/12": answer}
    names = "CONFLUENCE_URL, CONFLUENCE_USERNAME and CONFLUENCE_TOKEN"
    assert ask(source, site, rest) == Failed(f"127.0.0.1 answers {answer.status}: check {names}")


@pytest.mark.parametrize("rest", ["/spaces/DOC/pages/12", "/spaces/DOC"])
@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, {"Retry-After": "120"}, timedelta(seconds=120)),
        (429, {"Retry-After": "Sun, 01 Mar 2026 12:01:30 GMT"}, timedelta(seconds=90)),
        (429, {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "0", "X-RateLimit-Interval-Seconds": "1"}, None),
        (503, {"Retry-After": "30"}, timedelta(seconds=30)),
    ],
)
def test_a_rate_limit_says_when_to_come_again_and_is_not_slept_through(
    status: int, headers: dict[str, str], wait: timedelta | None, rest: str, site: Site, source: ConfluenceSource
) -> None:
    """The fetch would take minutes otherwise, and pytest with it."""
    answer = Answer(b"Rate limit exceeded", status, headers)
    site.web.routes |= {"/wiki/rest/api/content": answer, "/wiki/rest/api/content/12": answer}
    assert ask(source, site, rest) == Failed(f"127.0.0.1 answers {status}", wait)
    assert len(site.web.requests) == 1


@pytest.mark.parametrize("rest", ["/spaces/DOC/pages/12", "/spaces/DOC", "/display/DOC/Door+codes"])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer.html("<html><title>Log in - Confluence</title></html>"), "cannot be read"),
        (Answer(b'{"id": "12", "version": {"num'), "cannot be read"),
        (Answer(b"[" * 100_000), "cannot be read"),
        (Answer(b""), "cannot be read"),
        (Answer.json([1]), "cannot be read"),
        (Answer.json({"id": "12", "results": 5}), "cannot be read"),
        (Answer.json({"id": "12", "version": 5, "results": [{"id": "12", "version": 5}]}), "cannot be read"),
        (Answer.json({"results": [{"id": "../12", "version": {"number": 1}}]}), "cannot be read"),
        (Answer(b"<html>Whoops</html>", 502), "127.0.0.1 answers 502"),
        (Answer.json({"errors": "x"}, 500), "127.0.0.1 answers 500"),
        (Answer.to("/elsewhere"), "127.0.0.1 redirects to no usable address"),
        (Raw(lambda send: None), "127.0.0.1"),
        (Raw(lambda send: send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")), "127.0.0.1"),
    ],
)
def test_what_is_no_answer_of_a_confluence_is_a_failure(
    answer: Answer | Raw, expected: str, rest: str, site: Site, source: ConfluenceSource
) -> None:
    site.web.routes |= {
        "/wiki/rest/api/content": answer,
        "/wiki/rest/api/content/12": answer,
        "/elsewhere": Answer.to("/elsewhere"),
    }
    outcome = ask(source, site, rest)
    assert isinstance(outcome, Failed), outcome
    assert expected in outcome.reason
    assert "\n" not in outcome.reason
    assert TOKEN not in outcome.reason


@pytest.mark.parametrize("body", [None, {}, {"storage": 5}, {"storage": {"value": 5}}])
def test_what_is_no_body_is_a_failure(body: Any, site: Site, source: ConfluenceSource) -> None:
    site.put(12, "Door codes", BODY)
    site.pages[12]["body"] = body
    for rest in ("/spaces/DOC/pages/12", "/spaces/DOC"):
        outcome = ask(source, site, rest)
        assert isinstance(outcome, Failed), outcome
        assert "cannot be read" in outcome.reason


def test_the_library_is_guarded_as_every_fetch_is(site: Site) -> None:
    site.put(12, "Door codes", BODY)
    fetcher = Fetcher(FetchPolicy())
    outcome = ask(cloud(site.web, fetcher), site, "/spaces/DOC/pages/12")
    fetcher.close()
    assert isinstance(outcome, Failed)
    assert "FETCH_ALLOWED_HOSTS" in outcome.reason
    assert not site.web.requests


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "/",
        "/x/AbCd",
        "/?pageId=abc",
        "/?pageId=²",
        "/?pageId=1/../2",
        "/spaces/DOC/blog/2026/01/02/5",
        "/spaces/viewspace.action",
    ],
)
def test_what_names_no_page_and_no_space_is_not_asked_for(rest: str, site: Site, source: ConfluenceSource) -> None:
    separator = "&" if "?" in rest else "?"
    outcome = ask(source, site, f"{rest}{separator}os_password=secret")
    assert isinstance(outcome, Failed)
    assert "does not name a page or a space" in outcome.reason
    assert "secret" not in outcome.reason
    assert not site.web.requests


def test_many_threads_ask_at_once(site: Site, source: ConfluenceSource) -> None:
    for number in range(16):
        site.put(number, f"Page {number}", "<p>Text.</p>")
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda number: ask(source, site, f"/spaces/DOC/pages/{number}"), range(16)))
    assert [outcome.title for outcome in outcomes if isinstance(outcome, Content)] == [f"Page {n}" for n in range(16)]
