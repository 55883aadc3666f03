"""Resolves a name once, checks its addresses and connects; no other module opens a connection."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from typing import TYPE_CHECKING, Any

import httpcore

from housekeeping_pipelines.resources.fetching.errors import FetchFailed, FetchRefused

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from housekeeping_pipelines.resources.fetching.addresses import Address, AllowedHosts
    from housekeeping_pipelines.resources.fetching.deadlines import CurrentDeadline, Deadline


class GuardedBackend(httpcore.NetworkBackend):
    """Opens the connections of a pool, each to a checked address."""

    def __init__(
        self,
        allowed: AllowedHosts,
        resolve: Callable[..., Iterable[tuple[Any, ...]]],
        current: CurrentDeadline,
        connect_timeout_seconds: float,
    ) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._current = current
        self._connect_timeout_seconds = connect_timeout_seconds
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """
        Raises:
            FetchRefused: one of the addresses is not allowed.
            FetchFailed: the name has no address, or none that answers in time.
        """
        deadline = self._current.get().within(self._connect_timeout_seconds)
        addresses = self._addresses(host, port, deadline)
        for address in addresses:
            if reason := self._allowed.refusal(host, port, address):
                raise FetchRefused(
                    f"{host} {reason}", hint="if it may be fetched, add its address to FETCH_ALLOWED_HOSTS"
                )
        problem = "does not answer"
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            # An address that drops packets must leave time for the others.
            seconds = deadline.remaining() / left
            if seconds <= 0:
                break
            try:
                stream = self._network.connect_tcp(str(address), port, seconds, socket_options=socket_options)
            except httpcore.ConnectTimeout:
                continue
            except httpcore.ConnectError as error:
                problem = _reason(error)
                continue
            return _Stream(stream, self._current)
        raise FetchFailed(f"{host}, port {port}, does not accept a connection: {problem}")

    def _addresses(self, host: str, port: int, deadline: Deadline) -> list[Address]:
        """The addresses of a name in the resolver's order, without duplicates.

        The resolver has no timeout that can be set, so it runs in a thread of its own.
        """
        answers: queue.SimpleQueue[list[Address] | Exception] = queue.SimpleQueue()

        def ask() -> None:
            try:
                found = self._resolve(host, port, type=socket.SOCK_STREAM)
                addresses = (
                    ipaddress.ip_address(entry[4][0])
                    for entry in found
                    if entry[0] in (socket.AF_INET, socket.AF_INET6)
                )
                answers.put(list(dict.fromkeys(addresses)))
            except (OSError, ValueError) as error:
                answers.put(error)

        threading.Thread(target=ask, daemon=True, name="resolve").start()
        try:
            answer = answers.get(timeout=deadline.remaining())
        except queue.Empty:
            raise FetchFailed(f"the name {host} could not be looked up within {deadline.seconds:.3g} s") from None
        if isinstance(answer, Exception) or not answer:
            reason = getattr(answer, "strerror", None) or "it has no address"
            raise FetchFailed(f"the name {host} cannot be looked up: {reason}")
        return answer


class _Stream(httpcore.NetworkStream):
    """A connection whose every read and write ends at the deadline, however slowly the server sends."""

    def __init__(self, stream: httpcore.NetworkStream, current: CurrentDeadline) -> None:
        self._stream = stream
        self._current = current

    def _left(self, error: type[Exception]) -> float:
        left = self._current.get().remaining()
        if left <= 0:
            raise error("the deadline is over")
        return left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._left(httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._current)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error.__context__
    return (getattr(cause, "strerror", None) or str(error)).lower()
