"""Reads and decompresses bodies up to a limit: a few kilobytes can decompress to gigabytes."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.resources.fetching.errors import FetchFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

# The standard library can decompress these in bounded steps.
ACCEPT_ENCODING = "gzip, deflate"

_STEP = 64 * 1024


def read_body(host: str, chunks: Iterable[bytes], encoding: str, length: str, limit: int) -> tuple[bytes, int]:
    """The body decompressed, and how many bytes of it were transferred.

    Args:
        encoding: the header Content-Encoding; empty if there is none.
        length: the header Content-Length; empty if there is none.

    Raises:
        FetchFailed: the body is larger than the limit, in an encoding that was not requested, or damaged.
    """
    if length.isdigit() and int(length) > limit:
        raise _too_large(host, limit)
    unpacker = _unpacker(host, encoding)
    body = bytearray()
    transferred = 0
    for chunk in chunks:
        transferred += len(chunk)
        if transferred > limit:
            raise _too_large(host, limit)
        if unpacker is None:
            body += chunk
            continue
        try:
            unpacker.unpack(chunk, body, limit)
        except zlib.error:
            raise FetchFailed(f"the compressed answer of {host} is damaged") from None
        if len(body) > limit:
            raise _too_large(host, limit)
    if unpacker is not None and transferred and not unpacker.complete:
        raise FetchFailed(f"the compressed answer of {host} is incomplete")
    return bytes(body), transferred


class _Unpacker:
    """Decompresses a stream of one or several members, as gzip allows; bytes after the last member are padding."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._started = False
        self._stream: Any = zlib.decompressobj(zlib.MAX_WBITS | 16 if gzip else zlib.MAX_WBITS)

    @property
    def complete(self) -> bool:
        return bool(self._stream.eof)

    def unpack(self, data: bytes, body: bytearray, limit: int) -> None:
        """Append the decompressed data to the body, and stop soon after the limit."""
        while data and len(body) <= limit:
            if self._stream.eof:
                if not self._gzip or data[:1] != b"\x1f":
                    return
                self._stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                body += self._stream.decompress(data, _STEP)
            except zlib.error:
                if self._gzip or self._started:
                    raise
                # Some servers send deflate without the frame that RFC 9110 wants around it.
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
                body += self._stream.decompress(data, _STEP)
            self._started = True
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail


def _unpacker(host: str, encoding: str) -> _Unpacker | None:
    names = [name for part in encoding.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if not names:
        return None
    if len(names) == 1 and names[0] in ("gzip", "x-gzip", "deflate"):
        return _Unpacker(gzip=names[0] != "deflate")
    raise FetchFailed(f"the answer of {host} is compressed in a way that was not requested: {encoding[:40]!r}")


def _too_large(host: str, limit: int) -> FetchFailed:
    return FetchFailed(f"the answer of {host} is larger than {limit / 2**20:.3g} MiB")
