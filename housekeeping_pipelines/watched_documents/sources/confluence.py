"""A page or a space of Confluence, in the cloud or on a server: `confluence://https://site.atlassian.net/wiki/spaces/DOC/pages/12`.

A page's version decides whether it changed; of a space, the versions of all its pages.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from housekeeping_pipelines.resources.fetching import FetchError
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Unchanged
from housekeeping_pipelines.watched_documents.sources.html import markdown_of
from housekeeping_pipelines.watched_documents.sources.libraries import TIMEOUT_SECONDS, UNREADABLE, Traffic, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import requests

    from housekeeping_pipelines.watched_documents.sources import Outcome
    from housekeeping_pipelines.watched_documents.sources.references import Reference

PAGE_SIZE = 50
MAX_PAGES = 1000


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ConfluenceSource:
    """Its credentials go to the configured Confluence alone; what others show to everybody is read without."""

    def __init__(
        self,
        session: Callable[[], requests.Session],
        *,
        url: str | None,
        username: str | None,
        token: str | None,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._session, self._url, self._username, self._token, self._clock = session, url, username, token, clock

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        """See `Source`."""
        import requests
        from atlassian.errors import ApiError

        page, space = _named(reference)
        if not reference.site or (page is None and space is None):
            return Failed(f"{reference.address} names no page and no space of a Confluence")
        traffic = Traffic()
        client = self._client(reference, traffic)
        try:
            if page is not None:
                return self._page(client, page, previous, traffic)
            return self._space(client, str(space), previous, traffic)
        except (ApiError, requests.RequestException, FetchError, *UNREADABLE) as error:
            names = "CONFLUENCE_URL, CONFLUENCE_USERNAME and CONFLUENCE_TOKEN"
            return outcome_of(error, traffic, reference.host, names, self._clock)

    def _client(self, reference: Reference, traffic: Traffic) -> Any:
        from atlassian.rest_client import AtlassianRestAPI

        ours = self._url is not None and _site(self._url) == _site(reference.site)
        # A server's may live in a folder; the cloud's is always /wiki.
        base = str(self._url) if ours and urlsplit(str(self._url)).path.strip("/") else reference.site
        if base == reference.site and reference.path.startswith("/wiki/"):
            base += "/wiki"
        credentials: dict[str, Any] = {}
        if ours and self._token:
            credentials = {"token": self._token}
            if self._username:
                credentials = {"username": self._username, "password": self._token}
        return AtlassianRestAPI(
            base,
            timeout=TIMEOUT_SECONDS,
            session=traffic.watch(self._session()),
            backoff_and_retry=False,
            **credentials,
        )

    def _page(self, client: Any, page: str, previous: Mapping[str, Any] | None, traffic: Traffic) -> Outcome:
        path = f"rest/api/content/{page}"
        found = _document(client.get(path, params={"expand": "version"}))
        if found.get("status", "current") != "current":
            return Gone(f"the page is {found['status']}")
        state = {"version": found["version"]["number"]}
        if previous and previous == state:
            return Unchanged(bytes=traffic.bytes)
        whole = _document(client.get(path, params={"expand": "body.storage,version"}))
        state = {"version": whole["version"]["number"]}
        return Content(_text(whole), str(whole["title"]), state, traffic.bytes)

    def _space(self, client: Any, space: str, previous: Mapping[str, Any] | None, traffic: Traffic) -> Outcome:
        listed = sorted((str(each["id"]), each["version"]["number"]) for each in self._pages(client, space, "version"))
        if not listed:
            return Failed(f"the space {space} has no page that may be read")
        if len(listed) > MAX_PAGES:
            return Failed(f"the space {space} has more than {MAX_PAGES:,} pages; watch pages by their own addresses")
        state = {"version": hashlib.sha256(json.dumps(listed).encode()).hexdigest()}
        if previous and previous == state:
            return Unchanged(bytes=traffic.bytes)
        pages = sorted(self._pages(client, space, "body.storage,version"), key=lambda page: int(page["id"]))
        return Content("\n\n".join(map(_text, pages)), space, state, traffic.bytes)

    def _pages(self, client: Any, space: str, expand: str) -> Iterator[dict[str, Any]]:
        for start in range(0, MAX_PAGES + PAGE_SIZE, PAGE_SIZE):
            wanted = {"spaceKey": space, "type": "page", "status": "current", "expand": expand}
            answer = _document(client.get("rest/api/content", params={**wanted, "start": start, "limit": PAGE_SIZE}))
            yield from answer["results"]
            if len(answer["results"]) < PAGE_SIZE and "next" not in answer.get("_links", {}):
                return


def _document(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise TypeError("no JSON object")
    return answer


def _text(page: Mapping[str, Any]) -> str:
    return f"# {page['title']}\n\n{markdown_of(page['body']['storage']['value'])}"


def _named(reference: Reference) -> tuple[str | None, str | None]:
    """The page's id, or the space's key."""
    page = reference.parameters.get("pageId")
    if match := re.search(r"/pages/(\d+)", reference.path):
        page = match[1]
    space = reference.parameters.get("space") or reference.parameters.get("spaceKey")
    if match := re.search(r"/(?:spaces|display)/([^/]+)", reference.path):
        space = match[1]
    return (page if page and page.isdigit() else None), space


def _site(address: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port
