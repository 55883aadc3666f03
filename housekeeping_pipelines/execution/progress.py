"""How a run reports its progress: a few lines in the log, or a progress bar in the command."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

# Each line is a row of Dagster's event log: a run of an hour writes 120, not one a batch.
SECONDS_BETWEEN_LINES = 30.0


class Observer(Protocol):
    """What a run calls while it works."""

    def on_start(self, task: str, what: str, candidates: int, *, dry_run: bool) -> None:
        """The candidates are counted, and no guard refused the run."""

    def on_progress(self, task: str, done: int, candidates: int, rows: int) -> None:
        """So many candidates are dealt with, and so many rows of all tables are deleted."""

    def on_item(self, item: str) -> None:
        """One item was deleted, or would be in a real run."""


class LogObserver:
    """Logs the plan, and then a line every SECONDS_BETWEEN_LINES with the rate and what is left."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = self._last_logged_at = clock()

    def on_start(self, task: str, what: str, candidates: int, *, dry_run: bool) -> None:
        self._started = self._last_logged_at = self._clock()
        verb = "would take" if dry_run else "takes"
        logger.info("%s: %s %s from %s", task, verb, f"{candidates:,}", what)

    def on_progress(self, task: str, done: int, candidates: int, rows: int) -> None:
        now = self._clock()
        if now - self._last_logged_at < SECONDS_BETWEEN_LINES:
            return
        self._last_logged_at = now
        rate = done / (now - self._started)
        left = candidates - done
        logger.info(
            "%s: %s of %s done, %s rows, %.0f a second; %s left, about %.0f s",
            task, f"{done:,}", f"{candidates:,}", f"{rows:,}", rate, f"{left:,}", left / max(rate, 1e-9),
        )  # fmt: skip

    def on_item(self, item: str) -> None:
        logger.debug("%s", item)
