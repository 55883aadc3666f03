"""How a watched document is named: `link://https://…`, `github://https://github.com/owner/name?branch=main`, and so on.

After the scheme follows the address in a browser; its query has further parameters of the source: `branch` and `path`
of a repository, `pageId` of a wiki.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

# A query parameter of AnythingLLM that only its collector can decrypt.
PAYLOAD = "payload"


@dataclass(frozen=True)
class Reference:
    """A parsed reference.

    Attributes:
        text: the reference as it is stored.
        scheme: the kind of source.
        address: everything after the scheme, with the query.
        host: of the address, in lower case; empty if there is none, as in `youtube://ID`.
        path: of the address.
        parameters: of the query.
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
    """Scheme, host and port; equal for two addresses on one server."""
    parts = urlsplit(address)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def parse_reference(text: str) -> Reference:
    """
    Raises:
        ConfigurationError: it is not a valid reference.
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
            f"{_shown(text)} is not a reference to a document",
            hint="accepted: link://https://example.com/page, or another scheme of docs/watched-documents.md",
        )
    if scheme.lower() in ("http", "https"):
        raise ConfigurationError(
            f"{_shown(text)} has no scheme of a source", hint=f"for a web page: link://{text.strip()}"
        )
    return Reference(text.strip(), scheme.lower(), address, host, parts.path, dict(parse_qsl(parts.query)))


def _shown(text: str) -> str:
    """The text without passwords, for messages."""
    return repr(re.sub(r"[^/\s]+@", "***@", text[:200]))
