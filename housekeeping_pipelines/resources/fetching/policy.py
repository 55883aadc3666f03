"""What bounds a fetch, and what comes of it."""

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
        allowed_hosts: what may be fetched although it is not public: names, `*.suffix`, addresses, each with `:port` or
            without, and networks such as 10.0.0.0/8. Link-local addresses and those of a cloud's metadata are only
            allowed by an address or a network, never by a name.
        max_bytes: of a body, as transferred and as decompressed.
        timeout_seconds: for the whole of a fetch: waiting for the host's turn, redirects and the body included.
        connect_timeout_seconds: for resolving and connecting, all addresses of the name included.
        per_host: requests to one host at the same time.
        per_host_interval_seconds: the least time between the starts of two requests to one host.
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
        url: that answered, after redirects.
        headers: of any case; several of one name are joined by a comma.
        body: decompressed.
        transferred: bytes of the body on the wire, of this answer alone.
    """

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes
    transferred: int


# What another host may see of the caller's headers; the rest may hold a secret.
SAFE_CROSS_ORIGIN_HEADERS = frozenset(
    {"accept", "accept-encoding", "accept-language", "if-modified-since", "if-none-match", "user-agent"}
)
