"""What a run over orphans reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.execution.report import Candidate, Line, Report
from housekeeping_pipelines.execution.wording import counted, in_units

if TYPE_CHECKING:
    from collections.abc import Iterator

# The largest candidates that a dry run names among its lines.
_SHOWN_LARGEST = 3


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

    def done_lines(self) -> Iterator[Line]:
        yield from super().done_lines()
        if self.would_delete_bytes:
            yield Line("note", f"would free {in_units(self.would_delete_bytes)}")

    def detail_lines(self) -> Iterator[Line]:
        if self.dry_run:
            for each in [each for each in self.largest if each.bytes][:_SHOWN_LARGEST]:
                yield Line("note", f"largest {in_units(each.bytes or 0):>10}  {each.item}")
        if self.missing_count:
            have = "has" if self.missing_count == 1 else "have"
            yield Line("note", f"{counted(self.missing_count, 'name')} in rows {have} no file")

    def measures(self) -> dict[str, float]:
        return {"missing_count": self.missing_count} if self.missing_count else {}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        missing = [{"item": name} for name in self.missing_files]
        return super().tables() | {"largest": [asdict(each) for each in self.largest], "missing": missing}


@dataclass(frozen=True, kw_only=True)
class VectorReport(Report):
    """A report on the vectors of documents; counts are of documents, not of their chunks.

    Attributes:
        missing_count, missing: watched documents that have no vectors, up to 50 of them by their ids: the next sync
            makes them.
    """

    missing_count: int = 0
    missing: tuple[str, ...] = ()

    def done_lines(self) -> Iterator[Line]:
        for line in super().done_lines():
            yield replace(line, of="documents' vectors") if line.count is not None else line

    def detail_lines(self) -> Iterator[Line]:
        if self.missing_count:
            have = "has" if self.missing_count == 1 else "have"
            text = f"{counted(self.missing_count, 'watched document')} {have} no vectors; the next sync makes them"
            yield Line("note", text)

    def measures(self) -> dict[str, float]:
        return {"missing_count": self.missing_count} if self.missing_count else {}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        return super().tables() | {"missing": [{"item": name} for name in self.missing]}
