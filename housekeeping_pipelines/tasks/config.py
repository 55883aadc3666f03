"""The configuration that every op takes. Every default is the safe choice.

Dagster checks these bounds when the step starts; the command and the API build the class first.
"""

import dagster as dg
from pydantic import Field

from housekeeping_pipelines.deletion.limits import Limits

GIGABYTE = 1024**3


class TaskConfig(dg.Config):
    """What every task takes."""

    dry_run: bool = Field(False, description="Select and report, and delete nothing.")


class DeletionConfig(TaskConfig):
    """What every task takes that deletes rows."""

    batch_size: int = Field(5000, ge=1, le=10_000, description="The most rows of the task's own table a transaction.")
    max_rows: int | None = Field(None, ge=1, description="Rows of all tables that one run may delete.")
    max_seconds: float | None = Field(None, gt=0, description="Seconds after which no new batch is started.")
    max_fraction: float = Field(0.5, gt=0, le=1, description="Share of the table beyond which a run is refused.")
    guard_minimum: int = Field(100, ge=0, description="Candidates below which max_fraction is not applied.")
    allow_large_deletion: bool = Field(False, description="Take more of the table than max_fraction.")

    def limits(self) -> Limits:
        """The budgets and guards of the run."""
        return Limits(
            batch_size=self.batch_size,
            max_rows=self.max_rows,
            max_seconds=self.max_seconds,
            max_fraction=self.max_fraction,
            guard_minimum=self.guard_minimum,
            allow_large_deletion=self.allow_large_deletion,
            allow_empty_reference=getattr(self, "allow_empty_reference", False),
        )


class FileDeletionConfig(TaskConfig):
    """What every task takes that removes files or objects that nothing refers to."""

    batch_size: int = Field(500, ge=1, le=10_000, description="Files at a time, after one look at what refers to them.")
    max_files: int | None = Field(None, ge=1, description="Files that one run may remove.")
    max_gigabytes: float | None = Field(None, gt=0, description="Room that one run may free, in GB of 1024^3 bytes.")
    max_seconds: float | None = Field(None, gt=0, description="Seconds after which no new batch is started.")
    max_fraction: float = Field(0.5, gt=0, le=1, description="Share of the store beyond which a run is refused.")
    guard_minimum: int = Field(
        10, ge=0, description="Files in the store below which max_fraction is not applied, unless removal is final."
    )
    allow_large_deletion: bool = Field(False, description="Take more of the store than max_fraction.")
    allow_empty_reference: bool = Field(False, description="Run although nothing refers to any file.")

    def limits(self) -> Limits:
        """The budgets and guards of the run."""
        return Limits(
            batch_size=self.batch_size,
            max_files=self.max_files,
            max_bytes=None if self.max_gigabytes is None else int(self.max_gigabytes * GIGABYTE),
            max_seconds=self.max_seconds,
            max_fraction=self.max_fraction,
            guard_minimum=self.guard_minimum,
            allow_large_deletion=self.allow_large_deletion,
            allow_empty_reference=self.allow_empty_reference,
        )
