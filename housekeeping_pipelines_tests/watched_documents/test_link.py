"""Web pages and files from a server on loopback, through the fetcher that is used for them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest

from housekeeping_pipelines.resources.fetching import Fetcher, FetchPolicy
from housekeeping_pipelines.watched_documents.sources import (
    Content,
    Failed,
    Gone,
    Outcome,
    State,
    Unchanged,
    extraction,
)
from housekeeping_pipelines.watched_documents.sources.decoding import clean, decode
from housekeeping_pipelines.watched_documents.sources.extraction import NotReadable, extract
from housekeeping_pipelines.watched_documents.sources.link import LinkSource
from housekeeping_pipelines.watched_documents.sources.references import parse_reference
from housekeeping_pipelines_tests.web_server import Answer, Asked, WebServer

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

PAGE = """<!DOCTYPE html><html><head><title>How to &amp; why</title><script>var x = "hidden";</script></head><body>
<nav><a href="/">Home</a> <a href="/blog">Blog</a></nav>
<main><article><h1>Backups</h1>
<p>Every night at two o'clock a copy of the database is written to the second machine, and kept for a month there.</p>
<h2>Restoring</h2>
<ul><li>Stop the server first of all.</li><li>Copy the newest file into the folder of the data.</li></ul>
<table><tr><th>Size</th><th>Minutes</th></tr><tr><td>10 GB</td><td>4</td></tr></table>
<pre><code>restore --from latest</code></pre>
<p>See <a href="https://example.com/more?session=123">the other page</a> for what to do when this does not work.</p>
</article></main><footer>Imprint and privacy</footer></body></html>"""


@pytest.fixture(scope="module")
def source() -> Iterator[LinkSource]:
    fetcher = Fetcher(FetchPolicy(frozenset({"127.0.0.1"}), timeout_seconds=5.0))
    yield LinkSource(fetcher, now=lambda: NOW)
    fetcher.close()


Fetch = Callable[..., Outcome]


@pytest.fixture
def fetch(web: WebServer, source: LinkSource) -> Fetch:
    def call(path: str = "/page", previous: State | None = None) -> Outcome:
        return source.fetch(parse_reference(f"link://{web.url}{path}"), previous)

    return call


def versioned(
    body: str, etag: str = '"v1"', modified: str = "Sun, 01 Feb 2026 00:00:00 GMT", *, repeat: bool = True
) -> Callable[[Asked], Answer]:
    """A page that knows validators; `repeat` says whether a 304 carries them."""

    def answer(asked: Asked) -> Answer:
        headers = {"ETag": etag, "Last-Modified": "Sun, 01 Feb 2026 00:00:00 GMT"}
        if etag in (asked.headers["If-None-Match"] or ""):
            return Answer(b"", 304, headers if repeat else {})
        return Answer(body, 200, {"Content-Type": "text/html; charset=utf-8", **headers})

    return answer


def test_a_page_becomes_markdown_with_its_title_and_its_validators(web: WebServer, fetch: Fetch) -> None:
    web.routes["/page"] = versioned(PAGE)
    outcome = fetch()
    assert isinstance(outcome, Content)
    assert outcome.title == "How to & why"
    assert outcome.state == {"etag": '"v1"', "last_modified": "Sun, 01 Feb 2026 00:00:00 GMT"}
    assert outcome.bytes == len(PAGE)
    for expected in ("# Backups", "## Restoring", "- Stop the server", "| Size | Minutes |", "restore --from latest"):
        assert expected in outcome.text
    for unexpected in ("hidden", "Imprint", "session=123", "Blog"):
        assert unexpected not in outcome.text


@pytest.mark.parametrize("repeat", [True, False])
def test_what_did_not_change_is_not_sent_and_its_validators_are_kept(
    repeat: bool, web: WebServer, fetch: Fetch
) -> None:
    web.routes["/page"] = versioned(PAGE, repeat=repeat)
    first = fetch()
    assert isinstance(first, Content)
    again = fetch(previous=first.state)
    assert again == Unchanged(None, 0)
    assert web.requests[1].headers["If-None-Match"] == '"v1"'
    assert web.requests[1].headers["If-Modified-Since"] == "Sun, 01 Feb 2026 00:00:00 GMT"
    web.routes["/page"] = versioned(PAGE.replace("Backups", "Copies"), '"v2"')
    changed = fetch(previous=first.state)
    assert isinstance(changed, Content)
    assert "Copies" in changed.text
    assert changed.state["etag"] == '"v2"'


def test_a_304_with_another_validator_replaces_that_alone(web: WebServer, fetch: Fetch) -> None:
    web.routes["/page"] = Answer(b"", 304, {"ETag": 'W/"new"'})
    previous = {"etag": '"old"', "last_modified": "Sun, 01 Feb 2026 00:00:00 GMT"}
    assert fetch(previous=previous) == Unchanged({**previous, "etag": 'W/"new"'}, 0)


@pytest.mark.parametrize("previous", [None, {}, {"etag": None}, {"url": "http://elsewhere.example/"}, {"etag": 5}])
def test_a_304_that_nobody_asked_for_is_a_failure(previous: State | None, web: WebServer, fetch: Fetch) -> None:
    web.routes["/page"] = Answer(b"", 304)
    outcome = fetch(previous=previous)
    assert isinstance(outcome, Failed)
    assert "304" in outcome.reason


def test_a_page_without_validators_is_fetched_whole(web: WebServer, fetch: Fetch) -> None:
    web.routes["/page"] = Answer.html(PAGE)
    outcome = fetch()
    assert isinstance(outcome, Content)
    assert outcome.state == {}
    assert isinstance(fetch(previous=outcome.state), Content)


@pytest.mark.parametrize("status", [404, 410])
def test_gone(status: int, web: WebServer, fetch: Fetch) -> None:
    web.routes["/page"] = Answer(b"no", status)
    outcome = fetch()
    assert isinstance(outcome, Gone)
    assert str(status) in outcome.reason


@pytest.mark.parametrize("status", [204, 206, 300, 400, 401, 402, 403, 405, 406, 418, 429, 451, 500, 502, 503, 504])
def test_no_other_status_is_gone_or_content(status: int, web: WebServer, fetch: Fetch) -> None:
    web.routes["/page"] = Answer(PAGE, status, {"Content-Type": "text/html", "Retry-After": "90"})
    outcome = fetch(previous={"etag": '"v1"'})
    assert isinstance(outcome, Failed)
    assert str(status) in outcome.reason
    assert outcome.retry_after == timedelta(seconds=90)
    assert "\n" not in outcome.reason


def test_a_date_to_come_again(web: WebServer, fetch: Fetch) -> None:
    web.routes["/page"] = Answer(b"", 429, {"Retry-After": "Sun, 01 Mar 2026 13:00:00 GMT"})
    outcome = fetch()
    assert isinstance(outcome, Failed)
    assert outcome.retry_after == timedelta(hours=1)


def test_where_a_page_went_is_noted(web: WebServer, fetch: Fetch) -> None:
    web.routes |= {"/page": Answer.to("/new?a=1", 301), "/new": versioned(PAGE)}
    outcome = fetch()
    assert isinstance(outcome, Content)
    assert outcome.state["url"] == f"{web.url}/new?a=1"
    assert fetch(previous=outcome.state) == Unchanged(None, 0)


def test_a_page_that_moved_is_not_compared_by_the_date_of_the_one_before(web: WebServer, fetch: Fetch) -> None:
    """A redirect to the newest version may lead to a file that is older than the one before was."""

    def older(asked: Asked) -> Answer:
        if asked.headers["If-Modified-Since"]:
            return Answer(b"", 304)
        return Answer("The manual of version two.", 200, {"Content-Type": "text/plain"})

    web.routes |= {"/page": Answer.to("/v1"), "/v1": versioned(PAGE), "/v2": older}
    first = fetch()
    assert isinstance(first, Content)
    web.routes["/page"] = Answer.to("/v2")
    second = fetch(previous=first.state)
    assert isinstance(second, Content)
    assert second.text == "The manual of version two."
    assert second.state == {"url": f"{web.url}/v2"}


def test_a_login_page_is_content_that_others_judge(web: WebServer, fetch: Fetch) -> None:
    web.routes |= {
        "/page": Answer.to("/login?next=/page"),
        "/login": Answer.html("<html><title>Log in</title><body><form>User name Password</form></body></html>"),
    }
    outcome = fetch()
    assert isinstance(outcome, Content)
    assert "Password" in outcome.text
    assert outcome.state["url"].endswith("/login?next=/page")


def test_what_may_not_be_fetched_is_a_failure_in_words(source: LinkSource) -> None:
    outcome = source.fetch(parse_reference("link://http://10.0.0.1/admin"), None)
    assert isinstance(outcome, Failed)
    assert "10.0.0.1" in outcome.reason
    assert "FETCH_ALLOWED_HOSTS" in outcome.reason


def test_nobody_there(source: LinkSource) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        reference = parse_reference(f"link://http://127.0.0.1:{taken.getsockname()[1]}/?key=secret")
        outcome = source.fetch(reference, None)
    assert isinstance(outcome, Failed)
    assert "refused" in outcome.reason
    assert "secret" not in outcome.reason


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"# Title\n\nText *as* it is.\n", "text/markdown", "# Title\n\nText *as* it is."),
        (b"  indented\n\n\tand tabbed\n", "text/plain", "  indented\n\n\tand tabbed"),
        (b"<p>source of a page</p>", "text/plain; charset=utf-8", "<p>source of a page</p>"),
        (b'{"a": 1}', "application/json", '{"a": 1}'),
        (b'{"a": 1}', "application/ld+json", '{"a": 1}'),
        (b"<rss><item>news</item></rss>", "application/rss+xml", "<rss><item>news</item></rss>"),
        (b"a: 1", "application/yaml", "a: 1"),
        (b"a,b\n1,2", "text/csv", "a,b\n1,2"),
        (b"no type at all", "", "no type at all"),
        (b"any bytes", "application/octet-stream", "any bytes"),
        (b"NUL\0 inside", "text/plain", "NUL inside"),
        ("größer".encode(), "text/plain; charset=iso-8859-1", "größer"),
        ("größer".encode("latin-1"), "text/plain; charset=utf-8", "größer"),
        ("Tür".encode("latin-1"), "text/plain; charset=utf-8", "Tür"),
        ("a naïve café, 5 €".encode("cp1252"), "text/plain", "a naïve café, 5 €"),
        ("größer – “so”".encode("cp1252"), "text/plain; charset=ISO-8859-1", "größer – “so”"),
        ("größer".encode("utf-16"), "text/plain", "größer"),
        ("größer".encode("utf-16-le"), "text/plain; charset=UTF-16LE", "größer"),
        ("größer".encode("utf-8-sig"), 'text/plain; charset="latin1"', "größer"),
        ("größer".encode(), "text/plain; charset=no-such", "größer"),
        ("größer".encode(), "text/plain; charset=unicode_escape", "größer"),
        ("größer".encode(), "text/plain; charset=rot13", "größer"),
        ("日本語のテキストです".encode("shift_jis"), "text/plain; charset=Shift_JIS", "日本語のテキストです"),
        ("日本語".encode("iso-2022-jp"), "text/plain; charset=ISO-2022-JP", "日本語"),
        (
            "Съешь же ещё этих мягких булок".encode("cp1251"),
            "text/plain; charset=windows-1251",
            "Съешь же ещё этих мягких булок",
        ),
    ],
)
def test_texts_as_they_are(body: bytes, content_type: str, expected: str, web: WebServer, fetch: Fetch) -> None:
    web.routes["/page"] = Answer(body, 200, {"Content-Type": content_type} if content_type else {})
    outcome = fetch()
    assert isinstance(outcome, Content), outcome
    assert outcome.text == expected


PARAGRAPH = "Über die Öffnung der Tür: Größe und Maß sind zu prüfen, bevor sie ausgehängt und geändert wird. " * 3


@pytest.mark.parametrize(
    ("encoding", "content_type", "head"),
    [
        ("utf-8", "text/html", ""),
        ("utf-8", "text/html; charset=iso-8859-1", ""),
        ("utf-8", "text/html; charset=windows-1252", '<meta charset="iso-8859-1">'),
        ("iso-8859-1", "text/html", '<meta charset="iso-8859-1">'),
        ("iso-8859-1", "text/html", '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1">'),
        ("iso-8859-1", "text/html; charset=utf-8", '<meta charset="utf-8">'),
        ("iso-8859-1", "text/html; charset=utf-8", '<meta charset="iso-8859-1">'),
        ("iso-8859-1", "text/html; charset=ISO-8859-1", ""),
        ("cp1252", "text/html", ""),
        ("utf-16", "text/html", ""),
        ("utf-8", "application/xhtml+xml", ""),
        ("utf-8", "application/octet-stream", ""),
        ("utf-8", "", ""),
        ("utf-8", "text/xml", ""),
    ],
)
def test_no_charset_garbles_a_page(encoding: str, content_type: str, head: str, web: WebServer, fetch: Fetch) -> None:
    page = f"<!doctype html><html><head>{head}<title>Tür</title></head><body><p>{PARAGRAPH}</p></body></html>"
    web.routes["/page"] = Answer(page.encode(encoding), 200, {"Content-Type": content_type} if content_type else {})
    outcome = fetch()
    assert isinstance(outcome, Content), outcome
    assert outcome.title == "Tür"
    assert PARAGRAPH.strip() in outcome.text


@pytest.mark.parametrize(
    "page",
    [
        "<p>Short.</p>",
        "<html><body>Short.</body></html>",
        '<?xml version="1.0" encoding="iso-8859-1"?><html xmlns="http://www.w3.org/1999/xhtml"><body>Short.</body></html>',
        "<html><body><div><div><span>Short.</span></div></div></body>",
        "<body><nav>Short.</nav></body>",
        "<form><label>Short.</label></form>",
        "\ufeff<html><p>Short.",
    ],
)
def test_a_page_of_few_words_has_them(page: str, web: WebServer, fetch: Fetch) -> None:
    """What finds a page's main text finds none in some of these."""
    web.routes["/page"] = Answer.html(page)
    outcome = fetch()
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "Short."


