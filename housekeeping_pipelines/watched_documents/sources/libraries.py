"""What sources that go through a client library have in common: what passed on the wire, and what an error means."""

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

# What a library makes of an answer that is not what its service answers; RecursionError is a RuntimeError.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, AssertionError, RuntimeError)

TIMEOUT_SECONDS = 60


@dataclass
class Traffic:
    """What went over a session.

    Attributes:
        bytes: of all bodies.
        status, headers: of the last answer.
        listed: whether the service has said what the document consists of, so that it is there.
    """

    bytes: int = 0
    listed: bool = False
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    def watch(self, session: requests.Session) -> requests.Session:
        """The same session, watched."""
        session.hooks["response"].append(self._see)
        return session

    def _see(self, answer: requests.Response, *_: Any, **__: Any) -> None:
        self.bytes += getattr(answer, "transferred", len(answer.content))
        self.status, self.headers = answer.status_code, answer.headers


def outcome_of(
    error: Exception, traffic: Traffic, host: str, credentials: str, clock: Callable[[], datetime]
) -> Outcome:
    """What an error of a library means, by the answer that led to it.

    Args:
        credentials: the variables to look at when the service does not let us in.
    """
    if isinstance(error, FetchError):
        return Failed(error.one_line)
    status = traffic.status
    wait = retry_after(traffic.headers, clock())
    if status in (404, 410):
        if traffic.listed:
            return Failed(f"{host} answers {status} for a part of what it lists", wait)
        # Who may not read something is told that it is not there.
        hidden = f"; so it does for what {credentials} may not read" if status == 404 else ""
        return Gone(f"{host} answers {status}{hidden}")
    if 300 <= status < 400:
        return Failed(f"{host} redirects, and leads nowhere")
    if status in (401, 403) and wait is None:
        return Failed(f"{host} answers {status}: look at {credentials}")
    if status >= 400:
        return Failed(f"{host} answers {status}", wait)
    return Failed(f"{host} answers what cannot be read ({type(error).__name__})")
