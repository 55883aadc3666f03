"""A page or a space of Confluence, in the cloud or on a server.

confluence://https://site.atlassian.net/wiki/spaces/DOC/pages/12/Title
confluence://https://site.atlassian.net/wiki/spaces/DOC
confluence://https://wiki.example.com/pages/viewpage.action?pageId=12
confluence://https://wiki.example.com/display/DOC/Title

A page's version tells whether it changed; for a space, the versions of all its pages do.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.resources.fetching import FetchError
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Unchanged
from housekeeping_pipelines.watched_documents.sources.decoding import clean
from housekeeping_pipelines.watched_documents.sources.html import markdown_of
from housekeeping_pipelines.watched_documents.sources.libraries import (
    TIMEOUT_SECONDS,
    UNREADABLE,
    Traffic,
    outcome_of,
)
from housekeeping_pipelines.watched_documents.sources.references import origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    import requests

    from housekeeping_pipelines.watched_documents.sources import Outcome
    from housekeeping_pipelines.watched_documents.sources.references import Reference

PAGE_SIZE = 50
MAX_PAGES = 1000


class ConfluenceSource:
    """Its credentials are sent to the configured Confluence alone; public pages of others are read without them."""

    def __init__(
        self,
        session: Callable[[], requests.Session],
        *,
        url: str | None,
        username: str | None,
        token: str | None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._session, self._url, self._username, self._token, self._clock = session, url, username, token, clock

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        """See `Source`."""
        import requests
        from atlassian.errors import ApiError

        subject = named(reference)
        if not reference.site or subject is None:
            return Failed(f"{reference.host or 'the reference'}: the path does not name a page or a space")
        traffic = Traffic()
        client = self._client(reference, traffic)
        try:
            if subject.page or subject.title:
                return self._page(client, subject, previous, traffic)
            return self._space(client, subject.space, previous, traffic)
        except (ApiError, requests.RequestException, FetchError, *UNREADABLE) as error:
            names = "CONFLUENCE_URL, CONFLUENCE_USERNAME and CONFLUENCE_TOKEN"
            return outcome_of(error, traffic, reference.host, names, self._clock)

    def _client(self, reference: Reference, traffic: Traffic) -> Any:
        from atlassian.rest_client import AtlassianRestAPI

        ours = self._url is not None and origin(self._url) == origin(reference.site)
        # A server may run below a path of its own; the cloud's is always /wiki.
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
            # The library would sleep until a rate limit ends; the queue schedules the retry instead.
            backoff_and_retry=False,
            retry_with_header=False,
            **credentials,
        )

    def _page(self, client: Any, subject: Named, previous: Mapping[str, Any] | None, traffic: Traffic) -> Outcome:
        if subject.page:
            found = _document(client.get(f"rest/api/content/{subject.page}", params={"expand": "version"}))
        else:
            wanted = {"spaceKey": subject.space, "title": subject.title, "type": "page", "expand": "version"}
            results = _document(client.get("rest/api/content", params=wanted))["results"]
            if not results:
                return Gone(f"the space {subject.space} has no page of that title, or does not show it to this account")
            found = results[0]
        if found.get("status", "current") != "current":
            return Gone(f"the page is {found['status']}")
        # The title may belong to another page by now.
        state = {"id": str(found["id"]), "version": found["version"]["number"]}
        if previous and previous == state:
            return Unchanged(bytes=traffic.bytes)
        path = f"rest/api/content/{int(found['id'])}"
        whole = _document(client.get(path, params={"expand": "body.storage,version"}))
        state = {"id": str(found["id"]), "version": whole["version"]["number"]}
        text, title = _text(whole)
        return Content(text, title or None, state, traffic.bytes) if text else Failed("the page has no text")

    def _space(self, client: Any, space: str, previous: Mapping[str, Any] | None, traffic: Traffic) -> Outcome:
        listed = sorted((int(each["id"]), each["version"]["number"]) for each in self._pages(client, space, "version"))
        if not listed:
            return Failed(f"the space {space} has no page that this account may read")
        if len(listed) > MAX_PAGES:
            return Failed(f"the space {space} has more than {MAX_PAGES:,} pages; watch its pages one by one")
        state = {"version": hashlib.sha256(json.dumps(listed).encode()).hexdigest()}
        if previous and previous == state:
            return Unchanged(bytes=traffic.bytes)
        traffic.listed = True
        pages = sorted(self._pages(client, space, "body.storage,version"), key=lambda page: int(page["id"]))
        text = "\n\n".join(text for text, _ in map(_text, pages) if text)
        return Content(text, space, state, traffic.bytes) if text else Failed(f"the space {space} has no text")

    def _pages(self, client: Any, space: str, expand: str) -> Iterator[dict[str, Any]]:
        """All pages, up to a few more than allowed; a server may return shorter lists than requested."""
        wanted = {"spaceKey": space, "type": "page", "status": "current", "expand": expand, "limit": PAGE_SIZE}
        count = 0
        while True:
            answer = _document(client.get("rest/api/content", params={"start": count, **wanted}))
            results = answer["results"]
            yield from results
            count += len(results)
            following = answer.get("_links", {}).get("next")
            if not results or not following or count > MAX_PAGES:
                return
            # The query of the next list; its address may name another host.
            wanted |= dict(parse_qsl(urlsplit(following).query))


def _document(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise TypeError("not a JSON object")
    return answer


def _text(page: Mapping[str, Any]) -> tuple[str, str]:
    """A page as Markdown, empty if it has no body, and its title."""
    title = " ".join(clean(str(page["title"])).split())
    body = markdown_of(page["body"]["storage"]["value"])
    return (f"# {title}\n\n{body}" if body else ""), title


class Named(NamedTuple):
    """A page by its id, or by its title in a space; or a whole space."""

    page: str = ""
    space: str = ""
    title: str = ""


def named(reference: Reference) -> Named | None:
    """The page or space that a reference names; a page of a space is the page."""
    given = reference.parameters
    page = given.get("pageId", "")
    if match := re.search(r"/pages/([0-9]+)(?:/|$)", reference.path):
        page = match[1]
    if page:
        return Named(page) if page.isascii() and page.isdigit() else None
    if match := re.search(r"/display/([^/]+)/([^/]+)/?$", reference.path):
        return Named("", unquote(match[1]), unquote_plus(match[2]))
    space = given.get("space") or given.get("spaceKey") or given.get("key") or ""
    if match := re.search(r"/(?:spaces|display)/([^/]+?)(?:/overview|/pages)?/?$", reference.path):
        # Such as viewspace.action, with the key in the query.
        space = space if match[1].endswith(".action") else unquote(match[1])
    return Named("", space) if space else None
