"""What a clean-up of sessions reports."""

from __future__ import annotations

from dataclasses import dataclass

from housekeeping_pipelines.execution.report import Report


@dataclass(frozen=True, kw_only=True)
class SessionReport(Report):
    """A report on sessions and their files.

    Attributes:
        storage_bytes, quota_used: what the bucket holds afterwards, and its share of MAX_STORAGE_SIZE_MB; null where
            it is not known.
    """

    storage_bytes: int | None = None
    quota_used: float | None = None

    def measures(self) -> dict[str, float]:
        found = {"storage_bytes": self.storage_bytes, "quota_used": self.quota_used}
        return {name: value for name, value in found.items() if value}
