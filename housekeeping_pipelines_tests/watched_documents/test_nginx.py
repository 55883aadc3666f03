"""Links to a documentation tree that nginx serves: its own validators, redirects, compression, limits and refusals."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from housekeeping_pipelines.resources.fetching import Fetcher, FetchPolicy
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Outcome, State, Unchanged
from housekeeping_pipelines.watched_documents.sources.link import LinkSource
from housekeeping_pipelines.watched_documents.sources.references import parse_reference
from housekeeping_pipelines_tests.watched_documents.test_link import pdf

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx-light)")

CONFIG = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    types {{
        text/html html;
        text/markdown md;
        text/plain txt;
        application/pdf pdf;
    }}
    charset utf-8;
    gzip on;
    gzip_min_length 1;
    gzip_types text/markdown text/plain;
    limit_req_zone $binary_remote_addr zone=few:1m rate=1r/m;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/site;
        location = /old.html {{ return 301 /guide/install.html; }}
        location = /withdrawn.html {{ return 410; }}
        location = /busy.html {{ add_header Retry-After 120 always; return 503; }}
        location = /slow.txt {{ gzip off; limit_rate 100k; }}
        location = /limited.md {{ limit_req zone=few; limit_req_status 429; }}
        location /private/ {{ auth_basic "Staff"; auth_basic_user_file {folder}/accounts; }}
    }}
}}
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title} &mdash; The Manual</title>
<script>window.tracker = "hidden-script";</script></head><body>
<header><a href="/">The Manual</a><input type="search" placeholder="Search the docs"></header>
<nav class="sidebar"><ul><li><a href="/">Welcome</a></li><li><a href="/guide/">All guides of the sidebar</a></li>
<li><a href="/guide/install.html">Installation</a></li></ul></nav>
<main><article><h1>{title}</h1>{body}</article></main>
<aside>On this page</aside><footer>Copyright of the footer</footer></body></html>
"""
INSTALL = """<p>The server runs on every machine that has four gigabytes of memory, and on most that have two.</p>
<h2>On Debian</h2><ol><li>Add the key of the archive to the list of those that are trusted.</li>
<li>Install the package, which brings the service along, and starts it when the machine does.</li></ol>
<pre><code>apt-get install the-server</code></pre>
<table><thead><tr><th>Port</th><th>For</th></tr></thead>
<tbody><tr><td>8080</td><td>größere Dateien</td></tr></tbody></table>
"""
SLOW = "".join(f"Line {number} of a long text.\n" for number in range(4000))

Fetch = Callable[..., Outcome]


@dataclass(frozen=True)
class Site:
    folder: Path
    url: str

    def write(self, path: str, content: str | bytes, seconds: int = 1_760_000_000) -> None:
        """A file with the time of its last change, which nginx makes its validators from."""
        file = self.folder / "site" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        os.utime(file, (seconds, seconds))

    def statuses(self, path: str) -> list[int]:
        """What was answered to the requests for an address so far."""
        # nginx, which is one process here, writes a line when it has answered, and before it reads another request.
        with closing(HTTPConnection(urlsplit(self.url).netloc)) as another:
            another.request("GET", "/another")
            another.getresponse().read()
        lines = (self.folder / "access.log").read_text().splitlines()
        return [int(line.split('"')[2].split()[0]) for line in lines if f'"GET {path} ' in line]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Site(folder, f"http://127.0.0.1:{port}")
    made.write("index.html", PAGE.format(title="Welcome", body="<p>Everything about the server is in this manual.</p>"))
    made.write(
        "guide/index.html", PAGE.format(title="Guides", body="<p>Begin with the installation of the server.</p>")
    )
    made.write("guide/install.html", PAGE.format(title="Installation", body=INSTALL))
    made.write("CHANGES.md", "# Changes\n\n- The *second* version, größer than the first.\n")
    made.write("license.txt", "You may use it as you like.\n")
    made.write("manual.pdf", pdf("The printed manual", "Its second page", title="Manual"))
    made.write("slow.txt", SLOW)
    made.write("limited.md", "# Limited\n")
    made.write("private/plans.md", "# Plans\n")
    (folder / "accounts").write_text("ana:{PLAIN}secret\n")
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port))
    command = [str(NGINX), "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _wait_for(server, port)
        yield made
    finally:
        server.terminate()
        server.wait(10)


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        try:
            pytest.fail(f"nginx ended with {server.wait(0.02)}")
        except subprocess.TimeoutExpired:
            continue
    pytest.fail("nginx did not start")


@pytest.fixture(scope="module")
def fetch(site: Site) -> Iterator[Fetch]:
    fetcher = Fetcher(FetchPolicy(frozenset({"127.0.0.1"}), timeout_seconds=10.0))
    source = LinkSource(fetcher)

    def call(path: str, previous: State | None = None) -> Outcome:
        return source.fetch(parse_reference(f"link://{site.url}{path}"), previous)

    yield call
    fetcher.close()


def test_a_page_is_its_text_without_what_is_around_it(site: Site, fetch: Fetch) -> None:
    outcome = fetch("/guide/install.html")
    assert isinstance(outcome, Content), outcome
    assert outcome.title == "Installation — The Manual"
    for expected in ("# Installation", "## On Debian", "four gigabytes", "apt-get install", "größere Dateien"):
        assert expected in outcome.text
    for unexpected in ("sidebar", "footer", "hidden-script", "Search the docs"):
        assert unexpected not in outcome.text
    # It came compressed.
    assert outcome.bytes < (site.folder / "site/guide/install.html").stat().st_size


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/CHANGES.md", "# Changes\n\n- The *second* version, größer than the first."),
        ("/license.txt", "You may use it as you like."),
        ("/manual.pdf", "The printed manual\n\nIts second page"),
    ],
)
def test_files_are_read_as_what_they_are(path: str, expected: str, fetch: Fetch) -> None:
    outcome = fetch(path)
    assert isinstance(outcome, Content), outcome
    assert outcome.text == expected


