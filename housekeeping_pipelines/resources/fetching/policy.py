"""The limits of a fetch, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from housekeeping_pipelines import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping


USER_AGENT = f"housekeeping-pipelines/{__version__} (fetches watched documents again to see whether they changed)"


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """
    Attributes:
        allowed_hosts: hosts that may be fetched although they are not public: names, `*.suffix`, addresses, each with
            or without `:port`, and networks such as 10.0.0.0/8. Link-local addresses and those of a cloud's metadata
            service are allowed by an address or a network, never by a name.
        max_bytes: of a body, as transferred and as decompressed.
        timeout_seconds: for a whole fetch, with the wait for a turn, the redirects and the body.
        connect_timeout_seconds: for resolving the name and connecting to any of its addresses.
        per_host: requests to one host at the same time.
        per_host_interval_seconds: between the starts of two requests to one host, at least.
    """

    allowed_hosts: frozenset[str] = frozenset()
    max_bytes: int = 20 * 2**20
    max_redirects: int = 5
    timeout_seconds: float = 60.0
    connect_timeout_seconds: float = 10.0
    per_host: int = 4
    per_host_interval_seconds: float = 0.0
    user_agent: str = USER_AGENT


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, whatever its status.

    Attributes:
        url: of the answer, after redirects.
        headers: of any case; several of one name are joined by a comma.
        body: decompressed.
        transferred: bytes of the body on the wire, of this answer alone.
    """

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes
    transferred: int


# Headers that a redirect to another origin keeps; the others may contain a secret.
SAFE_CROSS_ORIGIN_HEADERS = frozenset(
    {"accept", "accept-encoding", "accept-language", "if-modified-since", "if-none-match", "user-agent"}
)
