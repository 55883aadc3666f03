"""Finding the items that make a batch fail: a failing batch is tried again in halves, down to single items."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def in_halves(items: list[T], attempt: Callable[[list[T]], list[T]]) -> None:
    """Attempt all items at once, then each half of what the attempt returns, the first half first.

    Args:
        attempt: processes some of the items and returns those to try again in two parts: none when it is done with
            them. A single item cannot be halved: the attempt deals with its failure itself.

    Raises:
        ValueError: an attempt returned a single item, which would be tried again indefinitely.
    """
    pending = [items]
    while pending:
        again = attempt(pending.pop())
        if len(again) == 1:
            raise ValueError(f"{again[0]!r} cannot be halved")
        if again:
            middle = len(again) // 2
            pending += [again[middle:], again[:middle]]
