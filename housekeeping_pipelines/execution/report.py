"""The report of a run: the same object behind the UI, the command and the API.

A kind of task has a class of its own, which adds fields and renders them: as lines for people (`lines`), as points of a
curve (`numbers`), and as tables (`tables`). The UI, the command and the API print these, and know no field by name.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

# A report is read back by its types, so that this is needed when it runs.
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self

from housekeeping_pipelines.errors import Absent, HousekeepingError, Refused
from housekeeping_pipelines.execution.wording import in_units

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Status = Literal["succeeded", "skipped", "partial", "refused", "failed"]
StoppedReason = Literal["max_rows", "max_files", "max_gigabytes", "max_seconds", "paused", "interrupted"]

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


# By these names a report counts files of a store; by any other, rows of a table.
STORES = ("uploads", "media", "bucket")

# What failed is listed in full elsewhere: in the report's fields, and in a table beside the summary.
SHOWN_FAILURES = 10

Mark = Literal["done", "note", "notice", "failure", "warning", "diff"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a report for people.

    Attributes:
        count, of: how many of what; a reader of a table may align them.
        block: text that belongs to the line and is shown as it stands.
    """

    mark: Mark
    text: str
    count: int | None = None
    of: str = ""
    block: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: the status, and for a person why it is not success."""

    status: Status
    message: str | None = None
    error_type: str | None = None
    stopped_reason: StoppedReason | None = None

    @classmethod
    def of(cls, error: HousekeepingError) -> Self:
        """The ending of a run that an error kept from its work."""
        status: Status = "failed"
        if isinstance(error, Refused):
            status = "refused"
        elif isinstance(error, Absent):
            status = "skipped"
        return cls(status, error.one_line, type(error).__name__)

    @classmethod
    def failed(cls, error: HousekeepingError, *, note: str | None = None) -> Self:
        """The ending of a run that an error broke off; `note` is added to the message."""
        message = f"{error.one_line}; {note}" if note else error.one_line
        return cls("failed", message, type(error).__name__)


def interrupted(signal: str) -> Ending:
    """The ending of a run that a signal ended."""
    return Ending("partial", f"interrupted by {signal}; the next run goes on", stopped_reason="interrupted")


SUCCEEDED = Ending("succeeded")
PARTIAL = Ending("partial")


@dataclass(frozen=True, kw_only=True)
class Report:
    """The fields of every report (see docs/reports.md). Counts are of what was really deleted.

    Attributes:
        message: one line of why it did not succeed, or was skipped.
        error_type: the class of errors.py behind a run that was refused or failed.
        table: the table whose rows the task's policy selects, or the store; dependent rows are of other tables.
        for_good: of `deleted`, what was deleted permanently, without trash.
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

    @classmethod
    def minimal(cls, task: str, run_id: str, ending: Ending, now: datetime) -> Self:
        """The report of a task that did not get as far as its own."""
        return cls(task=task, run_id=run_id, dry_run=False, started_at=now, duration_seconds=0.0, **asdict(ending))

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """The report that `to_dict` made the document of; fields that this version does not know are left out.

        Raises:
            ValueError: it is not the document of such a report.
        """
        # Only what reads reports needs it.
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_python(document)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        document = asdict(self)
        document["started_at"] = self.started_at.isoformat()
        document["duration_seconds"] = round(self.duration_seconds, 3)
        return document

    @property
    def is_success(self) -> bool:
        """Whether the run is green: it did its work, or another run was doing it."""
        return self.status in ("succeeded", "skipped")

    @property
    def reason(self) -> str:
        """One line of why the run is not a success; empty if it is."""
        if self.message or self.is_success:
            return self.message or ""
        first = next((f"; the first: {item.item}: {item.reason}" for item in self.failed), "")
        return f"{self.failed_count} failed{first}"

    @property
    def summary(self) -> str:
        """What was done, as the end of a line of the log."""
        counts = self.would_delete if self.dry_run else self.deleted
        what = ", ".join(f"{count:,} of {name}" for name, count in counts.items()) or "nothing"
        return f"{'would delete' if self.dry_run else 'deleted'} {what}"

    def lines(self) -> Iterator[Line]:
        """The report for people, its status and message apart."""
        done = list(self.done_lines())
        yield from done
        if kept := ", ".join(f"{count:,} {SKIP_REASONS[reason]}" for reason, count in self.skipped.items() if count):
            yield Line("note", f"kept {kept}")
        yield from self.detail_lines()
        if self.stopped_reason and self.stopped_reason != "interrupted":
            yield Line("notice", f"stopped by {self.stopped_reason}; the next run goes on")
        if not (done or self.message or self.failed_count):
            yield Line("note", "nothing to do")
        for item in self.failed[:SHOWN_FAILURES]:
            yield Line("failure", f"{item.item}: {item.reason}")
        if self.failed_count > SHOWN_FAILURES:
            yield Line("failure", f"and {self.failed_count - SHOWN_FAILURES:,} more")
        for warning in self.warnings:
            yield Line("warning", warning)

    def done_lines(self) -> Iterator[Line]:
        """What the run did, or would do; the task's own table first."""
        verb, counts = ("would delete", self.would_delete) if self.dry_run else ("deleted", self.deleted)
        for name, count in sorted(counts.items(), key=lambda entry: (entry[0] in STORES, entry[0] != self.table)):
            yield Line("done", verb, count, unit(name, count))
        if self.deleted_bytes:
            yield Line("note", f"freed {in_units(self.deleted_bytes)}")

    def detail_lines(self) -> Iterator[Line]:
        """What else a person should see; a kind of report adds its own."""
        yield from ()

    def numbers(self) -> dict[str, float]:
        """The points of the curves. A dry run, or one that deleted nothing, adds only what it would have deleted."""
        if self.dry_run or self.status not in ("succeeded", "partial"):
            return {f"would_delete/{table}": count for table, count in self.would_delete.items()}
        numbers: dict[str, float] = {"duration_seconds": round(self.duration_seconds, 3)}
        if self.table:
            numbers |= {"candidates": self.candidates, f"deleted/{self.table}": 0}
        if self.deleted_bytes:
            numbers["deleted_bytes"] = self.deleted_bytes
        numbers |= self.measures()
        numbers |= {f"deleted/{name}": count for name, count in self.deleted.items()}
        numbers |= {f"kept/{reason}": count for reason, count in self.skipped.items() if count}
        return numbers | ({"failed": self.failed_count} if self.failed_count else {})

    def measures(self) -> dict[str, float]:
        """What else makes a curve; a kind of report adds its own."""
        return {}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Lists by the title under which they are shown; rows of one list have the same keys."""
        return {"candidates": [asdict(each) for each in self.sample], "failed": [asdict(each) for each in self.failed]}

    def state_tables(self) -> dict[str, list[dict[str, Any]]]:
        """Lists that are the state of the task, not of one run."""
        return {}


def unit(name: str, count: int) -> str:
    """What is counted under a table's or a store's name: `files of media`, `conversations`."""
    return f"{'file' if count == 1 else 'files'} of {name}" if name in STORES else name
