"""How a watched document is named: `link://https://…`, `github://https://github.com/owner/name?branch=main`, and so on.

What stands behind the scheme is the address that a person sees in a browser; what else a source must know is in its
query: `branch` and `path` of a repository, `pageId` of a wiki.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What AnythingLLM puts into a query that only its own collector can read.
PAYLOAD = "payload"


@dataclass(frozen=True)
class Reference:
    """A parsed reference.

    Attributes:
        text: the reference as it is kept.
        scheme: the kind of source.
        address: the rest as it stands, with its query.
        host: of the address, in lower case; empty if it is not an address, as in `youtube://ID`.
        path: of the address.
        parameters: of its query.
    """

    text: str
    scheme: str
    address: str
    host: str
    path: str
    parameters: Mapping[str, str]

    @property
    def site(self) -> str:
        """`https://host:port`, or empty."""
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


def origin(address: str) -> tuple[str, str, int | None]:
    """Scheme, host and port, for whether two addresses are on one server."""
    parts = urlsplit(address)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def parse_reference(text: str) -> Reference:
    """
    Raises:
        ConfigurationError: it is none.
    """
    scheme, separator, address = text.strip().partition("://")
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        wrong = bool(parts.username or parts.password)
        _ = parts.port
    except ValueError:
        host, parts, wrong = "", urlsplit(""), True
    if wrong or not separator or not scheme.isidentifier() or not address or any(sign.isspace() for sign in address):
        raise ConfigurationError(
            f"{_shown(text)} is no reference to a document",
            hint="accepted: link://https://example.com/page, or another scheme of docs/watched-documents.md",
        )
    if scheme.lower() in ("http", "https"):
        raise ConfigurationError(
            f"{_shown(text)} names no kind of source", hint=f"for a web page: link://{text.strip()}"
        )
    return Reference(text.strip(), scheme.lower(), address, host, parts.path, dict(parse_qsl(parts.query)))


def _shown(text: str) -> str:
    """As it may be shown and logged: without a password in the address."""
    return repr(re.sub(r"[^/\s]+@", "***@", text[:200]))