@pytest.mark.parametrize(
    "page",
    [
        "<div>" * 50_000 + "deep" + "</div>" * 50_000,
        "<b>" * 20_000 + "deep",
        "<table><tr><td>" * 3_000 + "deep",
        "<ul><li>" * 3_000 + "deep",
        "<p>deep</p>" + "<!--" * 100_000,
        "<p>deep</p>" + "&" * 500_000,
        "<p>deep" + "<p " + 'a="b" ' * 50_000,
        "<p>deep</p>\0<p>\0</p>",
        "<p>deep</p>" + "<a href='x'>y</a>" * 20_000,
    ],
    ids=["divs", "bolds", "tables", "lists", "comments", "ampersands", "attributes", "NULs", "links"],
)
def test_a_page_that_is_made_to_break_parsers_breaks_nothing(page: str, web: WebServer, fetch: Fetch) -> None:
    web.routes["/page"] = Answer.html(page)
    started = time.monotonic()
    outcome = fetch()
    assert time.monotonic() - started < 10
    if isinstance(outcome, Content):
        assert "\0" not in outcome.text
    else:
        assert isinstance(outcome, Failed)
        assert "\n" not in outcome.reason


@pytest.mark.parametrize("content_type", ["image/png", "application/zip", "video/mp4", "font/woff2"])
def test_what_is_no_text_is_a_failure(content_type: str, web: WebServer, fetch: Fetch) -> None:
    web.routes["/page"] = Answer(b"\x89PNG\r\n\x1a\n\0\0", 200, {"Content-Type": content_type})
    outcome = fetch()
    assert outcome == Failed(f"127.0.0.1 answers, but {content_type} is not readable text")


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "", "application/json"])
def test_bytes_that_are_said_to_be_text_are_a_failure(content_type: str, web: WebServer, fetch: Fetch) -> None:
    body = bytes(range(256)) * 40
    web.routes["/page"] = Answer(body, 200, {"Content-Type": content_type} if content_type else {})
    outcome = fetch()
    assert isinstance(outcome, Failed)
    assert "is not readable text" in outcome.reason


