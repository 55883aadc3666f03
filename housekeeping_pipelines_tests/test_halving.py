"""Halving: every item that an attempt accepts is processed once, and the others are found one by one."""

from __future__ import annotations

import pytest

from housekeeping_pipelines.halving import in_halves


@pytest.mark.parametrize("bad", [set[int](), {0}, {6}, {1, 2, 5}, set(range(7))])
def test_the_items_that_fail_are_found_and_the_rest_is_processed_once(bad: set[int]) -> None:
    processed: list[int] = []
    failed: list[int] = []

    def attempt(part: list[int]) -> list[int]:
        if not bad & set(part):
            processed.extend(part)
        elif len(part) > 1:
            return part
        else:
            failed.extend(part)
        return []

    in_halves(list(range(7)), attempt)
    assert processed == [n for n in range(7) if n not in bad]
    assert failed == sorted(bad)


def test_only_what_an_attempt_returns_is_tried_again() -> None:
    attempts: list[list[str]] = []

    def attempt(part: list[str]) -> list[str]:
        attempts.append(part)
        return part[:2] if len(part) > 2 else []

    in_halves(["a", "b", "c", "d"], attempt)
    assert attempts == [["a", "b", "c", "d"], ["a"], ["b"]]


def test_a_single_item_is_not_tried_again() -> None:
    with pytest.raises(ValueError, match="'a' cannot be halved"):
        in_halves(["a"], lambda part: part)