@pytest.mark.parametrize("path", ["/", "/guide/", "/guide/install.html", "/CHANGES.md", "/license.txt", "/manual.pdf"])
def test_what_did_not_change_is_answered_by_304_and_no_body(path: str, site: Site, fetch: Fetch) -> None:
    first = fetch(path)
    assert isinstance(first, Content), first
    assert first.state["last_modified"] == "Thu, 09 Oct 2025 08:53:20 GMT"
    known: State = first.state
    for _ in range(2):
        again = fetch(path, known)
        assert isinstance(again, Unchanged), again
        assert again.bytes == 0
        known = again.state or known
    # Of what it compressed, nginx gives a weak validator first, and the strong one with a 304.
    assert fetch(path, known) == Unchanged(None, 0)
    assert site.statuses(path)[-4:] == [200, 304, 304, 304]


@pytest.mark.parametrize("kept", ["etag", "last_modified"])
def test_either_validator_is_enough(kept: str, site: Site, fetch: Fetch) -> None:
    first = fetch("/CHANGES.md")
    assert isinstance(first, Content)
    assert isinstance(fetch("/CHANGES.md", {kept: first.state[kept]}), Unchanged)
    assert site.statuses("/CHANGES.md")[-1] == 304


def test_a_file_that_changes_and_goes(site: Site, fetch: Fetch) -> None:
    site.write("draft.md", "# Draft\n\nOne.\n")
    first = fetch("/draft.md")
    assert isinstance(first, Content)
    # As large as before.
    site.write("draft.md", "# Draft\n\nTwo.\n", 1_770_000_000)
    second = fetch("/draft.md", first.state)
    assert isinstance(second, Content)
    assert second.text == "# Draft\n\nTwo."
    # Touched, and still the same text.
    site.write("draft.md", "# Draft\n\nTwo.\n", 1_770_000_001)
    third = fetch("/draft.md", second.state)
    assert isinstance(third, Content)
    assert third.text == second.text
    (site.folder / "site/draft.md").unlink()
    gone = fetch("/draft.md", third.state)
    assert gone == Gone("127.0.0.1 answers 404")


@pytest.mark.parametrize(("path", "there"), [("/guide", "/guide/"), ("/old.html", "/guide/install.html")])
def test_a_redirect_is_followed_and_noted(path: str, there: str, site: Site, fetch: Fetch) -> None:
    outcome = fetch(path)
    assert isinstance(outcome, Content), outcome
    assert outcome.state["url"] == f"{site.url}{there}"
    assert isinstance(fetch(path, outcome.state), Unchanged)
    assert site.statuses(path)[-2:] == [301, 301]
    assert site.statuses(there)[-2:] == [200, 304]


def test_what_was_withdrawn_is_gone(fetch: Fetch) -> None:
    assert fetch("/withdrawn.html") == Gone("127.0.0.1 answers 410")
    assert fetch("/nothing.html") == Gone("127.0.0.1 answers 404")


def test_a_slow_server_is_waited_for(fetch: Fetch) -> None:
    outcome = fetch("/slow.txt")
    assert isinstance(outcome, Content), outcome
    assert outcome.text == SLOW.strip()
    assert outcome.bytes == len(SLOW)


def test_what_wants_a_password_is_a_failure_and_not_gone(fetch: Fetch) -> None:
    assert fetch("/private/plans.md") == Failed("127.0.0.1 answers 401")


def test_a_server_that_is_busy_or_asked_too_often_is_a_failure(fetch: Fetch) -> None:
    busy = fetch("/busy.html")
    assert isinstance(busy, Failed)
    assert busy.retry_after is not None
    assert busy.retry_after.total_seconds() == 120
    assert isinstance(fetch("/limited.md"), Content)
    assert fetch("/limited.md") == Failed("127.0.0.1 answers 429")
