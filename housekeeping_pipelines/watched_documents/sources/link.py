"""Web pages and files: `link://https://example.com/page`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.resources.fetching import FetchError, retry_after
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, State, Unchanged
from housekeeping_pipelines.watched_documents.sources.extraction import NotReadable, extract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from housekeeping_pipelines.resources.fetching import Fetcher, Response
    from housekeeping_pipelines.watched_documents.sources import Outcome
    from housekeeping_pipelines.watched_documents.sources.references import Reference

_ACCEPT = "text/html,application/xhtml+xml,text/markdown,text/plain,application/pdf;q=0.9,*/*;q=0.5"


class LinkSource:
    """Sends the validators of the last answer: an unchanged page costs a few hundred bytes.

    Its state is `etag` and `last_modified` as sent by the server, and `url` if the page has moved.
    """

    def __init__(self, fetcher: Fetcher, *, now: Callable[[], datetime] = utc_now) -> None:
        self._fetcher = fetcher
        self._now = now

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        """See `Source`."""
        conditions = _conditions(previous or {})
        try:
            response = self._get(reference, conditions)
            if response.status == 304 and conditions and _moved_to(reference, response) != (previous or {}).get("url"):
                # The address redirects elsewhere by now: the date was that of another page.
                conditions = {}
                response = self._get(reference, conditions)
        except FetchError as error:
            return Failed(error.one_line)
        if response.status == 304:
            if not conditions:
                return Failed(f"{reference.host} answers 304, not modified, to an unconditional request")
            state = {**(previous or {}), **_state(reference, response)}
            return Unchanged(state if state != previous else None, response.transferred)
        if response.status in (404, 410):
            return Gone(f"{reference.host} answers {response.status}")
        if response.status != 200:
            return Failed(f"{reference.host} answers {response.status}", retry_after(response.headers, self._now()))
        try:
            found = extract(response.body, response.headers.get("content-type", ""), response.url)
        except NotReadable as error:
            return Failed(f"{reference.host} answers, but {error}")
        return Content(found.text, found.title, _state(reference, response), response.transferred)

    def _get(self, reference: Reference, conditions: Mapping[str, str]) -> Response:
        return self._fetcher.get(reference.address, {"accept": _ACCEPT, **conditions})


def _conditions(previous: Mapping[str, Any]) -> dict[str, str]:
    headers = {"if-none-match": previous.get("etag"), "if-modified-since": previous.get("last_modified")}
    return {name: value for name, value in headers.items() if value and isinstance(value, str)}


def _moved_to(reference: Reference, response: Response) -> str | None:
    """The address of the page; None if it is that of the reference."""
    # Normalised as the fetcher normalises addresses.
    import httpx

    asked = str(httpx.URL(reference.address).copy_with(fragment=None))
    return None if response.url == asked else response.url


def _state(reference: Reference, response: Response) -> State:
    found = {
        "etag": response.headers.get("etag"),
        "last_modified": response.headers.get("last-modified"),
        "url": _moved_to(reference, response),
    }
    return {name: value for name, value in found.items() if value}
