"""Errors of fetching. A message names the host, never the whole address, which may contain a secret."""

from __future__ import annotations

from housekeeping_pipelines.errors import HousekeepingError


class FetchError(HousekeepingError):
    """Nothing was fetched."""


class FetchRefused(FetchError):
    """The address is not allowed, or is not an address of the web."""


class FetchFailed(FetchError):
    """No answer, no complete answer in time, too large an answer, or one that is not valid HTTP."""
