"""What `housekeeping check` and health find: one line each, with what to do."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.postgres.catalog import Catalog

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import sqlalchemy as sa

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.errors import HousekeepingError
    from housekeeping_pipelines.settings import Settings

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `hint` says what to do. A task that cannot run is a warning: the others can."""

    name: str
    status: Status
    message: str
    hint: str | None = None
    latency_ms: float | None = None

    @classmethod
    def of(cls, name: str, error: HousekeepingError, *, status: Status = "failed", prefix: str = "") -> Check:
        """What an error says."""
        return cls(name, status, f"{prefix}{error.message}", error.hint)

    @classmethod
    def disabled(cls, task: str, error: HousekeepingError, *, status: Status = "warning") -> Check:
        """A task that cannot run."""
        return cls.of(f"task {task}", error, status=status, prefix="disabled: ")

    def to_dict(self) -> dict[str, Any]:
        """`{name, status, message, hint, latency_ms}`."""
        return asdict(self)


@dataclass
class Stopwatch:
    """Milliseconds since it was made."""

    monotonic: Callable[[], float] = time.monotonic
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.monotonic()

    @property
    def latency_ms(self) -> float:
        """With one decimal."""
        return round((self.monotonic() - self.started) * 1000, 1)


@dataclass(frozen=True)
class Surroundings:
    """What a check may look at.

    Attributes:
        connection: to the platform's database, in a transaction that only reads.
        has_schema: whether the schema `housekeeping` is there, of this version.
    """

    settings: Settings
    config: HousekeepingConfig
    connection: sa.Connection
    now: datetime
    has_schema: bool

    @cached_property
    def platform(self) -> Platform:
        """The platform's tables, as the live database has them."""
        return Platform(Catalog(self.connection), self.config)

    @property
    def trashed(self) -> bool:
        """Whether deleted rows are kept."""
        return self.settings.trash_retention_days > 0
