"""Retries by stamina, told to our log: by default it writes them to standard output, through structlog."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stamina import Attempt
    from stamina.instrumentation import RetryDetails

logger = logging.getLogger(__name__)


def retry_context(**options: Any) -> Iterable[Attempt]:
    """`stamina.retry_context` with these options."""
    _tell_our_log()
    import stamina

    return stamina.retry_context(**options)


@cache
def _tell_our_log() -> None:
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks([_log])


def _log(details: RetryDetails) -> None:
    cause = type(details.caused_by).__name__
    logger.info("attempt %d follows in %.2f s, after %s", details.retry_num + 1, details.wait_for, cause)
