"""Fetches: one request at a time and its redirects, within one deadline and one limit of bytes."""

from __future__ import annotations

import re
import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

from housekeeping_pipelines.resources.fetching.addresses import AllowedHosts
from housekeeping_pipelines.resources.fetching.bodies import ACCEPT_ENCODING, read_body
from housekeeping_pipelines.resources.fetching.connecting import GuardedBackend
from housekeeping_pipelines.resources.fetching.deadlines import CurrentDeadline, Deadline
from housekeeping_pipelines.resources.fetching.errors import FetchFailed, FetchRefused
from housekeeping_pipelines.resources.fetching.hosts import HostLimits
from housekeeping_pipelines.resources.fetching.policy import SAFE_CROSS_ORIGIN_HEADERS, FetchPolicy, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import requests


_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?|[0-9a-f:.]+")
# Shorter than the idle timeout of servers, so that no connection is reused while the server closes it.
_KEEPALIVE_SECONDS = 2.0


class Fetcher:
    """It may be used by many threads at once."""

    def __init__(
        self,
        policy: FetchPolicy | None = None,
        *,
        resolve: Callable[..., Iterable[tuple[Any, ...]]] = socket.getaddrinfo,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connects to nothing yet.

        Args:
            resolve: called as `socket.getaddrinfo` is, with a host, a port and `type=`.

        Raises:
            ConfigurationError: an entry of `allowed_hosts` is not valid.
        """
        self.policy = policy or FetchPolicy()
        self._monotonic = monotonic
        self._current = CurrentDeadline()
        self._hosts = HostLimits(self.policy.per_host, self.policy.per_host_interval_seconds, monotonic)
        self._pool = httpcore.ConnectionPool(
            # SSL_CERT_FILE is honoured; proxies are not.
            ssl_context=httpx.create_ssl_context(trust_env=True),
            max_connections=None,
            max_keepalive_connections=32,
            keepalive_expiry=_KEEPALIVE_SECONDS,
            network_backend=GuardedBackend(
                AllowedHosts(self.policy.allowed_hosts), resolve, self._current, self.policy.connect_timeout_seconds
            ),
        )

    def now(self) -> float:
        """The monotonic clock that deadlines are measured by, in seconds."""
        return self._monotonic()

    def close(self) -> None:
        """Close the connections. The fetcher stays usable and opens new ones."""
        self._pool.close()

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Response:
        """As `request`."""
        return self.request("GET", url, headers=headers)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        params: Mapping[str, str | int] | None = None,
        content: bytes | None = None,
        timeout_seconds: float | None = None,
        max_bytes: int | None = None,
        max_redirects: int | None = None,
    ) -> Response:
        """Send a request, and follow redirects of GET and HEAD; another origin is not sent the caller's secrets.

        Args:
            params: added to the query of the address.
            timeout_seconds, max_bytes, max_redirects: override the policy's; with 0, a redirect is returned as it is.

        Raises:
            FetchRefused: the address, or one that it redirects to, is not allowed.
            FetchFailed: no answer, no complete answer in time, too large an answer, or one that is not valid HTTP.
        """
        deadline = Deadline(
            self.policy.timeout_seconds if timeout_seconds is None else timeout_seconds, self._monotonic
        )
        limit = self.policy.max_bytes if max_bytes is None else max_bytes
        hops = self.policy.max_redirects if max_redirects is None else max_redirects
        follow = method.upper() in ("GET", "HEAD") and hops > 0
        target = self._checked(url)
        if params:
            target = target.copy_merge_params(params)
        sent = self._headers(headers or {})
        cookies = httpx.Cookies()
        for _ in range(hops + 1):
            request = _request(method, target, sent, json, content)
            if "cookie" not in request.headers:
                cookies.set_cookie_header(request)
            answer, response = self._send(request, deadline, limit, follow=follow)
            if response is not None:
                return response
            cookies.extract_cookies(answer)
            following = self._checked(_location(target, answer))
            if _origin(following) != _origin(target):
                sent = {name: value for name, value in sent.items() if name in SAFE_CROSS_ORIGIN_HEADERS}
            target = following
        raise FetchRefused(f"{target.host} redirects more than {hops} times")

    def session(self) -> requests.Session:
        """A session for client libraries, with the same guard and limits.

        Its errors are `FetchRefused` and `FetchFailed`, and requests' `ConnectionError` as well. Proxies and
        credentials of the environment are not used.
        """
        from housekeeping_pipelines.resources.fetching.session import GuardedSession

        return GuardedSession(self)

    def _send(
        self, request: httpx.Request, deadline: Deadline, limit: int, *, follow: bool
    ) -> tuple[httpx.Response, Response | None]:
        """The answer; the body of a redirect that is followed is not read."""
        host = request.url.host
        try:
            with self._hosts.turn(host, deadline), self._current.set(deadline):
                raw = self._pool.handle_request(_raw(request))
                with closing(raw):
                    answer = httpx.Response(raw.status, headers=raw.headers, request=request)
                    if follow and raw.status in _REDIRECTS and "location" in answer.headers:
                        return answer, None
                    body, transferred = read_body(
                        host,
                        _chunks(raw, request.method),
                        answer.headers.get("content-encoding", ""),
                        answer.headers.get("content-length", "") if request.method != "HEAD" else "",
                        limit,
                    )
        except httpcore.TimeoutException:
            raise FetchFailed(f"{host} did not answer in full within {deadline.seconds:.3g} s") from None
        except httpcore.NetworkError as error:
            raise FetchFailed(f"the connection to {host} broke: {_short(error)}") from None
        except (httpcore.ProtocolError, httpcore.ConnectionNotAvailable) as error:
            raise FetchFailed(f"{host} does not answer in valid HTTP: {_short(error)}") from None
        return answer, Response(raw.status, str(request.url), answer.headers, body, transferred)

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        own = {"accept": "*/*", "user-agent": self.policy.user_agent}
        given = {name.lower(): value for name, value in headers.items()}
        return {**own, **given, "accept-encoding": ACCEPT_ENCODING}

    def _checked(self, url: str | httpx.URL) -> httpx.URL:
        """The address, without its fragment.

        Raises:
            FetchRefused: it cannot be fetched. The addresses of its host are checked when a connection is opened.
        """
        try:
            parsed = httpx.URL(url)
            host = parsed.raw_host.decode("ascii")
        except (httpx.InvalidURL, UnicodeError, ValueError):
            raise FetchRefused("it is not an address of the web") from None
        if parsed.scheme not in ("http", "https"):
            raise FetchRefused(f"{parsed.scheme[:20] or 'nothing'}:// is not fetched, only http:// and https://")
        if parsed.userinfo:
            raise FetchRefused(
                f"the address on {host[:80]} has a user or password in it", hint="remove them from the address"
            )
        if not _HOST.fullmatch(host) or len(host) > 254 or ".." in host:
            raise FetchRefused(f"{host[:80]!a} is not a valid host name")
        if parsed.port is not None and not 0 < parsed.port < 65536:
            raise FetchRefused(f"{host} has no port {parsed.port}")
        return parsed.copy_with(fragment=None)


def _request(
    method: str, url: httpx.URL, headers: Mapping[str, str], json: Any, content: bytes | None
) -> httpx.Request:
    try:
        return httpx.Request(method, url, headers=headers, json=json, content=content)
    except (UnicodeError, TypeError, ValueError):
        raise FetchRefused(f"the request to {url.host} has headers that cannot be sent") from None


def _raw(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.read(),
    )


def _chunks(raw: httpcore.Response, method: str) -> Iterable[bytes]:
    return () if method == "HEAD" else raw.iter_stream()


def _location(target: httpx.URL, answer: httpx.Response) -> httpx.URL:
    try:
        return target.join(answer.headers["location"].strip())
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise FetchRefused(f"{target.host} redirects to what is not an address of the web") from None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
