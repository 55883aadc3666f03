"""How much one run may do, and what it must never exceed without being told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Budgets and guards of one run.

    Attributes:
        batch_size: the most root rows a transaction (it takes fewer where these take long), or files at a time.
        max_rows: rows of all tables that one run may delete; None: no such budget.
        max_files, max_bytes: of one store that one run may take; None: no such budget.
        max_seconds: after which no new batch is started; None: no such budget.
        max_fraction: share of the table that may be candidates, 0 < f <= 1.
        guard_minimum: candidates below which the fraction is not applied.
    """

    batch_size: int = 5000
    max_rows: int | None = None
    max_files: int | None = None
    max_bytes: int | None = None
    max_seconds: float | None = None
    max_fraction: float = 0.5
    guard_minimum: int = 100
    allow_large_deletion: bool = False
    allow_empty_reference: bool = False
