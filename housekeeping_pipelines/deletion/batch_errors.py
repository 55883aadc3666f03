"""Why a batch was rolled back; rows.py decides what follows."""

from __future__ import annotations


class RowError(Exception):
    """A row of the batch cannot be deleted; `skip_reason` is where its root is counted when it is alone."""

    def __init__(self, skip_reason: str, reason: str) -> None:
        super().__init__(reason)
        self.skip_reason = skip_reason
        self.reason = reason


class NeedsRecheck(Exception):
    """A deleted child row keeps its root: the batch is to be tried again with `Recheck.BEFORE`."""


class Paused(Exception):
    """All deleting runs were paused meanwhile."""
