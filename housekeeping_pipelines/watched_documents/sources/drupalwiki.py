"""Pages and whole spaces of a Drupal Wiki, by its REST interface.

drupalwiki://https://wiki.example.com?space=12 (or spaceId=12)
drupalwiki://https://wiki.example.com?pageId=345
drupalwiki://https://wiki.example.com/node/345
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.resources.fetching import FetchError, retry_after
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Unchanged
from housekeeping_pipelines.watched_documents.sources.decoding import clean
from housekeeping_pipelines.watched_documents.sources.references import origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from housekeeping_pipelines.resources.fetching import Fetcher
    from housekeeping_pipelines.watched_documents.sources import Outcome
    from housekeeping_pipelines.watched_documents.sources.references import Reference

# Pages per request, as other clients request.
_LISTED = 100
# More pages would take hours.
MAX_PAGES = 5_000

_NODE = re.compile(r"/node/(\d+)")


@dataclass(frozen=True, slots=True)
class _Stop(Exception):
    outcome: Outcome


class DrupalWikiSource:
    """Its state is the time of a page's last change, or a digest of those of all pages of a space.

    A space is one document of all its pages, ordered by id.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        base_url: str | None,
        token: str | None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """
        Args:
            base_url: of the wiki; the token is sent to it alone.
            token: of the REST interface, sent as a bearer token.
        """
        self._fetcher = fetcher
        self._base_url = (base_url or "").rstrip("/")
        self._token = token
        self._now = now

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        """See `Source`."""
        if not self._base_url or origin(reference.site) != origin(self._base_url):
            return Failed(f"{reference.host or 'the reference'} is another wiki; set DRUPALWIKI_URL to its address")
        subject = named(reference)
        if subject is None:
            return Failed("the reference does not name a page or a space: add ?pageId=NUMBER or ?space=NUMBER")
        try:
            if subject.kind == "page":
                return self._page(subject.number, previous or {})
            return self._space(subject.number, previous or {})
        except _Stop as stop:
            return stop.outcome

    def _page(self, number: int, previous: Mapping[str, Any]) -> Outcome:
        page, size = self._ask(f"page/{number}")
        changed = _changed(page)
        if changed is not None and changed == previous.get("lastModified"):
            return Unchanged(bytes=size)
        text, title = _text(page)
        state = {} if changed is None else {"lastModified": changed}
        return Content(text, title or None, state, size) if text else Failed(f"page {number} has no text")

    def _space(self, number: int, previous: Mapping[str, Any]) -> Outcome:
        listed, size = self._list(number)
        state = _digest(listed)
        if state and state == previous:
            return Unchanged(bytes=size)
        parts: list[str] = []
        for page_number in sorted(listed):
            try:
                page, bytes_of_page = self._ask(f"page/{page_number}")
            except _Stop as stop:
                # It was deleted after the listing.
                if isinstance(stop.outcome, Gone):
                    continue
                raise
            size += bytes_of_page
            text, _ = _text(page)
            if text:
                parts.append(text)
        if not parts:
            return Failed(f"space {number} has no page with text that DRUPALWIKI_TOKEN may read")
        return Content("\n\n".join(parts), None, state, size)

    def _list(self, space: int) -> tuple[dict[int, Mapping[str, Any]], int]:
        """The pages of a space by id; their bodies may be missing."""
        found: dict[int, Mapping[str, Any]] = {}
        size = at = 0
        while True:
            answer, transferred = self._ask("page", space=space, page=at, size=_LISTED)
            size += transferred
            content = answer.get("content")
            if not isinstance(content, list):
                raise _Stop(Failed(_unlike(self._base_url)))
            before = len(found)
            for page in content:
                if not isinstance(page, dict) or not isinstance(page.get("id"), int):
                    raise _Stop(Failed(_unlike(self._base_url)))
                found[page["id"]] = page
            at += 1
            if len(found) > MAX_PAGES:
                raise _Stop(Failed(f"the space has more than {MAX_PAGES:,} pages; watch its pages one by one"))
            total = answer.get("totalPages")
            if answer.get("last") is True or not content or (isinstance(total, int) and at >= total):
                return found, size
            if len(found) == before:
                raise _Stop(Failed("the wiki returns the same pages repeatedly"))

    def _ask(self, path: str, **parameters: int) -> tuple[Mapping[str, Any], int]:
        host = urlsplit(self._base_url).hostname
        headers = {"accept": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        try:
            response = self._fetcher.request(
                "GET", f"{self._base_url}/api/rest/scope/api/{path}", headers=headers, params=parameters
            )
        except FetchError as error:
            raise _Stop(Failed(error.one_line)) from None
        if response.status in (404, 410):
            raise _Stop(Gone(f"{host} answers {response.status}"))
        if response.status in (401, 403):
            raise _Stop(Failed(f"{host} answers {response.status}; check DRUPALWIKI_TOKEN"))
        if response.status != 200:
            raise _Stop(Failed(f"{host} answers {response.status}", retry_after(response.headers, self._now())))
        try:
            answer = json.loads(response.body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise _Stop(Failed(_unlike(self._base_url)))
        return answer, response.transferred


class Named(NamedTuple):
    """A page, or a whole space."""

    kind: Literal["page", "space"]
    number: int


def named(reference: Reference) -> Named | None:
    """The page or space that a reference names; a page of a space is the page."""
    given, node = reference.parameters, _NODE.search(reference.path)
    page = given.get("pageId") or (node[1] if node else "")
    space = given.get("space") or given.get("spaceId") or ""
    found = page or space
    if not (found.isascii() and found.isdigit()):
        return None
    return Named("page" if page else "space", int(found))


def _text(page: Mapping[str, Any]) -> tuple[str, str]:
    """A page as Markdown and its title; both are empty if it has no text."""
    from housekeeping_pipelines.watched_documents.sources.html import markdown_of

    title, body = page.get("title"), page.get("body")
    name = " ".join(clean(title).split()) if isinstance(title, str) else ""
    text = markdown_of(body) if isinstance(body, str) and body.strip() else ""
    return (f"# {name}\n\n{text}" if name else text) if text else "", name


def _changed(page: Mapping[str, Any]) -> str | int | None:
    """The time of the last change, in seconds since 1970 or as text; None if the wiki does not return it."""
    found = page.get("lastModified")
    return found if isinstance(found, str | int) and found else None


def _digest(pages: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """A digest that changes with any page; empty if the time of a change is missing."""
    known = [(number, _changed(page), page.get("title")) for number, page in sorted(pages.items())]
    if any(changed is None for _, changed, _ in known):
        return {}
    return {"pages": len(known), "digest": hashlib.sha256(json.dumps(known).encode()).hexdigest()}


def _unlike(url: str) -> str:
    return f"{urlsplit(url).hostname} does not answer as a Drupal Wiki; check DRUPALWIKI_URL"
