"""What can go wrong with fetching; a message names the host, never the whole address, which may hold a secret."""

from __future__ import annotations

from housekeeping_pipelines.errors import HousekeepingError


class FetchError(HousekeepingError):
    """Nothing was fetched."""


class FetchRefused(FetchError):
    """It may not be fetched: its address is not allowed, or is no address of a page."""


class FetchFailed(FetchError):
    """It could not be fetched: no answer, not in time, too much of it, or none that can be understood."""
