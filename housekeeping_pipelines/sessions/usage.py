"""Storage usage, and what a clean-up would delete: the numbers of `cleanup-files --stats`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from housekeeping_pipelines.deletion.file_outbox import STUCK_ATTEMPTS
from housekeeping_pipelines.deletion.tables import file_outbox
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.resources.object_storage import Usage
from housekeeping_pipelines.sessions.policies import Expiry, expired_sessions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from housekeeping_pipelines.application.platform import Platform
    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.resources.object_storage import StoredObject

WARN_AT = 0.8
MEGABYTE = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class StorageStatistics:
    """What storage holds, and what a clean-up would delete; sizes in bytes, of files whose size is known.

    Attributes:
        file_types: extension -> files; `` for none.
        old_files: files that have been there for more than `hours`.
        old_sessions: sessions that the next clean-up would delete.
        waiting_files, stuck_files: files in the outbox, and those of them that failed repeatedly.
        trash_files, trash_bytes: what is in the trash, which the totals leave out.
        quota_bytes, quota_used: MAX_STORAGE_SIZE_MB, and the share of it that is used.
        error: why storage could not be read; its numbers are then 0.
    """

    storage: str
    hours: int
    total_files: int = 0
    total_size_bytes: int = 0
    file_types: dict[str, int] = field(default_factory=dict)
    old_files: int = 0
    old_sessions: int = 0
    waiting_files: int = 0
    stuck_files: int = 0
    trash_files: int = 0
    trash_bytes: int = 0
    quota_bytes: int = 0
    quota_used: float = 0.0
    cleanup_recommended: bool = False
    recommendation: str = ""
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The statistics as JSON values, with `total_size_mb` added."""
        return asdict(self) | {"total_size_mb": round(self.total_size_bytes / MEGABYTE, 2)}


def quota_warning(used: int, quota: int) -> str | None:
    """The warning for storage that is nearly full or over its quota; None below WARN_AT."""
    share = used / quota
    if share < WARN_AT:
        return None
    size, limit = f"{used / MEGABYTE:,.0f} MB", f"{quota / MEGABYTE:,.0f} MB"
    if share < 1:
        return f"storage holds {size}, {share:.0%} of MAX_STORAGE_SIZE_MB ({limit})"
    return (
        f"storage holds {size}, more than MAX_STORAGE_SIZE_MB ({limit}), and nothing more has expired:"
        " add storage, or let sessions expire sooner (CLEANUP_INTERVAL_HOURS)"
    )


def storage_statistics(
    connection: sa.Connection, platform: Platform, store: Store, *, now: datetime, hours: int, quota_bytes: int
) -> StorageStatistics:
    """Read the whole listing of the store, and the sessions; changes nothing.

    Raises:
        ConfigurationError: the platform lacks one of the tables.
    """
    policy = expired_sessions(platform, now, Expiry(hours=hours))
    sessions = sa.select(sa.func.count()).select_from(policy.table.selectable).where(policy.condition)
    old_sessions = connection.scalar(sessions) or 0
    mine = sa.select(sa.func.count()).where(file_outbox.c.store == store.name)
    waiting = connection.scalar(mine) or 0
    stuck = connection.scalar(mine.where(file_outbox.c.attempts >= STUCK_ATTEMPTS)) or 0
    error, counts, trash = None, _Counts(), Usage(0, 0)
    try:
        store.storage.check()
        counts = _count(store.storage.list(), now - timedelta(hours=hours))
        if store.trash_prefix is not None:
            trash = store.storage.usage(f"{store.trash_prefix}/")
    except HousekeepingError as found:
        error = found.one_line
    used = counts.bytes / quota_bytes
    return StorageStatistics(
        storage=store.storage.label,
        hours=hours,
        total_files=counts.files,
        total_size_bytes=counts.bytes,
        file_types=dict(sorted(counts.types.items(), key=lambda entry: (-entry[1], entry[0]))),
        old_files=counts.old,
        old_sessions=old_sessions,
        waiting_files=waiting,
        stuck_files=stuck,
        trash_files=trash.objects,
        trash_bytes=trash.bytes,
        quota_bytes=quota_bytes,
        quota_used=round(used, 4),
        cleanup_recommended=bool(old_sessions) or used >= WARN_AT,
        recommendation=_recommendation(old_sessions, used, stuck, error),
        error=error,
    )


@dataclass
class _Counts:
    files: int = 0
    bytes: int = 0
    old: int = 0
    types: dict[str, int] = field(default_factory=dict)


def _count(objects: Iterable[StoredObject], cutoff: datetime) -> _Counts:
    counts = _Counts()
    for found in objects:
        counts.files += 1
        counts.bytes += found.size or 0
        counts.old += found.there_since is not None and found.there_since < cutoff
        leaf = found.name.rpartition("/")[2]
        kind = leaf.rpartition(".")[2].lower() if "." in leaf.lstrip(".") else ""
        counts.types[kind] = counts.types.get(kind, 0) + 1
    return counts


def _recommendation(old_sessions: int, used: float, stuck: int, error: str | None) -> str:
    if error is not None:
        return "check storage: housekeeping check"
    if old_sessions:
        return "clean up: housekeeping cleanup-files"
    if used >= WARN_AT:
        return "add storage, or raise MAX_STORAGE_SIZE_MB"
    return "find out why files cannot be removed: housekeeping run drain_file_outbox" if stuck else "nothing to do"
