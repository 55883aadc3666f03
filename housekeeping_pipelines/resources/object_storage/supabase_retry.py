"""When a request to storage is retried, and for how long."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import HousekeepingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from housekeeping_pipelines.resources.object_storage.supabase_errors import Context

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a request is retried after 429, 5xx, a broken connection or a time-out.

    Attributes:
        total_seconds: no attempt begins later; a longer `Retry-After` ends the attempts.
    """

    attempts: int = 5
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 10.0
    total_seconds: float = 60.0


def call_with_retry(request: Callable[[], T], retry: RetryPolicy, attempts: int, context: Context) -> T:
    """What the request returns, retried as the policy says.

    Args:
        attempts: at most, in place of the policy's own.

    Raises:
        Unavailable, StorageRefused, ConfigurationError: the last attempt failed.
    """
    # Importing these takes a while, and only a store that is used needs them.
    from housekeeping_pipelines.resources.object_storage.supabase_errors import (
        STORAGE_ERRORS,
        explain,
        is_transient,
        retry_after_seconds,
    )
    from housekeeping_pipelines.retries import retry_context

    deadline = time.monotonic() + retry.total_seconds

    def again(error: Exception) -> bool | float:
        if isinstance(error, HousekeepingError) or not is_transient(error):
            return False
        wait = retry_after_seconds(error, utc_now())
        if wait is None:
            return time.monotonic() < deadline
        return wait if time.monotonic() + wait < deadline else False

    try:
        for attempt in retry_context(
            on=again,
            attempts=attempts,
            timeout=None,
            wait_initial=retry.first_wait_seconds,
            wait_max=retry.longest_wait_seconds,
            wait_jitter=retry.first_wait_seconds,
        ):
            with attempt:
                return request()
    except HousekeepingError:
        raise
    except STORAGE_ERRORS as error:
        raise explain(error, context) from error
    raise AssertionError
