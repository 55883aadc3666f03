"""One deadline for all parts of a fetch."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Deadline:
    """A moment of the monotonic clock."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self.seconds = seconds
        self._monotonic = monotonic
        self._at = monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._at - self._monotonic())

    def within(self, seconds: float) -> Deadline:
        """The earlier of this deadline and one in that many seconds."""
        return Deadline(min(seconds, self.remaining()), self._monotonic)


class CurrentDeadline(threading.local):
    """The deadline of the fetch in this thread; a pooled connection serves several fetches, one after the other."""

    value: Deadline | None = None

    def get(self) -> Deadline:
        """
        Raises:
            RuntimeError: no fetch is in progress in this thread.
        """
        if self.value is None:
            raise RuntimeError("a connection was used outside of a fetch")
        return self.value

    @contextmanager
    def set(self, deadline: Deadline) -> Iterator[None]:
        """Set the deadline for a `with` block."""
        before, self.value = self.value, deadline
        try:
            yield
        finally:
            self.value = before
