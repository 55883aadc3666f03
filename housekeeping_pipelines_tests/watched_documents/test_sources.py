"""Which source reads a reference, and what is no reference."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Outcome
from housekeeping_pipelines.watched_documents.sources.opening import BUILT_IN, COLLECTED, Sources
from housekeeping_pipelines.watched_documents.sources.references import parse_reference
from housekeeping_pipelines_tests.web_server import Answer, WebServer

COLLECT = "/ext/resync-source-document"
PAGE = "<html><title>A page</title><body><main><p>The text of the page.</p></main></body></html>"


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        server.routes |= {
            "/page": Answer.html(PAGE),
            COLLECT: Answer.json({"success": True, "content": "What was collected.", "reason": None}),
        }
        yield server


def opened(tmp_path: Path, **variables: str) -> Sources:
    return Sources(load_settings(tmp_path, {"FETCH_ALLOWED_HOSTS": "127.0.0.1", **variables}))


def fetch(sources: Sources, reference: str) -> Outcome:
    outcome = sources.fetch(parse_reference(reference), None)
    sources.close()
    return outcome


def test_a_link_is_fetched_by_the_fetcher_of_the_settings(web: WebServer, tmp_path: Path) -> None:
    outcome = fetch(opened(tmp_path), f"link://{web.url}/page")
    assert isinstance(outcome, Content)
    assert "The text of the page." in outcome.text
    refused = fetch(opened(tmp_path, FETCH_ALLOWED_HOSTS=""), f"link://{web.url}/page")
    assert isinstance(refused, Failed)
    assert "FETCH_ALLOWED_HOSTS" in refused.reason
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    ("reference", "variables", "path", "header"),
    [
        (
            "gitlab://{url}/lab/group/name?path=a.md",
            {"GITLAB_URL": "{url}/lab", "GITLAB_TOKEN": "the-token"},
            "/lab/api/v4/projects/group%2Fname/repository/files/a.md",
            ("PRIVATE-TOKEN", "the-token"),
        ),
        (
            "confluence://{url}/wiki/spaces/DOC/pages/12",
            {"CONFLUENCE_URL": "{url}/wiki", "CONFLUENCE_USERNAME": "ana", "CONFLUENCE_TOKEN": "the-token"},
            "/wiki/rest/api/content/12",
            ("Authorization", "Basic YW5hOnRoZS10b2tlbg=="),
        ),
        (
            "confluence://{url}/pages/viewpage.action?pageId=12",
            {"CONFLUENCE_URL": "{url}", "CONFLUENCE_TOKEN": "the-token"},
            "/rest/api/content/12",
            ("Authorization", "Bearer the-token"),
        ),
        (
            "drupalwiki://{url}?pageId=12",
            {"DRUPALWIKI_URL": "{url}", "DRUPALWIKI_TOKEN": "the-token"},
            "/api/rest/scope/api/page/12",
            ("Authorization", "Bearer the-token"),
        ),
    ],
)
def test_a_scheme_is_asked_in_its_own_way_with_its_own_credentials(
    reference: str, variables: dict[str, str], path: str, header: tuple[str, str], web: WebServer, tmp_path: Path
) -> None:
    sources = opened(tmp_path, **{name: value.format(url=web.url) for name, value in variables.items()})
    fetch(sources, reference.format(url=web.url))
    assert web.requests[0].path == path
    assert web.requests[0].headers[header[0]] == header[1]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("github://https://example.com/owner/name", "does not name a repository on GitHub"),
        ("youtube://https://example.com/watch?v=abcdefghijk", "does not name a video of YouTube"),
        ("gitlab://https://example.com/name", "does not name a project on a GitLab"),
        ("confluence://https://example.com/", "does not name a page or a space"),
        ("drupalwiki://https://example.com/?pageId=1", "set DRUPALWIKI_URL"),
        ("link://ftp://example.com/", "ftp:// is not fetched"),
        ("LINK://ftp://example.com/", "ftp:// is not fetched"),
    ],
)
def test_each_scheme_has_its_source(reference: str, expected: str, tmp_path: Path) -> None:
    outcome = fetch(opened(tmp_path), reference)
    assert isinstance(outcome, Failed)
    assert expected in outcome.reason


def test_a_source_is_opened_once_by_however_many_threads(web: WebServer, tmp_path: Path) -> None:
    sources = opened(tmp_path)
    reference = parse_reference(f"link://{web.url}/page")
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: sources.fetch(reference, None), range(24)))
    sources.close()
    assert all(isinstance(outcome, Content) for outcome in outcomes)
    assert len({id(source) for source in sources._opened.values()}) == 1
    # What is closed may be used again.
    assert isinstance(sources.fetch(reference, None), Content)
    sources.close()


@pytest.mark.parametrize("scheme", COLLECTED)
def test_a_collector_takes_the_place_of_every_source(scheme: str, web: WebServer, tmp_path: Path) -> None:
    sources = opened(tmp_path, COLLECTOR_URL=web.url)
    assert set(sources.schemes()) == set(COLLECTED)
    outcome = fetch(sources, f"{scheme}://https://docs.example/page")
    assert isinstance(outcome, Content)
    assert outcome.text == "What was collected."
    assert web.requests[0].json()["type"] == scheme


def test_what_is_encrypted_for_a_collector_is_for_it_alone(web: WebServer, tmp_path: Path) -> None:
    for scheme in BUILT_IN:
        reference = parse_reference(f"{scheme}://{web.url}/page?payload=AbC%3D")
        sources = opened(tmp_path)
        for call in (lambda: sources.check(reference), lambda: sources.fetch(reference, None)):  # noqa: B023
            with pytest.raises(ConfigurationError) as caught:
                call()
            assert "encrypted, and only a collector" in caught.value.message
            assert "COLLECTOR_URL" in str(caught.value.hint)
    assert not web.requests
    # Its kind of source may be open already.
    sources = opened(tmp_path)
    assert isinstance(sources.fetch(parse_reference(f"link://{web.url}/page"), None), Content)
    with pytest.raises(ConfigurationError):
        sources.fetch(parse_reference(f"link://{web.url}/page?payload=AbC%3D"), None)
    sources.close()
    encrypted = f"github://{web.url}/owner/name?payload=AbC%3D"
    assert isinstance(fetch(opened(tmp_path, COLLECTOR_URL=web.url), encrypted), Content)
    assert web.requests[-1].json()["options"] == {"chunkSource": encrypted}


@pytest.mark.parametrize("scheme", ["gitea", "paperless-ngx", "file", "mailto"])
def test_a_scheme_without_a_source_is_refused_with_those_that_there_are(scheme: str, tmp_path: Path) -> None:
    if not scheme.isidentifier():
        with pytest.raises(ConfigurationError):
            parse_reference(f"{scheme}://example.com/")
        return
    with pytest.raises(ConfigurationError) as caught:
        fetch(opened(tmp_path), f"{scheme}://example.com/")
    assert f"no source for {scheme}://" in caught.value.message
    assert caught.value.hint == "the sources are confluence, drupalwiki, github, gitlab, link, youtube"


def package(folder: Path, name: str, scheme: str, code: str) -> None:
    """A package as an installer leaves it: a module, and a folder that names its entry points."""
    (folder / f"{name}.py").write_text(textwrap.dedent(code))
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[housekeeping_pipelines.sources]\n{scheme} = {name}:Source\n")


NOTES = """
    from housekeeping_pipelines.watched_documents.sources import Content

    class Source:
        closed = 0

        def __init__(self, fetcher):
            self.fetcher = fetcher

        def fetch(self, reference, previous):
            body = self.fetcher.get(f"http://{reference.address}").body.decode()
            return Content(f"{reference.path}: {body}", "A note", {"seen": True})

        def close(self):
            Source.closed += 1
