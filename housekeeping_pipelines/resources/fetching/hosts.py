"""Limits the requests to one host: how many at the same time, and how often."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from housekeeping_pipelines.resources.fetching.errors import FetchFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from housekeeping_pipelines.resources.fetching.deadlines import Deadline


@dataclass
class _Host:
    active: int = 0
    next_start: float = float("-inf")


class HostLimits:
    """A semaphore and a rate limit for each host. No thread holds a turn while it waits for another: no deadlock."""

    def __init__(self, limit: int, interval_seconds: float, monotonic: Callable[[], float]) -> None:
        self._limit = max(1, limit)
        self._interval_seconds = max(0.0, interval_seconds)
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._hosts: dict[str, _Host] = {}

    @contextmanager
    def turn(self, host: str, deadline: Deadline) -> Iterator[None]:
        """Wait for a turn, and hold it for the `with` block.

        Raises:
            FetchFailed: no turn was free before the deadline.
        """
        with self._changed:
            while True:
                state = self._hosts.setdefault(host, _Host())
                pause = state.next_start - self._monotonic()
                if state.active < self._limit and pause <= 0:
                    break
                left = deadline.remaining()
                if left <= 0:
                    raise FetchFailed(f"{host} was busy with other requests for {deadline.seconds:g} s")
                self._changed.wait(min(left, pause) if state.active < self._limit else left)
            state.active += 1
            state.next_start = self._monotonic() + self._interval_seconds
        try:
            yield
        finally:
            with self._changed:
                state.active -= 1
                now = self._monotonic()
                idle = [name for name, each in self._hosts.items() if not each.active and each.next_start <= now]
                for name in idle:
                    del self._hosts[name]
                self._changed.notify_all()
