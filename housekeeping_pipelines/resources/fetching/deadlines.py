"""One moment by which all parts of a fetch have to be over."""

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
        """Seconds that are left; 0 if none are."""
        return max(0.0, self._at - self._monotonic())

    def within(self, seconds: float) -> Deadline:
        """The earlier one of this and one in so many seconds."""
        return Deadline(min(seconds, self.remaining()), self._monotonic)


class CurrentDeadline(threading.local):
    """The deadline of what this thread fetches: a connection is used by one fetch after the other."""

    value: Deadline | None = None

    def get(self) -> Deadline:
        """
        Raises:
            RuntimeError: this thread fetches nothing.
        """
        if self.value is None:
            raise RuntimeError("a connection was used outside of a fetch")
        return self.value

    @contextmanager
    def set(self, deadline: Deadline) -> Iterator[None]:
        """Let it hold in a `with` block."""
        before, self.value = self.value, deadline
        try:
            yield
        finally:
            self.value = before
