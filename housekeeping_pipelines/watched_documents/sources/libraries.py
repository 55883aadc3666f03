"""Shared by sources with a client library: the traffic of a session, and the meaning of an error."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.resources.fetching import FetchError, retry_after
from housekeeping_pipelines.watched_documents.sources import Failed, Gone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import requests

    from housekeeping_pipelines.watched_documents.sources import Outcome

# Raised by libraries for unexpected answers; RecursionError is a RuntimeError.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, AssertionError, RuntimeError)

TIMEOUT_SECONDS = 60


@dataclass
class Traffic:
    """The traffic of a session.

    Attributes:
        bytes: of all bodies.
        status, headers: of the last answer.
        listed: whether the service has listed the parts of the document, which therefore exists.
    """

    bytes: int = 0
    listed: bool = False
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    def watch(self, session: requests.Session) -> requests.Session:
        """Record the traffic of a session, and return it."""
        session.hooks["response"].append(self._see)
        return session

    def _see(self, answer: requests.Response, *_: Any, **__: Any) -> None:
        self.bytes += getattr(answer, "transferred", len(answer.content))
        self.status, self.headers = answer.status_code, answer.headers


def outcome_of(
    error: Exception, traffic: Traffic, host: str, credentials: str, clock: Callable[[], datetime]
) -> Outcome:
    """The outcome of a library's error, by the last answer.

    Args:
        credentials: the variables to check if the service refuses access.
    """
    if isinstance(error, FetchError):
        return Failed(error.one_line)
    status = traffic.status
    wait = retry_after(traffic.headers, clock())
    if status in (404, 410):
        if traffic.listed:
            return Failed(f"{host} answers {status} for a part that it lists", wait)
        # Services hide what an account may not read.
        hidden = f"; the same answer hides what {credentials} may not read" if status == 404 else ""
        return Gone(f"{host} answers {status}{hidden}")
    if 300 <= status < 400:
        return Failed(f"{host} redirects to no usable address")
    if status in (401, 403) and wait is None:
        return Failed(f"{host} answers {status}: check {credentials}")
    if status >= 400:
        return Failed(f"{host} answers {status}", wait)
    return Failed(f"{host} answers what cannot be read ({type(error).__name__})")
