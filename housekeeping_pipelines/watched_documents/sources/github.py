"""A file, a folder or the whole of a repository on GitHub: `github://https://github.com/OWNER/NAME?branch=main&path=docs`.

One request tells whether anything changed: the tree of the branch, with the hash of every file's content.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.resources.fetching import FetchError
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Unchanged
from housekeeping_pipelines.watched_documents.sources.libraries import TIMEOUT_SECONDS, UNREADABLE, Traffic, outcome_of
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

    import requests
    from github.Repository import Repository

    from housekeeping_pipelines.watched_documents.sources import Outcome
    from housekeeping_pipelines.watched_documents.sources.references import Reference
    from housekeeping_pipelines.watched_documents.sources.repositories import Place

API_URL = "https://api.github.com"
_HOSTS = ("github.com", "www.github.com")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class GitHubSource:
    """Its token goes to GitHub alone."""

    def __init__(
        self,
        session: Callable[[], requests.Session],
        *,
        token: str | None,
        api_url: str = API_URL,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._session, self._token, self._api_url, self._clock = session, token, api_url, clock

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        """See `Source`."""
        import github

        where = place(reference)
        if where is None or reference.host not in _HOSTS:
            return Failed(f"{reference.address} names no repository on GitHub")
        traffic = Traffic()
        try:
            return self._fetch(self._repository(where, traffic), where, previous, traffic)
        except (github.GithubException, FetchError, *UNREADABLE) as error:
            found = outcome_of(error, traffic, "GitHub", "GITHUB_TOKEN", self._clock)
            if isinstance(found, Gone) and not self._token:
                return Gone(f"{found.reason}; a private repository needs GITHUB_TOKEN")
            return found

    def _fetch(
        self, repository: Repository, where: Place, previous: Mapping[str, Any] | None, traffic: Traffic
    ) -> Outcome:
        tree = repository.get_git_tree(where.branch or "HEAD", recursive=True)
        if tree.raw_data.get("truncated"):
            return Failed(f"{where.name} is too large to be listed; name a path in it")
        files = [
            File(each.path, each.sha)
            for each in tree.tree
            if each.type == "blob" and where.holds(each.path) and (each.size or 0) <= MAX_FILE_BYTES
        ]
        if not files:
            return Gone(f"{where.name} has no {where.path or 'file'}")
        if len(files) > MAX_FILES:
            return Failed(f"{where.name} has {len(files):,} files there, more than {MAX_FILES:,}; name a path in it")
        files.sort(key=lambda file: file.path)
        state = {"sha": digest(files)}
        if previous and previous == state:
            return Unchanged(bytes=traffic.bytes)

        def read(file: File) -> bytes:
            blob = repository.get_git_blob(file.blob)
            return base64.b64decode(blob.content) if blob.encoding == "base64" else blob.content.encode()

        single = files[0].path == where.path
        text = joined(files, read, single=single)
        return Content(text, where.path or where.name, state, traffic.bytes)

    def _repository(self, where: Place, traffic: Traffic) -> Repository:
        import github
        from github.Repository import Repository

        requester = _requester(lambda: traffic.watch(self._session()))(
            auth=github.Auth.Token(self._token) if self._token else None,
            base_url=self._api_url,
            timeout=TIMEOUT_SECONDS,
            # The session says who we are.
            user_agent="housekeeping-pipelines",
            per_page=100,
            verify=True,
            retry=None,
            pool_size=None,
            lazy=True,
        )
        return Repository(requester, url=f"/repos/{where.name}", completed=False)


def _requester(session: Callable[[], requests.Session]) -> type[Any]:
    """PyGithub's requester over sessions of ours; the library's own class, which others may use, stays as it is."""
    from github.Requester import HTTPRequestsConnectionClass, HTTPSRequestsConnectionClass, Requester

    class Secure(HTTPSRequestsConnectionClass):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.session = session()

    class Plain(HTTPRequestsConnectionClass):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.session = session()

    class Guarded(Requester):
        pass

    Guarded.injectConnectionClasses(Plain, Secure)
    return Guarded
