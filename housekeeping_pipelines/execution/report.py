"""What a run says about itself; the same object behind the UI, the command and the API."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self

from housekeeping_pipelines.errors import HousekeepingError, Refused

if TYPE_CHECKING:
    from datetime import datetime


Status = Literal["succeeded", "skipped", "partial", "refused", "failed"]
StoppedReason = Literal["max_rows", "max_files", "max_gigabytes", "max_seconds", "paused"]

# A report is stored whole in Dagster's event log and read by people: long lists help neither.
MAX_SAMPLE = 50
MAX_FAILED = 50

# Why a candidate, or what would be one, stays; and how that is said to people.
SKIP_REASONS = {
    "young": "too young",
    "held": "held",
    "unrecognised": "not recognised",
    "in_use": "in use",
    "locked": "locked by others",
    "budget": "left for the next run",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One item that went, or would go. `age_seconds` is null where the age is not a finite number."""

    item: str
    bytes: int | None
    age_seconds: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class FailedItem:
    """One item that stayed although it was to go, and why."""

    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: the status, and for a person why it is not success."""

    status: Status
    message: str | None = None
    error_type: str | None = None

    @classmethod
    def of(cls, error: HousekeepingError) -> Self:
        """The ending of a run that an error kept from its work."""
        status: Status = "refused" if isinstance(error, Refused) else "failed"
        return cls(status, error.one_line, type(error).__name__)

    @classmethod
    def failed(cls, error: HousekeepingError, *, note: str | None = None) -> Self:
        """The ending of a run that an error broke off; `note` is added to the message."""
        message = f"{error.one_line}; {note}" if note else error.one_line
        return cls("failed", message, type(error).__name__)


SUCCEEDED = Ending("succeeded")
PARTIAL = Ending("partial")


@dataclass(frozen=True, kw_only=True)
class Report:
    """The fields of every report (see docs/reports.md); counts are what was really deleted.

    Attributes:
        message: one line of why it did not succeed, or was skipped.
        error_type: the class of errors.py behind a run that was refused or failed.
        table: the table whose rows the task's policy selects, or the store; others go along.
        for_good: of `deleted`, what went to no trash, so that no undo brings it back.
    """

    task: str
    run_id: str
    dry_run: bool
    started_at: datetime
    duration_seconds: float
    status: Status
    stopped_reason: StoppedReason | None = None
    message: str | None = None
    error_type: str | None = None
    table: str | None = None
    scanned: int = 0
    candidates: int = 0
    deleted: dict[str, int] = field(default_factory=dict)
    would_delete: dict[str, int] = field(default_factory=dict)
    deleted_bytes: int = 0
    for_good: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SKIP_REASONS, 0))
    failed: tuple[FailedItem, ...] = ()
    failed_count: int = 0
    sample: tuple[Candidate, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def in_short(self) -> str:
        """What was done, as the end of a line of the log."""
        counts = self.would_delete if self.dry_run else self.deleted
        what = ", ".join(f"{count:,} of {name}" for name, count in counts.items()) or "nothing"
        return f"{'would delete' if self.dry_run else 'deleted'} {what}"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        document = asdict(self)
        document["started_at"] = self.started_at.isoformat()
        document["duration_seconds"] = round(self.duration_seconds, 3)
        return document
