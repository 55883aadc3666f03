"""How much one run may delete, and what it must not exceed without permission."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Budgets and guards of one run.

    Attributes:
        batch_size: the most root rows in a transaction (fewer where they take long), or files at a time.
        max_rows: rows of all tables that one run may delete; None: no such budget.
        max_files, max_bytes: what one run may remove from one store; None: no such budget.
        max_seconds: time after which no new batch begins; None: no such budget.
        max_fraction: share of the table that may be candidates, 0 < f <= 1.
        guard_minimum: number of candidates below which the fraction is not applied; for a store of files, number of
            files in it.
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