@pytest.mark.parametrize("body", [b"", b"   \n ", b"\0\0", b"<html><title>Only this</title><body></body></html>"])
def test_nothing_to_read_is_a_failure(body: bytes, web: WebServer, fetch: Fetch) -> None:
    """An empty answer is a fault more often than an edit, and would take the document out of every search."""
    web.routes["/page"] = Answer(body, 200, {"Content-Type": "text/html" if body[:1] == b"<" else "text/plain"})
    outcome = fetch()
    assert isinstance(outcome, Failed)
    assert "text" in outcome.reason


def pdf(*pages: str, title: str | None = None, password: str | None = None) -> bytes:
    """A PDF with a line of text on each page."""
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(300, 300)
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode() if text else b"")
        page[NameObject("/Contents")] = writer._add_object(stream)
    if title:
        writer.add_metadata({"/Title": title})
    if password is not None:
        writer.encrypt(user_password=password, owner_password="owner", algorithm="RC4-128")
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize("content_type", ["application/pdf", "application/octet-stream", "text/html", ""])
def test_a_pdf_is_read_page_by_page(content_type: str, web: WebServer, fetch: Fetch) -> None:
    body = pdf("The first page", "", "The third page", title="A report", password="" if content_type else None)
    web.routes["/page"] = Answer(body, 200, {"Content-Type": content_type} if content_type else {})
    outcome = fetch()
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "The first page\n\nThe third page"
    assert outcome.title == "A report"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (pdf("secret", password="word"), "encrypted with a password"),
        (pdf("", ""), "the PDF has no text"),
        (pdf("text")[:200], "broken"),
        (b"%PDF-1.7\n" + b"\xff" * 1000, "broken"),
        (b"no PDF", "not a PDF"),
        (b"", "not a PDF"),
    ],
    ids=["encrypted", "scanned", "cut", "noise", "other", "empty"],
)
def test_a_pdf_that_cannot_be_read(body: bytes, expected: str, web: WebServer, fetch: Fetch) -> None:
    web.routes["/page"] = Answer(body, 200, {"Content-Type": "application/pdf"})
    outcome = fetch()
    assert isinstance(outcome, Failed)
    assert expected in outcome.reason
    assert "\n" not in outcome.reason


def test_a_pdf_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    body = pdf("one", "two", "three")
    ticks = iter([0.0, 1.0, 1000.0])
    with pytest.raises(NotReadable, match="within 120 s"):
        extract(body, "application/pdf", "", monotonic=lambda: next(ticks))
    monkeypatch.setattr(extraction, "MAX_PAGES", 2)
    with pytest.raises(NotReadable, match="has 3 pages, more than 2"):
        extract(body, "application/pdf", "")
    monkeypatch.setattr(extraction, "MAX_CHARACTERS", 2)
    with pytest.raises(NotReadable, match="more than 2"):
        extract(b"three", "text/plain", "")


def test_what_no_database_takes_is_taken_out() -> None:
    assert clean("a\0b") == "ab"
    assert clean("\ud83d\ude00 \ud800 ü") == "😀 \ufffd ü"
    clean(decode(bytes(range(256)) * 3, "utf-16")).encode()
