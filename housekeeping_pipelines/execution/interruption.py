"""SIGINT and SIGTERM while a task works: the step that changes something is finished, and the task ends with a report.

Python calls signal handlers between any two instructions of the main thread. A handler that raises there would break
off a batch between its rows and its files. So a task says which of its steps must be finished; elsewhere, as in a long
listing or query, the signal raises at once, and psycopg cancels the query. A second signal raises wherever it comes.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# A shell's exit code of a program that a signal ended is this and the signal's number.
_EXIT_CODE = 128


class Interrupted(KeyboardInterrupt):
    """A signal came while nothing was being changed. As a KeyboardInterrupt it makes psycopg cancel its query."""


class Interruption:
    """The signal that this process was sent while a task worked, if any."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._tasks = 0
        self._steps = 0

    def __bool__(self) -> bool:
        return self._signal is not None

    @property
    def name(self) -> str:
        """Such as `SIGTERM`."""
        return self._signal.name if self._signal is not None else "nothing"

    @property
    def exit_code(self) -> int:
        """130 for SIGINT, 143 for SIGTERM."""
        return _EXIT_CODE + (self._signal or signal.SIGINT)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the signals that come during the block; they raise nothing unless a `task` is in progress."""
        if threading.current_thread() is not threading.main_thread():
            # Only the main thread gets signals.
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        # A shell starts background processes with SIGINT ignored, so that Ctrl-C is not meant for them.
        before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
        for number in before:
            signal.signal(number, self._receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                # None: it was not installed from Python.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def task(self) -> Iterator[None]:
        """A task that a signal may break off, but for its steps."""
        self._tasks += 1
        try:
            if self and not self._steps:
                raise Interrupted
            yield
        finally:
            self._tasks -= 1

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step that is finished before a signal has an effect."""
        self._steps += 1
        try:
            yield
        finally:
            self._steps -= 1

    def clear(self) -> None:
        """Forget the signal, once it has had its effect."""
        self._signal = None

    def _receive(self, number: int, _: FrameType | None) -> None:
        is_second = bool(self)
        self._signal = signal.Signals(number)
        if self._tasks and (is_second or not self._steps):
            raise Interrupted


# Signals are a process's, and so is this.
INTERRUPTION = Interruption()