"""


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def test_a_package_adds_a_source(site_packages: Path, web: WebServer, tmp_path: Path) -> None:
    package(site_packages, "their_notes", "notes", NOTES)
    web.routes["/one"] = Answer("The first note.")
    sources = opened(tmp_path)
    assert sources.schemes() == ("confluence", "drupalwiki", "github", "gitlab", "link", "notes", "youtube")
    reference = parse_reference(f"notes://127.0.0.1:{web.port}/one")
    sources.check(reference)
    outcome = sources.fetch(reference, None)
    assert isinstance(outcome, Content)
    assert outcome.text.endswith("The first note.")
    sources.close()
    assert sys.modules["their_notes"].Source.closed == 1


@pytest.mark.parametrize("variables", [{}, {"COLLECTOR_URL": "http://127.0.0.1:1"}])
def test_a_package_takes_the_place_of_a_source(
    variables: dict[str, str], site_packages: Path, web: WebServer, tmp_path: Path
) -> None:
    name = f"their_links_{len(variables)}"
    package(site_packages, name, "link", NOTES)
    web.routes["/one"] = Answer("The first note.")
    outcome = fetch(opened(tmp_path, **variables), f"link://127.0.0.1:{web.port}/one")
    assert isinstance(outcome, Content)
    assert outcome.title == "A note"


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("their_wreck_1", "import no_such_module_at_all", "ModuleNotFoundError"),
        ("their_wreck_2", "class Other: pass", "AttributeError"),
        ("their_wreck_3", "def Source(): pass", "TypeError"),
    ],
)
def test_a_package_that_is_broken_is_named_and_the_others_work(
    name: str, code: str, expected: str, site_packages: Path, web: WebServer, tmp_path: Path
) -> None:
    package(site_packages, name, "wreck", code)
    sources = opened(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        sources.fetch(parse_reference("wreck://one"), None)
    assert f"{name}:Source" in caught.value.message
    assert expected in caught.value.message
    assert isinstance(fetch(sources, f"link://{web.url}/page"), Content)


def test_a_library_that_is_not_installed_is_named_with_what_installs_it(tmp_path: Path) -> None:
    """In a process of its own, which does without them."""
    code = """
        import sys
        from pathlib import Path
        from housekeeping_pipelines.errors import ConfigurationError
        from housekeeping_pipelines.settings import load_settings
        from housekeeping_pipelines.watched_documents.sources.opening import Sources
        from housekeeping_pipelines.watched_documents.sources.references import parse_reference

        class Without:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("github", "gitlab", "atlassian", "youtube_transcript_api"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Without())
        sources = Sources(load_settings(Path(), {}))
        for reference in (
            "github://https://github.com/owner/name",
            "gitlab://http://127.0.0.1:1/owner/name",
            "confluence://http://127.0.0.1:1/pages/12",
            "youtube://abcdefghijk",
            "link://http://127.0.0.1:1/",
        ):
            try:
                print(sources.fetch(parse_reference(reference), None))
            except ConfigurationError as error:
                print(error.one_line)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stderr
    for line, extra in zip(lines, ("github", "gitlab", "confluence", "youtube"), strict=False):
        assert f"pip install 'housekeeping-pipelines[{extra}]'" in line
    assert "Failed" in lines[4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("link://https://example.com/page?a=1#b", ("link", "https://example.com/page?a=1#b", "example.com", "/page")),
        ("  Link://HTTPS://Example.COM:8443/Page\n", ("link", "HTTPS://Example.COM:8443/Page", "example.com", "/Page")),
        ("youtube://abcdefghijk", ("youtube", "abcdefghijk", "", "abcdefghijk")),
        ("github://https://github.com/o/n?branch=a%2Fb&path=d%20e", ("github", None, "github.com", "/o/n")),
        ("link://https://[2001:db8::1]/x", ("link", "https://[2001:db8::1]/x", "2001:db8::1", "/x")),
    ],
)
def test_a_reference_is_taken_apart(text: str, expected: tuple[str, Any, str, str]) -> None:
    reference = parse_reference(text)
    scheme, address, host, path = expected
    assert (reference.scheme, reference.host, reference.path) == (scheme, host, path)
    assert reference.text == text.strip()
    assert address is None or reference.address == address
    if scheme == "github":
        assert reference.parameters == {"branch": "a/b", "path": "d e"}
        assert reference.site == "https://github.com"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "link",
        "link:https://example.com",
        "link://",
        "://https://example.com",
        "li nk://https://example.com",
        "link-2://https://example.com",
        "link://https://user:password@example.com/",
        "link://https://user@example.com/",
        "link://https://:password@example.com/",
        "link://https://example.com/a b",
        "link://https://example.com/a\tb",
        "link://https://example.com/a\nHost: evil",
        "link://https://example.com/a\u00a0b",
        "link://https://example.com/\u2028x",
        "link://https://[::1/",
        "link://https://example.com:99999/",
        "link://https://example.com:port/",
        "http://example.com/",
        "https://example.com/page",
        "HTTPS://example.com/page",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_reference(text)
    assert "\n" not in caught.value.message
    if text.lower().startswith("http"):
        assert caught.value.hint == f"for a web page: link://{text}"
    else:
        assert "link://https://example.com/page" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["link://https://user:the-secret@example.com/", "link://the-secret:x@example.com/a b"])
def test_a_password_in_a_reference_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_reference(text)
    assert "the-secret" not in caught.value.one_line
