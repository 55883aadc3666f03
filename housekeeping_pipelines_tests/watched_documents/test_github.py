"""GitHub's REST interface, as a server on loopback answers it, asked by PyGithub."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from housekeeping_pipelines.resources.fetching import Fetcher, FetchPolicy
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Outcome, State, Unchanged
from housekeeping_pipelines.watched_documents.sources.github import GitHubSource
from housekeeping_pipelines.watched_documents.sources.references import parse_reference
from housekeeping_pipelines.watched_documents.sources.repositories import MAX_FILE_BYTES, MAX_FILES
from housekeeping_pipelines_tests.web_server import Answer, Asked, Raw, WebServer

TOKEN = "ghp_a-secret-token"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LIMITS = {
    "X-RateLimit-Limit": "5000",
    "X-RateLimit-Remaining": "4321",
    "X-RateLimit-Reset": str(int(NOW.timestamp()) + 900),
}
NOT_FOUND = {"message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404"}


def blob_sha(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Hub:
    """Repositories by their names: the files of each branch; a ref `HEAD` is the branch `main`."""

    web: WebServer
    name: str = "owner/name"
    largest: int = 100_000
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def put(self, branch: str = "main", **files: str | bytes) -> None:
        self.commit({path: text.encode() if isinstance(text, str) else text for path, text in files.items()}, branch)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> None:
        self.trees[branch] = files
        prefix = f"/repos/{self.name}/git"
        for ref in (branch, "HEAD") if branch == "main" else (branch,):
            self.web.routes[f"{prefix}/trees/{ref.replace('/', '%2F')}"] = self._tree_at(files)
        for content in files.values():
            self.web.routes[f"{prefix}/blobs/{blob_sha(content)}"] = self._blob(content)

    def _tree_at(self, files: dict[str, bytes]) -> Callable[[Asked], Answer]:
        def answer(asked: Asked) -> Answer:
            if asked.query.get("recursive") == "1":
                entries = self._entries(files)
                tree = {"tree": entries[: self.largest], "truncated": len(entries) > self.largest}
            else:
                tree = {"tree": [each for each in self._entries(files) if "/" not in each["path"]], "truncated": False}
            return self._answer(asked, {"sha": "0" * 40, "url": f"{self.web.url}{asked.path}", **tree})

        return answer

    def _entries(self, files: dict[str, bytes]) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        folders = {path.rpartition("/")[0] for path in files} - {""}
        for folder in sorted(folders):
            below = {
                path.removeprefix(f"{folder}/"): text for path, text in files.items() if path.startswith(f"{folder}/")
            }
            sha = hashlib.sha1(repr(below).encode()).hexdigest()
            self.web.routes[f"/repos/{self.name}/git/trees/{sha}"] = self._tree_at(below)
            entries.append({"path": folder, "mode": "040000", "type": "tree", "sha": sha})
        for path, content in sorted(files.items(), reverse=True):
            entry = {"path": path, "mode": "100644", "type": "blob", "sha": blob_sha(content), "size": len(content)}
            entries.append(entry)
        return [*entries, {"path": "module", "mode": "160000", "type": "commit", "sha": "1" * 40}]

    def _blob(self, content: bytes) -> Callable[[Asked], Answer]:
        # As GitHub does, in lines of 60 characters.
        text = base64.encodebytes(content).decode()
        value = {"sha": blob_sha(content), "size": len(content), "content": text, "encoding": "base64"}
        return lambda asked: self._answer(asked, value)

    def _answer(self, asked: Asked, value: Any) -> Answer:
        if asked.headers["Authorization"] not in (None, f"token {TOKEN}"):
            return Answer.json({"message": "Bad credentials", "status": "401"}, 401, **LIMITS)
        return Answer.json(value, 200, **LIMITS)


@pytest.fixture
def hub(web: WebServer) -> Hub:
    return Hub(web)


@pytest.fixture
def source(web: WebServer, fetcher: Fetcher) -> GitHubSource:
    return GitHubSource(fetcher.session, token=TOKEN, api_url=web.url, clock=lambda: NOW)


def ask(source: GitHubSource, rest: str = "/owner/name", previous: State | None = None) -> Outcome:
    return source.fetch(parse_reference(f"github://https://github.com{rest}"), previous)


DOCS = {
    "README.md": b"# The project\n",
    "docs/install.md": b"Run it.\n",
    "docs/deep/more.md": b"More of it.\n",
    "docs2/other.md": b"Other.\n",
}


@pytest.mark.parametrize(
    ("rest", "paths"),
    [
        ("/owner/name", ["README.md", "docs/deep/more.md", "docs/install.md", "docs2/other.md"]),
        ("/owner/name/", ["README.md", "docs/deep/more.md", "docs/install.md", "docs2/other.md"]),
        ("/owner/name.git?branch=main", ["README.md", "docs/deep/more.md", "docs/install.md", "docs2/other.md"]),
        ("/owner/name/tree/main", ["README.md", "docs/deep/more.md", "docs/install.md", "docs2/other.md"]),
        ("/owner/name/tree/main/docs", ["docs/deep/more.md", "docs/install.md"]),
        ("/owner/name?branch=main&path=docs", ["docs/deep/more.md", "docs/install.md"]),
        ("/owner/name?path=/docs/", ["docs/deep/more.md", "docs/install.md"]),
    ],
)
def test_a_folder_or_a_whole_repository_is_its_files_in_order(
    rest: str, paths: list[str], hub: Hub, source: GitHubSource
) -> None:
    hub.commit(DOCS)
    outcome = ask(source, rest)
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "\n\n".join(f"# {path}\n\n{DOCS[path].decode().strip()}" for path in paths)
    assert outcome.title == ("docs" if "docs" in rest else "owner/name")
    assert outcome.bytes > 0
    assert len(hub.web.requests) == 1 + len(paths)


@pytest.mark.parametrize(
    "rest",
    [
        "/owner/name/blob/main/docs/install.md",
        "/owner/name/blob/main/docs/install.md#L3",
        "/owner/name/raw/main/docs/install.md",
        "/owner/name?path=docs/install.md",
        "/owner/name/blob/other/README.md?branch=main&path=docs/install.md",
    ],
)
def test_a_file_is_its_text_as_it_is(rest: str, hub: Hub, source: GitHubSource) -> None:
    hub.commit(DOCS)
    outcome = ask(source, rest)
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "Run it.\n"
    assert outcome.title == "docs/install.md"
    assert len(hub.web.requests) == 2


def test_one_request_says_that_nothing_changed_and_the_hash_of_the_content_decides(
    hub: Hub, source: GitHubSource
) -> None:
    hub.commit(DOCS)
    first = ask(source, "/owner/name/tree/main/docs")
    assert isinstance(first, Content)
    hub.web.requests.clear()
    again = ask(source, "/owner/name/tree/main/docs", first.state)
    assert isinstance(again, Unchanged)
    assert again.bytes > 0
    (asked,) = hub.web.requests
    assert (asked.method, asked.path, asked.query) == ("GET", "/repos/owner/name/git/trees/main", {"recursive": "1"})
    assert asked.headers["Authorization"] == f"token {TOKEN}"
    assert "housekeeping-pipelines" in asked.headers["User-Agent"]
    # Elsewhere in the repository.
    hub.commit({**DOCS, "docs2/other.md": b"New.\n"})
    assert isinstance(ask(source, "/owner/name/tree/main/docs", first.state), Unchanged)
    changed: list[dict[str, bytes]] = [
        {**DOCS, "docs/install.md": b"Run that.\n"},
        {**DOCS, "docs/added.md": b"Added.\n"},
        {path: text for path, text in DOCS.items() if path != "docs/install.md"},
        {path.replace("install", "setup"): text for path, text in DOCS.items()},
    ]
    for files in changed:
        hub.commit(files)
        outcome = ask(source, "/owner/name/tree/main/docs", first.state)
        assert isinstance(outcome, Content)
        assert outcome.state != first.state


def test_a_branch_is_that_of_the_query_or_of_the_address(hub: Hub, source: GitHubSource) -> None:
    hub.put("main", **{"a.md": "main"})
    hub.put("next", **{"a.md": "next"})
    hub.put("feature/x", **{"a.md": "feature"})
    for rest, text in (
        ("/owner/name?path=a.md", "main"),
        ("/owner/name?path=a.md&branch=next", "next"),
        ("/owner/name?path=a.md&ref=next", "next"),
        ("/owner/name/blob/next/a.md", "next"),
        ("/owner/name/blob/feature%2Fx/a.md", "feature"),
        ("/owner/name?branch=feature/x&path=a.md", "feature"),
    ):
        outcome = ask(source, rest)
        assert isinstance(outcome, Content), (rest, outcome)
        assert outcome.text == text


@pytest.mark.parametrize(
    "rest",
    [
        "/owner/name/blob/main/Gr%C3%B6%C3%9Fe%20und%20Ma%C3%9F/T%C3%BCr%2Bx.md",
        "/owner/name?path=Gr%C3%B6%C3%9Fe%20und%20Ma%C3%9F/T%C3%BCr%2Bx.md",
    ],
)
def test_an_address_as_a_browser_copies_it(rest: str, hub: Hub, source: GitHubSource) -> None:
    hub.put(**{"Größe und Maß/Tür+x.md": "Text"})
    outcome = ask(source, rest)
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "Text"


def test_what_is_no_text_is_left_out_of_a_folder(hub: Hub, source: GitHubSource) -> None:
    large = b"x" * (MAX_FILE_BYTES + 1)
    hub.commit(
        {
            "logo.png": b"\x89PNG\r\n\x1a\n\0\0",
            "large.txt": large,
            "empty.md": b"",
            "latin.txt": "Größe".encode("latin-1"),
            "mark.txt": "Maß".encode("utf-8-sig"),
            "null.txt": b"x" * 9000 + b"\0",
        }
    )
    outcome = ask(source)
    assert isinstance(outcome, Content)
    assert outcome.text == f"# latin.txt\n\nGröße\n\n# mark.txt\n\nMaß\n\n# null.txt\n\n{'x' * 9000}"
    assert f"/repos/owner/name/git/blobs/{blob_sha(large)}" not in hub.web.paths()


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0", b"x" * (MAX_FILE_BYTES + 1), b"", b" \n"])
def test_a_file_that_has_no_text_any_more_is_a_failure_and_not_gone(
    content: bytes, hub: Hub, source: GitHubSource
) -> None:
    hub.commit({"a.md": content, "b.md": b"text"})
    outcome = ask(source, "/owner/name/blob/main/a.md")
    assert isinstance(outcome, Failed)
    assert "has no text there" in outcome.reason


def test_too_many_files_are_refused_before_one_is_read(hub: Hub, source: GitHubSource) -> None:
    hub.commit({f"{number}.md": b"x" for number in range(MAX_FILES + 1)})
    outcome = ask(source)
    assert outcome == Failed(f"owner/name has {MAX_FILES + 1:,} files there, more than {MAX_FILES:,}; add ?path=FOLDER")
    assert len(hub.web.requests) == 1


def test_a_tree_that_is_cut_is_gone_down_to_the_path(hub: Hub, source: GitHubSource) -> None:
    """GitHub lists 100,000 files and no more, and says that it cut the rest."""
    hub.commit({**DOCS, **{f"z/{number}": b"x" for number in range(50)}})
    hub.largest = 10
    whole = ask(source)
    assert whole == Failed("owner/name is too large to be listed; add ?path=FOLDER")
    for path, text in (
        ("docs", "# docs/deep/more.md\n\nMore of it.\n\n# docs/install.md\n\nRun it."),
        ("docs/deep", "# docs/deep/more.md\n\nMore of it."),
        ("docs/install.md", "Run it.\n"),
        ("README.md", "# The project\n"),
    ):
        outcome = ask(source, f"/owner/name?path={path}")
        assert isinstance(outcome, Content), (path, outcome)
        assert outcome.text == text
        assert isinstance(ask(source, f"/owner/name?path={path}", outcome.state), Unchanged)
    for path in ("nothing", "docs/nothing", "README.md/x"):
        assert isinstance(ask(source, f"/owner/name?path={path}"), Gone)
    assert isinstance(ask(source, "/owner/name?path=z"), Failed)


def test_what_is_not_there_is_gone(hub: Hub, source: GitHubSource) -> None:
    hub.commit(DOCS)
    assert ask(source, "/owner/name?path=doc") == Gone("owner/name has no doc")
    hub.web.routes["/repos/owner/name/git/trees/nothing"] = Answer.json(NOT_FOUND, 404, **LIMITS)
    hub.web.routes["/repos/owner/none/git/trees/HEAD"] = Answer.json(NOT_FOUND, 404, **LIMITS)
    for rest in ("/owner/name/tree/nothing", "/owner/none"):
        outcome = ask(source, rest)
        assert isinstance(outcome, Gone)
        # GitHub says so of a private repository that the token may not read, too.
        assert "404" in outcome.reason
        assert "GITHUB_TOKEN" in outcome.reason


def test_a_file_that_goes_while_it_is_read_is_a_failure(hub: Hub, source: GitHubSource) -> None:
    """The repository is there: it was pushed to by force, or is being moved."""
    hub.commit(DOCS)
    hub.web.routes[f"/repos/owner/name/git/blobs/{blob_sha(DOCS['README.md'])}"] = Answer.json(NOT_FOUND, 404)
    outcome = ask(source)
    assert isinstance(outcome, Failed)
    assert "a part that it lists" in outcome.reason


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "Bad credentials"),
        (403, "Resource not accessible by personal access token"),
        (403, "Resource protected by organization SAML enforcement. You must grant your OAuth token access."),
    ],
)
def test_a_token_that_is_not_accepted_is_named(status: int, message: str, hub: Hub, source: GitHubSource) -> None:
    hub.web.routes["/repos/owner/name/git/trees/HEAD"] = Answer.json({"message": message}, status, **LIMITS)
    assert ask(source) == Failed(f"GitHub answers {status}: check GITHUB_TOKEN")


def test_without_a_token_none_is_sent(hub: Hub, fetcher: Fetcher) -> None:
    hub.commit(DOCS)
    source = GitHubSource(fetcher.session, token=None, api_url=hub.web.url)
    assert isinstance(ask(source), Content)
    assert {asked.headers["Authorization"] for asked in hub.web.requests} == {None}


RESET = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW.timestamp()) + 1234)}


@pytest.mark.parametrize(
    ("status", "message", "headers", "wait"),
    [
        (403, "API rate limit exceeded for user ID 1.", {**LIMITS, **RESET}, timedelta(seconds=1234)),
        (429, "API rate limit exceeded for 203.0.113.5.", {**LIMITS, **RESET}, timedelta(seconds=1234)),
        (403, "You have exceeded a secondary rate limit.", {**LIMITS, "Retry-After": "60"}, timedelta(seconds=60)),
        (403, "You have exceeded a secondary rate limit.", LIMITS, timedelta(minutes=1)),
        (429, "Too many requests", {}, timedelta(minutes=1)),
    ],
)
@pytest.mark.parametrize("at", ["tree", "blob"])
def test_a_rate_limit_says_when_to_come_again(
    at: str,
    status: int,
    message: str,
    headers: dict[str, str],
    wait: timedelta,
    hub: Hub,
    source: GitHubSource,
    fetcher: Fetcher,
) -> None:
    hub.commit(DOCS)
    path = "trees/HEAD" if at == "tree" else f"blobs/{blob_sha(DOCS['docs/install.md'])}"
    hub.web.routes[f"/repos/owner/name/git/{path}"] = Answer.json({"message": message}, status, **headers)
    assert ask(source) == Failed(f"GitHub answers {status}, too many requests", wait)
    anonymous = ask(GitHubSource(fetcher.session, token=None, api_url=hub.web.url, clock=lambda: NOW))
    assert isinstance(anonymous, Failed)
    assert anonymous.retry_after == wait
    assert "GITHUB_TOKEN" in anonymous.reason


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_repository_that_was_renamed_is_followed_with_all_of_its_folders(
    status: int, hub: Hub, source: GitHubSource
) -> None:
    """By its number, as GitHub does it."""
    hub.name = "new/name"
    hub.commit(DOCS)

    def moved(asked: Asked) -> Answer:
        rest = asked.path.removeprefix("/repos/owner/name")
        query = "&".join(f"{name}={value}" for name, value in asked.query.items())
        answer = Answer.json(
            {"message": "Moved Permanently"}, status, Location=f"{hub.web.url}/repositories/7{rest}?{query}"
        )
        hub.web.routes[f"/repositories/7{rest}"] = hub.web.routes[f"/repos/new/name{rest}"]
        return answer

    for name in list(hub.web.routes):
        hub.web.routes[name.replace("new/name", "owner/name")] = moved
    outcome = ask(source, "/owner/name?path=docs")
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "# docs/deep/more.md\n\nMore of it.\n\n# docs/install.md\n\nRun it."
    assert isinstance(ask(source, "/owner/name?path=docs", outcome.state), Unchanged)


def test_the_token_does_not_follow_a_redirect_to_another_host(hub: Hub, source: GitHubSource) -> None:
    with WebServer() as other:
        other.routes["/stolen"] = Answer.html("<p>Log in</p>")
        hub.web.routes["/repos/owner/name/git/trees/HEAD"] = Answer.to(f"{other.url}/stolen", 301)
        outcome = ask(source)
        assert isinstance(outcome, Failed)
        assert TOKEN in str(hub.web.requests[0].headers.items())
        assert len(other.requests) == 1
        assert TOKEN not in str(other.requests[0].headers.items())


def test_redirects_without_end_are_a_failure(hub: Hub, source: GitHubSource) -> None:
    hub.web.routes["/repos/owner/name/git/trees/HEAD"] = Answer.to("/repos/owner/name/git/trees/HEAD", 301)
    assert ask(source) == Failed("GitHub redirects to no usable address")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer.html("<html><title>Unicorn!</title></html>"), "cannot be read"),
        (Answer(b'{"sha": "0", "tree": [{"path": "a'), "cannot be read"),
        (Answer(b"[" * 100_000), "cannot be read"),
        (Answer(b"\xff\xfe"), "cannot be read"),
        (Answer.json([1]), "cannot be read"),
        (Answer.json({"tree": 5}), "cannot be read"),
        (Answer.json({"tree": [{"path": "a.md", "type": "blob"}]}), "cannot be read"),
        (Answer.json({"message": "Git Repository is empty."}, 409), "GitHub answers 409"),
        (Answer.json({"message": "Repository access blocked"}, 451), "GitHub answers 451"),
        (Answer.html("<html>Unicorn!</html>"), "cannot be read"),
        (Answer(b"<html>Unicorn!</html>", 502), "GitHub answers 502"),
        (Raw(lambda send: None), "127.0.0.1"),
        (Raw(lambda send: send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")), "127.0.0.1"),
    ],
)
def test_what_is_no_answer_of_github_is_a_failure(
    answer: Answer | Raw, expected: str, hub: Hub, source: GitHubSource
) -> None:
    hub.web.routes["/repos/owner/name/git/trees/HEAD"] = answer
    outcome = ask(source)
    assert isinstance(outcome, Failed), outcome
    assert expected in outcome.reason
    assert "\n" not in outcome.reason
    assert TOKEN not in outcome.reason


@pytest.mark.parametrize("blob", [{"encoding": "base64", "content": "?"}, {"encoding": "base64"}, [], "text"])
def test_what_is_no_content_is_a_failure(blob: Any, hub: Hub, source: GitHubSource) -> None:
    hub.commit(DOCS)
    hub.web.routes[f"/repos/owner/name/git/blobs/{blob_sha(DOCS['README.md'])}"] = Answer.json(blob)
    outcome = ask(source, "/owner/name/blob/main/README.md")
    assert isinstance(outcome, Failed), outcome
    assert "cannot be read" in outcome.reason


def test_a_server_says_when_it_is_back(hub: Hub, source: GitHubSource) -> None:
    hub.web.routes["/repos/owner/name/git/trees/HEAD"] = Answer(b"", 503, {"Retry-After": "30"})
    assert ask(source) == Failed("GitHub answers 503", timedelta(seconds=30))


def test_the_library_is_guarded_as_every_fetch_is(hub: Hub) -> None:
    hub.commit(DOCS)
    fetcher = Fetcher(FetchPolicy())
    outcome = ask(GitHubSource(fetcher.session, token=TOKEN, api_url=hub.web.url))
    fetcher.close()
    assert isinstance(outcome, Failed)
    assert "FETCH_ALLOWED_HOSTS" in outcome.reason
    assert not hub.web.requests


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/owner/name",
        "https://github.com.evil.example/owner/name",
        "https://github.com/owner",
        "https://github.com/",
        "https://github.com/owner/name/issues/5",
        "https://github.com/../name",
        "https://github.com/owner/..",
        "https://github.com/owner/%2e%2e",
        "https://github.com/owner/na%2Fme",
        "owner/name",
    ],
)
def test_what_is_no_repository_on_github_is_not_asked_for(address: str, hub: Hub, source: GitHubSource) -> None:
    outcome = source.fetch(parse_reference(f"github://{address}"), None)
    assert isinstance(outcome, Failed)
    assert "does not name a repository" in outcome.reason
    assert not hub.web.requests


def test_many_threads_ask_at_once(web: WebServer, source: GitHubSource) -> None:
    for number in range(20):
        Hub(web, name=f"owner/name{number}").put(**{"a.md": f"text {number}"})
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda number: ask(source, f"/owner/name{number}?path=a.md"), range(20)))
    assert [outcome.text for outcome in outcomes if isinstance(outcome, Content)] == [
        f"text {number}" for number in range(20)
    ]
