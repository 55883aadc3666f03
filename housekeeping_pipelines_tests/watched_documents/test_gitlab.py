"""GitLab's REST interface, as a server on loopback answers it, asked by python-gitlab."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from housekeeping_pipelines.resources.fetching import Fetcher, FetchPolicy
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Outcome, State, Unchanged
from housekeeping_pipelines.watched_documents.sources.gitlab import GitLabSource
from housekeeping_pipelines.watched_documents.sources.references import parse_reference
from housekeeping_pipelines.watched_documents.sources.repositories import MAX_FILE_BYTES, MAX_FILES
from housekeeping_pipelines_tests.web_server import Answer, Asked, Raw, WebServer

TOKEN = "glpat-a-secret-token"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NOT_FOUND = {"message": "404 Project Not Found"}


def blob_sha(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Lab:
    """One project with its files on the branch `main`; `folder` is where the server has its GitLab."""

    web: WebServer
    name: str = "group/name"
    folder: str = ""
    keyset: bool = False
    # What is in a tree and is no file: a page is soon full.
    modules: int = 1
    # How the server calls itself, as behind a proxy that it does not know of.
    external: str = ""

    @property
    def project(self) -> str:
        return f"{self.folder}/api/v4/projects/{quote(self.name, safe='')}/repository"

    def commit(self, files: dict[str, bytes], branch: str = "main") -> None:
        refs = (branch, "HEAD", "") if branch == "main" else (branch,)
        trees = getattr(self, "_trees", {})
        trees |= dict.fromkeys(refs, files)
        self._trees = trees
        self.web.routes[f"{self.project}/tree"] = self._tree
        for path, content in files.items():
            self.web.routes[f"{self.project}/files/{quote(path, safe='')}"] = self._file(path)
            self.web.routes[f"{self.project}/blobs/{blob_sha(content)}/raw"] = self._blob(content)

    def _refusal(self, asked: Asked) -> Answer | None:
        if asked.headers["PRIVATE-TOKEN"] not in (None, TOKEN):
            return Answer.json({"message": "401 Unauthorized"}, 401)
        return None

    def _tree(self, asked: Asked) -> Answer:
        if refusal := self._refusal(asked):
            return refusal
        files, path = self._trees.get(asked.query.get("ref", "")), asked.query.get("path", "")
        below = {name: text for name, text in (files or {}).items() if not path or name.startswith(f"{path}/")}
        if not below:
            return Answer.json({"message": "404 Tree Not Found"}, 404)
        assert asked.query["recursive"] == "True"
        entries = [
            {"id": blob_sha(text), "name": name.rpartition("/")[2], "type": "blob", "path": name, "mode": "100644"}
            for name, text in below.items()
        ]
        module = {"name": "x", "type": "commit", "path": f"{path}/x".lstrip("/"), "mode": "160000"}
        entries[:0] = [{"id": f"{number:040}", **module} for number in range(self.modules)]
        size, page = int(asked.query["per_page"]), int(asked.query.get("page", "1"))
        start = (page - 1) * size
        if "page_token" in asked.query:
            start = next(at for at, each in enumerate(entries) if each["id"] == asked.query["page_token"]) + 1
        part = entries[start : start + size]
        headers = {"X-Per-Page": str(size), "X-Page": str(page), "X-Next-Page": ""}
        if start + size < len(entries):
            following = {**asked.query, "page": str(page + 1)}
            if self.keyset:
                following |= {"page": "1", "page_token": str(part[-1]["id"]), "pagination": "keyset"}
            else:
                headers["X-Next-Page"] = str(page + 1)
            base = self.external or f"{self.web.url}{self.folder}"
            address = f"{base}{asked.path.removeprefix(self.folder)}?{urlencode(following)}"
            headers["Link"] = f'<{address}>; rel="next", <{self.web.url}/first>; rel="first"'
        return Answer.json(part, 200, **headers)

    def _file(self, path: str) -> Callable[[Asked], Answer]:
        def answer(asked: Asked) -> Answer:
            content = self._trees.get(asked.query.get("ref"), {}).get(path)
            if refusal := self._refusal(asked):
                return refusal
            if content is None:
                return Answer.json({"message": "404 File Not Found"}, 404)
            headers = {"X-Gitlab-Blob-Id": blob_sha(content), "X-Gitlab-Size": str(len(content))}
            return Answer.json({"blob_id": blob_sha(content)}, 200, **headers)

        return answer

    def _blob(self, content: bytes) -> Callable[[Asked], Answer]:
        return lambda asked: self._refusal(asked) or Answer(content, 200, {"Content-Type": "text/plain"})


@pytest.fixture
def lab(web: WebServer) -> Lab:
    return Lab(web)


@pytest.fixture
def source(web: WebServer, fetcher: Fetcher) -> GitLabSource:
    return GitLabSource(fetcher.session, token=TOKEN, url=web.url, clock=lambda: NOW)


def ask(source: GitLabSource, lab: Lab, rest: str = "", previous: State | None = None) -> Outcome:
    address = f"{lab.web.url}{lab.folder}/{lab.name}{rest}"
    return source.fetch(parse_reference(f"gitlab://{address}"), previous)


DOCS = {
    "README.md": b"# The project\n",
    "docs/install.md": b"Run it.\n",
    "docs/deep/more.md": b"More of it.\n",
    "docs2/other.md": b"Other.\n",
}
ALL = ["README.md", "docs/deep/more.md", "docs/install.md", "docs2/other.md"]


@pytest.mark.parametrize(
    ("rest", "paths"),
    [
        ("", ALL),
        (".git?branch=main", ALL),
        ("/-/tree/main?ref_type=heads", ALL),
        ("/-/tree/main/docs", ["docs/deep/more.md", "docs/install.md"]),
        ("/tree/main/docs", ["docs/deep/more.md", "docs/install.md"]),
        ("?branch=main&path=docs", ["docs/deep/more.md", "docs/install.md"]),
    ],
)
def test_a_folder_or_a_whole_project_is_its_files_in_order(
    rest: str, paths: list[str], lab: Lab, source: GitLabSource
) -> None:
    lab.commit(DOCS)
    outcome = ask(source, lab, rest)
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "\n\n".join(f"# {path}\n\n{DOCS[path].decode().strip()}" for path in paths)
    assert outcome.title == ("docs" if "docs" in rest else "group/name")
    assert outcome.bytes > 0
    # Of a path, one request more tells that it is no file.
    assert len(lab.web.requests) == (2 if "docs" in rest else 1) + len(paths)


@pytest.mark.parametrize(
    "rest",
    [
        "/-/blob/main/docs/install.md",
        "/-/blob/main/docs/install.md?ref_type=heads#L3",
        "/-/raw/main/docs/install.md",
        "?path=docs/install.md",
    ],
)
def test_a_file_is_its_text_as_it_is(rest: str, lab: Lab, source: GitLabSource) -> None:
    lab.commit(DOCS)
    outcome = ask(source, lab, rest)
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "Run it.\n"
    assert outcome.title == "docs/install.md"
    assert [asked.method for asked in lab.web.requests] == ["HEAD", "GET"]
    lab.web.requests.clear()
    assert isinstance(ask(source, lab, rest, outcome.state), Unchanged)
    (asked,) = lab.web.requests
    assert (asked.method, asked.path) == ("HEAD", f"{lab.project}/files/docs%2Finstall.md")
    assert asked.headers["PRIVATE-TOKEN"] == TOKEN
    lab.commit({**DOCS, "docs/install.md": b"Run that.\n"})
    changed = ask(source, lab, rest, outcome.state)
    assert isinstance(changed, Content)
    assert changed.text == "Run that.\n"


@pytest.mark.parametrize("keyset", [False, True])
def test_a_tree_of_several_pages_is_read_to_its_end(keyset: bool, lab: Lab, source: GitLabSource) -> None:
    lab.keyset = keyset
    lab.modules = 199
    lab.commit({"docs/a.md": b"first", "docs/z.md": b"last", "z.md": b"beside"})
    outcome = ask(source, lab, "/-/tree/main/docs")
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "# docs/a.md\n\nfirst\n\n# docs/z.md\n\nlast"
    pages = [asked.query for asked in lab.web.requests if asked.path.endswith("/tree")]
    assert len(pages) == 3
    assert {page["path"] for page in pages} == {"docs"}
    assert {page["ref"] for page in pages} == {"main"}
    assert [("page_token" in page) for page in pages] == [False, keyset, keyset]
    lab.web.requests.clear()
    assert isinstance(ask(source, lab, "/-/tree/main/docs", outcome.state), Unchanged)
    assert len(lab.web.requests) == 4
    assert {asked.headers["PRIVATE-TOKEN"] for asked in lab.web.requests} == {TOKEN}


def test_what_is_elsewhere_in_the_project_changes_nothing(lab: Lab, source: GitLabSource) -> None:
    lab.commit(DOCS)
    first = ask(source, lab, "/-/tree/main/docs")
    assert isinstance(first, Content)
    lab.commit({**DOCS, "docs2/other.md": b"New.\n"})
    assert isinstance(ask(source, lab, "/-/tree/main/docs", first.state), Unchanged)
    changed: list[dict[str, bytes]] = [
        {**DOCS, "docs/install.md": b"Run that.\n"},
        {**DOCS, "docs/added.md": b"Added.\n"},
        {path: text for path, text in DOCS.items() if path != "docs/install.md"},
        {path.replace("install", "setup"): text for path, text in DOCS.items()},
    ]
    for files in changed:
        lab.commit(files)
        outcome = ask(source, lab, "/-/tree/main/docs", first.state)
        assert isinstance(outcome, Content)
        assert outcome.state != first.state


def test_a_branch_is_that_of_the_query_or_of_the_address(lab: Lab, source: GitLabSource) -> None:
    for branch in ("main", "next", "feature/x"):
        lab.commit({"a.md": branch.encode(), "docs/b.md": branch.encode()}, branch)
    for rest, text in (
        ("?path=a.md", "main"),
        ("?path=a.md&branch=next", "next"),
        ("/-/blob/next/a.md", "next"),
        ("/-/blob/feature%2Fx/a.md", "feature/x"),
        ("?ref=feature/x&path=a.md", "feature/x"),
        ("/-/tree/next/docs", "# docs/b.md\n\nnext"),
    ):
        outcome = ask(source, lab, rest)
        assert isinstance(outcome, Content), (rest, outcome)
        assert outcome.text == text


def test_an_address_as_a_browser_copies_it(lab: Lab, source: GitLabSource) -> None:
    lab.commit({"Größe und Maß/Tür+x.md": b"Text"})
    for rest in (
        "/-/blob/main/Gr%C3%B6%C3%9Fe%20und%20Ma%C3%9F/T%C3%BCr%2Bx.md",
        "/-/tree/main/Gr%C3%B6%C3%9Fe%20und%20Ma%C3%9F",
    ):
        outcome = ask(source, lab, rest)
        assert isinstance(outcome, Content), outcome
        assert outcome.text.endswith("Text")


@pytest.mark.parametrize("folder", ["", "/gitlab", "/tools/gitlab"])
@pytest.mark.parametrize("name", ["group/name", "group/sub/deeper/na.me_1-x"])
def test_a_gitlab_of_ones_own_in_a_folder_of_its_server(
    folder: str, name: str, web: WebServer, fetcher: Fetcher
) -> None:
    lab = Lab(web, name, folder)
    lab.commit(DOCS)
    source = GitLabSource(fetcher.session, token=TOKEN, url=f"{web.url}{folder}")
    outcome = ask(source, lab, "/-/blob/main/README.md")
    assert isinstance(outcome, Content), outcome
    assert {asked.headers["PRIVATE-TOKEN"] for asked in web.requests} == {TOKEN}


def test_what_is_beside_the_gitlab_of_a_server_is_not_asked_for(web: WebServer, fetcher: Fetcher) -> None:
    source = GitLabSource(fetcher.session, token=TOKEN, url=f"{web.url}/gitlab")
    for rest in ("/group/name", "/gitlabs/group/name", "/gitlab"):
        outcome = source.fetch(parse_reference(f"gitlab://{web.url}{rest}"), None)
        assert isinstance(outcome, Failed)
        assert "does not name a project" in outcome.reason
    assert not web.requests


def test_a_server_that_calls_itself_by_another_name_is_asked_by_the_one_that_is_configured(
    lab: Lab, source: GitLabSource
) -> None:
    """Its links to the next page lead to what a proxy hides; the token would go there."""
    with WebServer() as other:
        lab.external = other.url
        lab.modules = 150
        lab.commit({"z.md": b"last"})
        outcome = ask(source, lab)
        assert isinstance(outcome, Content), outcome
        assert outcome.text == "# z.md\n\nlast"
        assert not other.requests


@pytest.mark.parametrize(
    "configured", ["https://gitlab.com", "http://127.0.0.1:1", "https://127.0.0.1:{port}", "http://localhost:{port}"]
)
def test_a_public_project_elsewhere_is_read_without_the_token(configured: str, lab: Lab, fetcher: Fetcher) -> None:
    lab.commit(DOCS)
    source = GitLabSource(fetcher.session, token=TOKEN, url=configured.format(port=lab.web.port))
    outcome = ask(source, lab)
    assert isinstance(outcome, Content), outcome
    for asked in lab.web.requests:
        assert TOKEN not in str(asked.headers.items())


def test_the_token_does_not_follow_a_redirect_to_another_host(lab: Lab, source: GitLabSource) -> None:
    with WebServer() as other:
        other.routes["/stolen"] = Answer.html("<p>Log in</p>")
        lab.web.routes[f"{lab.project}/tree"] = Answer.to(f"{other.url}/stolen")
        outcome = ask(source, lab)
        assert isinstance(outcome, Failed)
        assert lab.web.requests[0].headers["PRIVATE-TOKEN"] == TOKEN
        assert len(other.requests) == 1
        assert TOKEN not in str(other.requests[0].headers.items())


def test_a_project_that_moved_is_followed(lab: Lab, source: GitLabSource) -> None:
    lab.commit(DOCS)

    def moved(asked: Asked) -> Answer:
        return Answer.to(f"{asked.path.replace('old%2Fname', 'group%2Fname')}?{urlencode(asked.query)}", 301)

    for path in list(lab.web.routes):
        lab.web.routes[path.replace("group%2Fname", "old%2Fname")] = moved
    reference = parse_reference(f"gitlab://{lab.web.url}/old/name/-/tree/main/docs")
    outcome = source.fetch(reference, None)
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "# docs/deep/more.md\n\nMore of it.\n\n# docs/install.md\n\nRun it."
    assert isinstance(source.fetch(reference, outcome.state), Unchanged)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0", b"x" * (MAX_FILE_BYTES + 1), b"", b" \n"])
def test_a_file_that_has_no_text_any_more_is_a_failure_and_not_gone(
    content: bytes, lab: Lab, source: GitLabSource
) -> None:
    lab.commit({"a.md": content, "b.md": b"text"})
    outcome = ask(source, lab, "/-/blob/main/a.md")
    assert isinstance(outcome, Failed)
    assert "has no text there" in outcome.reason
    whole = ask(source, lab)
    assert isinstance(whole, Content)
    assert whole.text == "# b.md\n\ntext"


def test_too_many_files_are_refused_before_one_is_read(lab: Lab, source: GitLabSource) -> None:
    lab.commit({f"{number}.md": str(number).encode() for number in range(MAX_FILES + 300)})
    outcome = ask(source, lab)
    assert outcome == Failed(f"group/name has more than {MAX_FILES:,} files there; add ?path=FOLDER")
    assert set(lab.web.paths()) == {f"{lab.project}/tree"}
    assert len(lab.web.requests) == MAX_FILES // 100 + 1


def test_what_is_not_there_is_gone(lab: Lab, source: GitLabSource) -> None:
    lab.commit(DOCS)
    lab.web.routes["/api/v4/projects/group%2Fnone/repository/tree"] = Answer.json(NOT_FOUND, 404)
    for rest in ("?path=doc", "/-/tree/nothing", "/-/blob/nothing/README.md"):
        assert isinstance(ask(source, lab, rest), Gone), rest
    outcome = source.fetch(parse_reference(f"gitlab://{lab.web.url}/group/none"), None)
    assert isinstance(outcome, Gone)
    # GitLab says so of a private project that the token may not read, too.
    assert "404" in outcome.reason
    assert "GITLAB_TOKEN" in outcome.reason
    # As GitLab answered before 15.
    lab.web.routes[f"{lab.project}/tree"] = Answer.json([])
    assert ask(source, lab, "?path=doc") == Gone("group/name has no doc")


def test_a_file_that_goes_while_it_is_read_is_a_failure(lab: Lab, source: GitLabSource) -> None:
    lab.commit(DOCS)
    del lab.web.routes[f"{lab.project}/blobs/{blob_sha(DOCS['README.md'])}/raw"]
    outcome = ask(source, lab)
    assert isinstance(outcome, Failed)
    assert "a part that it lists" in outcome.reason


@pytest.mark.parametrize("rest", ["", "/-/blob/main/README.md"])
@pytest.mark.parametrize(
    ("status", "message"),
    [(401, {"message": "401 Unauthorized"}), (403, {"error": "insufficient_scope", "scope": "api read_api"})],
)
def test_a_token_that_is_not_accepted_is_named(
    status: int, message: Any, rest: str, lab: Lab, source: GitLabSource
) -> None:
    for path in ("tree", "files/README.md"):
        lab.web.routes[f"{lab.project}/{path}"] = Answer.json(message, status)
    assert ask(source, lab, rest) == Failed(f"127.0.0.1 answers {status}: check GITLAB_TOKEN and GITLAB_URL")


LIMITED = {
    "RateLimit-Limit": "60",
    "RateLimit-Observed": "67",
    "RateLimit-Remaining": "0",
    "RateLimit-Reset": str(int(NOW.timestamp()) + 55),
    "RateLimit-ResetTime": "Sun, 01 Mar 2026 12:00:55 GMT",
}


@pytest.mark.parametrize(
    ("headers", "wait"),
    [({**LIMITED, "Retry-After": "120"}, timedelta(seconds=120)), (LIMITED, timedelta(seconds=55)), ({}, None)],
)
@pytest.mark.parametrize(("at", "rest"), [("tree", ""), ("files/README.md", "?path=README.md"), ("blob", "")])
def test_a_rate_limit_says_when_to_come_again_and_is_not_slept_through(
    at: str, rest: str, headers: dict[str, str], wait: timedelta | None, lab: Lab, source: GitLabSource
) -> None:
    """The fetch would take minutes otherwise, and pytest with it."""
    lab.commit(DOCS)
    path = at if at != "blob" else f"blobs/{blob_sha(DOCS['README.md'])}/raw"
    lab.web.routes[f"{lab.project}/{path}"] = Answer(b"Retry later\n", 429, {"Content-Type": "text/plain", **headers})
    outcome = ask(source, lab, rest)
    assert outcome == Failed("127.0.0.1 answers 429", wait)
    assert len([asked for asked in lab.web.requests if asked.path.endswith(path)]) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer.html("<html><title>GitLab is not responding</title></html>"), "cannot be read"),
        (Answer(b'[{"id": "0", "type": "blob", "path": "a'), "cannot be read"),
        (Answer(b"[" * 100_000), "cannot be read"),
        (Answer.json({"message": "hello"}), "cannot be read"),
        (Answer.json([5]), "cannot be read"),
        (Answer.json([{"type": "blob", "path": "a.md"}]), "cannot be read"),
        (Answer(b"<html>Whoops</html>", 502), "127.0.0.1 answers 502"),
        (Answer.to("/elsewhere/", 301), "127.0.0.1"),
        (Raw(lambda send: None), "127.0.0.1"),
        (Raw(lambda send: send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[")), "127.0.0.1"),
    ],
)
def test_what_is_no_answer_of_a_gitlab_is_a_failure(
    answer: Answer | Raw, expected: str, lab: Lab, source: GitLabSource
) -> None:
    lab.web.routes[f"{lab.project}/tree"] = answer
    lab.web.routes["/elsewhere/"] = Answer.to("/elsewhere/")
    outcome = ask(source, lab)
    assert isinstance(outcome, Failed), outcome
    assert expected in outcome.reason
    assert "\n" not in outcome.reason
    assert TOKEN not in outcome.reason


def test_a_file_without_its_hash_is_a_failure(lab: Lab, source: GitLabSource) -> None:
    """Such as a page of a proxy that wants people to log in."""
    lab.web.routes[f"{lab.project}/files/README.md"] = Answer.html("<p>Log in</p>")
    outcome = ask(source, lab, "?path=README.md")
    assert isinstance(outcome, Failed)
    assert "cannot be read" in outcome.reason


def test_the_library_is_guarded_as_every_fetch_is(lab: Lab) -> None:
    lab.commit(DOCS)
    fetcher = Fetcher(FetchPolicy())
    outcome = ask(GitLabSource(fetcher.session, token=TOKEN, url=lab.web.url), lab)
    fetcher.close()
    assert isinstance(outcome, Failed)
    assert "FETCH_ALLOWED_HOSTS" in outcome.reason
    assert not lab.web.requests


@pytest.mark.parametrize(
    "rest", ["/", "/group", "/group/name/-/issues/5", "/../name", "/group/%2e%2e", "/group//name", "/group/na%2Fme"]
)
def test_what_is_no_project_is_not_asked_for(rest: str, lab: Lab, source: GitLabSource) -> None:
    outcome = source.fetch(parse_reference(f"gitlab://{lab.web.url}{rest}?private_token=secret"), None)
    assert isinstance(outcome, Failed)
    assert "does not name a project" in outcome.reason
    assert "secret" not in outcome.reason
    assert not lab.web.requests


def test_many_threads_ask_at_once(web: WebServer, source: GitLabSource) -> None:
    labs = [Lab(web, f"group/name{number}") for number in range(16)]
    for lab in labs:
        lab.commit({"a.md": lab.name.encode()})
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda lab: ask(source, lab, "?path=a.md"), labs))
    assert [outcome.text for outcome in outcomes if isinstance(outcome, Content)] == [lab.name for lab in labs]
