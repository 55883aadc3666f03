"""One run of one task, and everything that it works with: handed along whole, so that no step keeps a part of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.interruption import INTERRUPTION, Interrupted
from housekeeping_pipelines.execution.report import Ending, Report, interrupted
from housekeeping_pipelines.postgres import errors as database_errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from housekeeping_pipelines.execution.progress import Observer
    from housekeeping_pipelines.execution.report import StoppedReason


R = TypeVar("R", bound=Report)

# What a user or the database can cause: reported, never raised out of a run.
BROKEN_OFF = (HousekeepingError, sa.exc.DBAPIError, UnicodeDecodeError, Interrupted)


def ending_of(error: BaseException, url: sa.URL) -> Ending:
    """The ending of a run that one of `BROKEN_OFF` breaks off.

    Args:
        url: the database that raised it.
    """
    if isinstance(error, Interrupted):
        return interrupted(INTERRUPTION.name)
    if isinstance(error, sa.exc.DBAPIError):
        error = database_errors.explain(error, url)
    elif isinstance(error, UnicodeDecodeError):
        error = database_errors.explain_text(error)
    if not isinstance(error, HousekeepingError):
        raise error
    return Ending.of(error)


@dataclass(frozen=True)
class Started:
    """One task of one run, as it was started: what makes a report its own.

    Attributes:
        started: `monotonic()` at the start; `started_at` is the same moment by the clock.
    """

    task: str
    run_id: str
    dry_run: bool
    started_at: datetime
    started: float
    monotonic: Callable[[], float]

    @property
    def elapsed_seconds(self) -> float:
        """Since the start."""
        return self.monotonic() - self.started

    def has_to_stop(self, max_seconds: float | None = None) -> StoppedReason | None:
        """Why the run takes up nothing new: a signal came, or its time is up; None: it may go on.

        Args:
            max_seconds: the time that it may take; None: any.
        """
        if INTERRUPTION:
            return "interrupted"
        return "max_seconds" if max_seconds is not None and self.elapsed_seconds >= max_seconds else None

    def report(self, ending: Ending, *, kind: type[R] = Report, **fields: Any) -> R:  # type: ignore[assignment]
        """The report of a run that ends now."""
        stopped_reason = ending.stopped_reason or fields.pop("stopped_reason", None)
        if stopped_reason == "interrupted" and ending.status in ("succeeded", "partial"):
            ending = interrupted(INTERRUPTION.name)
        fields |= asdict(ending) | {"stopped_reason": stopped_reason}
        return kind(
            task=self.task,
            run_id=self.run_id,
            dry_run=self.dry_run,
            started_at=self.started_at,
            duration_seconds=self.elapsed_seconds,
            **fields,
        )


@dataclass(frozen=True)
class Run(Started):
    """A run with everything that it works with.

    Attributes:
        connection: holds the task's lock, and is in no transaction when the task begins.
        trashed: whether deleted rows are kept; False deletes permanently.
        paused_by_setting: HOUSEKEEPING_PAUSED.
        compares_clocks: whether a clock that differs from the server's keeps a deletion from starting.
    """

    connection: sa.Connection
    observer: Observer
    clock: Callable[[], datetime]
    trashed: bool
    paused_by_setting: bool
    compares_clocks: bool = False

    def ending_of(self, error: BaseException) -> Ending:
        """The ending of a run that one of `BROKEN_OFF` breaks off."""
        return ending_of(error, self.connection.engine.url)
