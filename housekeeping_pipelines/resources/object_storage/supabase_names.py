"""Names that can be sent to the storage server, and how many fit into one request."""

from __future__ import annotations

import json
from itertools import takewhile
from typing import TYPE_CHECKING
from urllib.parse import quote

from housekeeping_pipelines.resources.object_storage import StorageRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# The server removes in transactions of 500: a larger batch may be half done when it fails.
_BATCH_NAMES = 500
# The server accepts 1 MiB of JSON; the rest is left for what surrounds the names.
_BATCH_BYTES = 900 * 1024


def is_sendable(name: str) -> bool:
    """Whether it can be sent: the server answers 500 to a NUL, and JSON has no lone surrogates."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return False
    return b"\0" not in encoded and len(encoded) < _BATCH_BYTES // 2


def url_path(name: str) -> str:
    """A name, quoted for those methods of the client that unquote it and drop leading and doubled slashes.

    Raises:
        StorageRefused: the client would change it into another name.
    """
    if not name or not is_sendable(name) or any(part in ("", ".", "..") for part in name.split("/")):
        raise StorageRefused(f"{name!a} is not a name that can be sent to storage")
    return quote(name)


def in_batches(names: Sequence[str]) -> Iterator[list[str]]:
    """The names, in lists that the server accepts in one request."""
    batch: list[str] = []
    size = 0
    for name in names:
        # With the comma; the client sends characters beyond ASCII as they are.
        needed = len(json.dumps(name, ensure_ascii=False).encode()) + 1
        if batch and (len(batch) == _BATCH_NAMES or size + needed > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += needed
    if batch:
        yield batch


def ascending(names: Iterable[str]) -> Iterator[str]:
    """Each name that can have been stored, once; raises ValueError if they do not ascend."""
    last: str | None = None
    for name in names:
        if last is not None and name < last:
            raise ValueError("names must ascend")
        if name != last and name and is_sendable(name):
            yield name
        last = name


def common_beginning(first: str, second: str) -> str:
    """The longest prefix of both."""
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
