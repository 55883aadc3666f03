"""What a run over orphans reports."""

from __future__ import annotations

from dataclasses import dataclass

from housekeeping_pipelines.execution.report import (
    Candidate,
    Report,
)


@dataclass(frozen=True, kw_only=True)
class OrphanReport(Report):
    """A report on files, with the fields of the system that it replaces.

    Attributes:
        scanned_files, orphaned_files: in the store, and of these what nothing refers to and may go.
        deleted_files, deleted_bytes: what really went; 0 in a dry run.
        would_delete_bytes: what would go in a dry run.
        failed_deletions: up to 50 names that could not be taken away.
        skipped_young, skipped_size_limit: too young; left for the next run by a budget.
        missing_count, missing_files: names that rows refer to and the store does not have, up to 50 of them by name.
        largest: the twenty largest candidates.
    """

    scanned_files: int = 0
    orphaned_files: int = 0
    deleted_files: int = 0
    would_delete_bytes: int = 0
    failed_deletions: tuple[str, ...] = ()
    skipped_young: int = 0
    skipped_size_limit: int = 0
    missing_count: int = 0
    missing_files: tuple[str, ...] = ()
    largest: tuple[Candidate, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VectorReport(Report):
    """A report on the vectors of documents; counts are of documents, not of their chunks.

    Attributes:
        missing_count, missing: watched documents that have no vectors, up to 50 of them by their ids: the next sync
            makes them.
    """

    missing_count: int = 0
    missing: tuple[str, ...] = ()
