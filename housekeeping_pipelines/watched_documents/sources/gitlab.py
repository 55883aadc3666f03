"""A file, a folder or the whole of a project on GitLab: `gitlab://https://gitlab.com/GROUP/NAME?branch=main&path=docs`.

The hash of a file is in the headers of one request; the hashes of a folder's files are in its tree, which comes in
pages. They tell whether anything changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.resources.fetching import FetchError
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Unchanged
from housekeeping_pipelines.watched_documents.sources.libraries import (
    TIMEOUT_SECONDS,
    UNREADABLE,
    Traffic,
    outcome_of,
)
from housekeeping_pipelines.watched_documents.sources.references import origin
from housekeeping_pipelines.watched_documents.sources.repositories import (
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

    from housekeeping_pipelines.watched_documents.sources import Outcome
    from housekeeping_pipelines.watched_documents.sources.references import Reference
    from housekeeping_pipelines.watched_documents.sources.repositories import Place

PAGE_SIZE = 100


class GitLabSource:
    """Its token is sent to the configured GitLab alone; public projects of others are read without it."""

    def __init__(
        self,
        session: Callable[[], requests.Session],
        *,
        token: str | None,
        url: str = "https://gitlab.com",
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._session, self._token, self._url, self._clock = session, token, url, clock

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        """See `Source`."""
        import gitlab
        import requests

        ours = origin(reference.site) == origin(self._url)
        where = place(reference, below=urlsplit(self._url).path.strip("/") if ours else "")
        if where is None or not reference.site:
            return Failed(f"{reference.host or 'the reference'} with this path does not name a project on a GitLab")
        traffic = Traffic()
        client = gitlab.Gitlab(
            self._url if ours else reference.site,
            private_token=self._token if ours else None,
            session=traffic.watch(self._session()),
            timeout=TIMEOUT_SECONDS,
            # Stay on this host for the next page: a server behind a proxy may name another, and would get the token.
            keep_base_url=True,
        )
        try:
            return self._fetch(client, where, previous, traffic)
        except (gitlab.exceptions.GitlabError, requests.RequestException, FetchError, *UNREADABLE) as error:
            return outcome_of(error, traffic, reference.host, "GITLAB_TOKEN and GITLAB_URL", self._clock)

    def _fetch(self, client: Any, where: Place, previous: Mapping[str, Any] | None, traffic: Traffic) -> Outcome:
        project = client.projects.get(where.name, lazy=True)
        # The library would sleep until a rate limit ends; the queue schedules the retry instead.
        once = {"obey_rate_limit": False, "max_retries": 0}
        found = _file(project, where, once) if where.path else []
        single = bool(found)
        if not single:
            given = {"ref": where.branch} if where.branch else {}
            tree = project.repository_tree(
                where.path, recursive=True, iterator=True, per_page=PAGE_SIZE, **given, **once
            )
            for each in tree:
                if each["type"] == "blob" and where.holds(each["path"]):
                    found.append(File(each["path"], each["id"]))
                if len(found) > MAX_FILES:
                    return Failed(f"{where.name} has more than {MAX_FILES:,} files there; add ?path=FOLDER")
        if not found:
            return Gone(f"{where.name} has no {where.path or 'file'}")
        traffic.listed = True
        found.sort(key=lambda file: file.path)
        state = {"sha": digest(found)}
        if previous and previous == state:
            return Unchanged(bytes=traffic.bytes)
        text = joined(
            found,
            lambda file: bytes(project.repository_raw_blob(file.blob, **once)),
            single=single,
        )
        if not text:
            return Failed(f"{where.name} has no text there, or only files that are too large")
        return Content(text, where.path or where.name, state, traffic.bytes)


def _file(project: Any, where: Place, once: Mapping[str, Any]) -> list[File]:
    """The file at the path; empty if it is not a file."""
    import gitlab

    try:
        headers = project.files.head(where.path, where.branch or "HEAD", **once)
    except gitlab.exceptions.GitlabError as error:
        if error.response_code != 404:
            raise
        return []
    return [File(where.path, headers["X-Gitlab-Blob-Id"])]
