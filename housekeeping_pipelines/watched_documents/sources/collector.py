"""Fetches any kind of source through a collector: AnythingLLM's, or another program with its protocol.

The collector is the operator's own server, so requests to it bypass the guard of `resources.fetching`.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from housekeeping_pipelines.watched_documents.sources import Content, Failed
from housekeeping_pipelines.watched_documents.sources.decoding import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

    from housekeeping_pipelines.watched_documents.sources import Outcome
    from housekeeping_pipelines.watched_documents.sources.references import Reference

# For large repositories and long videos.
TIMEOUT_SECONDS = 900.0
MAX_BYTES = 64 * 2**20

_CONNECT_SECONDS = 10.0
_BY_LINK = frozenset({"link", "youtube"})


class CollectorSource:
    """Its state is empty: the protocol has no conditional request."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        max_bytes: int = MAX_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            url: of the collector, without `/ext/resync-source-document`.
            timeout_seconds: for the whole answer.
        """
        self._url = url.rstrip("/") + "/ext/resync-source-document"
        self._label = f"the collector at {urlsplit(url).netloc.rpartition('@')[2]}"
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._client: httpx.Client | None = None
        self._opening = threading.Lock()

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        """See `Source`; returns the content or a failure."""
        import httpx

        options = {"link": _link(reference)} if reference.scheme in _BY_LINK else {"chunkSource": reference.text}
        try:
            status, body = self._post({"type": reference.scheme, "options": options})
        except httpx.TimeoutException:
            return Failed(f"{self._label} did not answer in full within {self._timeout_seconds:g} s")
        except (httpx.HTTPError, httpx.InvalidURL):
            return Failed(f"{self._label} does not answer; check COLLECTOR_URL")
        if body is None:
            return Failed(f"the answer of {self._label} is larger than {self._max_bytes / 2**20:.3g} MiB")
        if status != 200:
            return Failed(f"{self._label} answers {status}")
        return self._outcome(body)

    def close(self) -> None:
        """Close the connections. The source stays usable and opens new ones."""
        with self._opening:
            if self._client is not None:
                self._client.close()
            self._client = None

    def _outcome(self, body: bytes) -> Outcome:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            return Failed(f"{self._label} does not answer as a collector does; check COLLECTOR_URL")
        content = answer.get("content")
        if answer.get("success") is not True or not isinstance(content, str):
            reason = answer.get("reason")
            said = " ".join(clean(reason).split())[:300] if isinstance(reason, str) else ""
            return Failed(f"{self._label} has no content: {said or 'it gives no reason'}")
        text = clean(content)
        if not text.strip():
            return Failed(f"{self._label} found no text")
        return Content(text, bytes=len(body))

    def _post(self, question: Mapping[str, Any]) -> tuple[int, bytes | None]:
        """The status, and the body unless it is too large."""
        import httpx

        with self._opening:
            if self._client is None:
                timeout = httpx.Timeout(self._timeout_seconds, connect=_CONNECT_SECONDS, pool=None)
                limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)
                self._client = httpx.Client(timeout=timeout, limits=limits)
            client = self._client
        ends_at = self._monotonic() + self._timeout_seconds
        with client.stream("POST", self._url, json=question, headers={"accept-encoding": "identity"}) as response:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > self._max_bytes:
                    return response.status_code, None
                if self._monotonic() > ends_at:
                    raise httpx.ReadTimeout("the answer was not complete in time")
            return response.status_code, bytes(body)


def _link(reference: Reference) -> str:
    """The address in a browser; that of the video for `youtube://ID`."""
    if reference.scheme != "youtube" or reference.site:
        return reference.address
    bare = "/" not in reference.address
    return f"https://www.youtube.com/watch?v={reference.address}" if bare else f"https://{reference.address}"
