"""A `requests.Session` for client libraries that know no other, on top of the fetcher.

An adapter hands each request to the fetcher and converts its answer: no other code opens a socket.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.client import HTTPMessage, responses
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPHeaderDict, HTTPResponse

from housekeeping_pipelines.resources.fetching.errors import FetchFailed, FetchRefused
from housekeeping_pipelines.resources.fetching.policy import SAFE_CROSS_ORIGIN_HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.resources.fetching.fetcher import Fetcher
    from housekeeping_pipelines.resources.fetching.policy import Response


class SessionRefused(FetchRefused, requests.exceptions.ConnectionError):
    """A refusal that is also an error of requests, for client libraries."""


class SessionFailed(FetchFailed, requests.exceptions.ConnectionError):
    """A failure that is also an error of requests, for client libraries."""


class GuardedSession(requests.Session):
    """What `Fetcher.session` returns. Like any session, it is for one thread at a time."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._guard = _Adapter(fetcher)
        super().__init__()
        # No proxies, no .netrc.
        self.trust_env = False
        self.max_redirects = fetcher.policy.max_redirects
        self.headers["User-Agent"] = fetcher.policy.user_agent
        # Any other scheme is refused with a message.
        self.mount("", self._guard)

    def mount(self, prefix: str | bytes, adapter: requests.adapters.BaseAdapter) -> None:
        """Keep the guard: an adapter that a library mounts, for retries, would open its own connections."""
        super().mount(prefix, self._guard)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """As of any session; redirects share one deadline."""
        with self._guard.one_deadline():
            return super().send(request, **kwargs)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Drop every header that may be secret on a redirect to another origin; requests drops only Authorization."""
        if _origin(prepared_request.url) != _origin(response.request.url):
            # requests has chosen the cookies for the new origin.
            kept = {*SAFE_CROSS_ORIGIN_HEADERS, "cookie", "content-type", "content-length"}
            for name in [name for name in prepared_request.headers if name.lower() not in kept]:
                del prepared_request.headers[name]


class _Adapter(HTTPAdapter):
    """Sends each request through the fetcher."""

    def __init__(self, fetcher: Fetcher) -> None:
        super().__init__()
        self._fetcher = fetcher
        self._local = threading.local()

    @contextmanager
    def one_deadline(self) -> Iterator[None]:
        """One deadline for all requests that are sent in the outermost `with` block."""
        if getattr(self._local, "ends_at", None) is not None:
            yield
            return
        self._local.ends_at = self._fetcher.now() + self._fetcher.policy.timeout_seconds
        try:
            yield
        finally:
            self._local.ends_at = None

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """
        Raises:
            SessionRefused, SessionFailed: as `Fetcher.request`.
        """
        ends_at = getattr(self._local, "ends_at", None)
        most = self._fetcher.policy.timeout_seconds if ends_at is None else ends_at - self._fetcher.now()
        try:
            answer = self._fetcher.request(
                request.method or "GET",
                request.url or "",
                headers={
                    _text(name): _text(value)
                    for name, value in request.headers.items()
                    if name.lower() not in ("transfer-encoding", "content-length")
                },
                content=_body(request.body),
                timeout_seconds=max(0.0, min([most, *_seconds(timeout)])),
                max_redirects=0,
            )
        except FetchRefused as error:
            raise SessionRefused(error.message, hint=error.hint) from None
        except FetchFailed as error:
            raise SessionFailed(error.message, hint=error.hint) from None
        response = self.build_response(request, _raw(answer))
        # Counted by the sources as bytes on the wire.
        response.transferred = answer.transferred  # type: ignore[attr-defined]
        return response

    def close(self) -> None:
        """Does nothing: the connections belong to the fetcher."""


def _raw(answer: Response) -> HTTPResponse:
    headers = HTTPHeaderDict()
    message = HTTPMessage()
    for raw_name, raw_value in httpx.Headers(answer.headers).raw:
        # requests expects them as http.client decodes them.
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        # The fetcher has decompressed the body.
        if name.lower() not in ("content-encoding", "content-length", "transfer-encoding"):
            headers.add(name, value)
            message.add_header(name, value)
    # requests reads cookies from the message of http.client.
    original = SimpleNamespace(msg=message, close=lambda: None, isclosed=lambda: True)
    return HTTPResponse(
        body=BytesIO(answer.body),
        headers=headers,
        status=answer.status,
        reason=responses.get(answer.status, ""),
        preload_content=False,
        original_response=original,  # type: ignore[arg-type]
    )


def _body(body: Any) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    if hasattr(body, "read"):
        return _body(body.read())
    return b"".join(part.encode() if isinstance(part, str) else part for part in body)


def _seconds(timeout: Any) -> list[float]:
    """The seconds in requests' `timeout`: None, a number, or a pair for connecting and reading."""
    parts = timeout if isinstance(timeout, tuple) else (timeout,)
    return [float(part) for part in parts[-1:] if isinstance(part, int | float)]


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _origin(url: str | None) -> tuple[str, str]:
    """Scheme, host and port as written: equal values are the same origin, different ones may be."""
    try:
        parts = urlsplit(url or "")
    except ValueError:
        raise SessionRefused("it is not an address of the web") from None
    return parts.scheme, parts.netloc.lower().removesuffix({"http": ":80", "https": ":443"}.get(parts.scheme, ""))
