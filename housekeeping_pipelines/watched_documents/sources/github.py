"""A file, a folder or the whole of a repository on GitHub: `github://https://github.com/OWNER/NAME?branch=main&path=docs`.

One request tells whether anything changed: the tree of the branch, with the hash of every file. If the tree is too
large for one answer, the path is followed with a request per folder.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.resources.fetching import FetchError
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Unchanged
from housekeeping_pipelines.watched_documents.sources.libraries import (
    TIMEOUT_SECONDS,
    UNREADABLE,
    Traffic,
    outcome_of,
)
from housekeeping_pipelines.watched_documents.sources.repositories import (
    MAX_FILE_BYTES,
    MAX_FILES,
    File,
    digest,
    joined,
    place,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    import requests
    from github.Repository import Repository

    from housekeeping_pipelines.watched_documents.sources import Outcome
    from housekeeping_pipelines.watched_documents.sources.references import Reference
    from housekeeping_pipelines.watched_documents.sources.repositories import Place

API_URL = "https://api.github.com"
_HOSTS = ("github.com", "www.github.com")
# For a rate limit without a time, https://docs.github.com/rest/guides/best-practices-for-using-the-rest-api
_LIMITED_FOR = timedelta(minutes=1)


class GitHubSource:
    """Its token is sent to GitHub alone."""

    def __init__(
        self,
        session: Callable[[], requests.Session],
        *,
        token: str | None,
        api_url: str = API_URL,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._session, self._token, self._api_url, self._clock = session, token, api_url, clock

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        """See `Source`."""
        import github
        import requests

        where = place(reference)
        if where is None or reference.host not in _HOSTS or where.name.count("/") != 1:
            return Failed(f"{reference.host or 'the reference'} with this path does not name a repository on GitHub")
        traffic = Traffic()
        try:
            return self._fetch(self._repository(where, traffic), where, previous, traffic)
        except (
            github.GithubException,
            github.BadAttributeException,
            requests.RequestException,
            FetchError,
            *UNREADABLE,
        ) as error:
            found = outcome_of(error, traffic, "GitHub", "GITHUB_TOKEN", self._clock)
            limited = isinstance(error, github.RateLimitExceededException) or traffic.status == 429
            if limited and isinstance(found, Failed):
                more = "" if self._token else "; it allows more requests with GITHUB_TOKEN"
                wait = _LIMITED_FOR if found.retry_after is None else found.retry_after
                return Failed(f"GitHub answers {traffic.status}, too many requests{more}", wait)
            return found

    def _fetch(
        self, repository: Repository, where: Place, previous: Mapping[str, Any] | None, traffic: Traffic
    ) -> Outcome:
        entries = _list(repository, where)
        if entries is None:
            return Failed(f"{where.name} is too large to be listed; add ?path=FOLDER")
        there = [each for each in entries if each.type == "blob" and where.holds(each.path)]
        if not there:
            return Gone(f"{where.name} has no {where.path or 'file'}")
        traffic.listed = True
        files = [File(each.path, each.blob) for each in there if each.size <= MAX_FILE_BYTES]
        if len(files) > MAX_FILES:
            return Failed(f"{where.name} has {len(files):,} files there, more than {MAX_FILES:,}; add ?path=FOLDER")
        files.sort(key=lambda file: file.path)
        state = {"sha": digest(files)}
        if previous and previous == state:
            return Unchanged(bytes=traffic.bytes)

        def read(file: File) -> bytes:
            blob = repository.get_git_blob(file.blob)
            if blob.encoding != "base64":
                return blob.content.encode()
            # It is split into lines.
            return base64.b64decode("".join(blob.content.split()), validate=True)

        text = joined(files, read, single=there[0].path == where.path)
        if not text:
            return Failed(f"{where.name} has no text there, or only files that are too large")
        return Content(text, where.path or where.name, state, traffic.bytes)

    def _repository(self, where: Place, traffic: Traffic) -> Repository:
        import github
        from github.Repository import Repository

        requester = _requester(lambda: traffic.watch(self._session()))(
            auth=github.Auth.Token(self._token) if self._token else None,
            base_url=self._api_url,
            timeout=TIMEOUT_SECONDS,
            # The session sets its own.
            user_agent="housekeeping-pipelines",
            per_page=100,
            verify=True,
            retry=None,
            pool_size=None,
            lazy=True,
        )
        return Repository(requester, url=f"/repos/{where.name}", completed=False)


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    type: str
    blob: str
    size: int


def _list(repository: Repository, where: Place) -> list[_Entry] | None:
    """The entries of the tree, or at least those below the path; None if they are too many for one answer."""

    def entries(tree: str, above: str = "", *, recursive: bool = True) -> list[_Entry] | None:
        answer = repository.get_git_tree(tree, recursive=recursive)
        if answer.raw_data.get("truncated"):
            return None
        return [_Entry(above + each.path, each.type, each.sha, each.size or 0) for each in answer.tree]

    tree, above = where.branch or "HEAD", ""
    found = entries(tree)
    if found is not None or not where.path:
        return found
    for name in where.path.split("/"):
        level = entries(tree, above, recursive=False)
        named = next((each for each in level or () if each.path == above + name), None)
        if level is None or named is None or named.type != "tree":
            return level
        tree, above = named.blob, f"{above}{name}/"
    return entries(tree, above)


def _requester(session: Callable[[], requests.Session]) -> type[Any]:
    """PyGithub's requester with guarded sessions; a subclass, since others may use the library's own class.

    The session follows redirects, as of a renamed repository: the library would drop the query of their target, and
    list the top folder alone.
    """
    from github.Requester import (
        HTTPRequestsConnectionClass,
        HTTPSRequestsConnectionClass,
        Requester,
        RequestsResponse,
    )

    class Secure(HTTPSRequestsConnectionClass):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.session = session()

        def getresponse(self) -> RequestsResponse:
            return RequestsResponse(_answer(self))

    class Plain(HTTPRequestsConnectionClass):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.session = session()

        def getresponse(self) -> RequestsResponse:
            return RequestsResponse(_answer(self))

    class Guarded(Requester):
        pass

    Guarded.injectConnectionClasses(Plain, Secure)
    return Guarded


def _answer(connection: Any) -> requests.Response:
    answer: requests.Response = connection.session.request(
        connection.verb,
        f"{connection.protocol}://{connection.host}:{connection.port}{connection.url}",
        headers=connection.headers,
        data=connection.input,
        timeout=connection.timeout,
    )
    return answer
