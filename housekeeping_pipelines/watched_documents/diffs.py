"""A diff of two texts, short enough for the page of a run."""

from __future__ import annotations

import difflib
import textwrap

MAX_LINES = 40
MAX_LINE_CHARACTERS = 100
MAX_PARAGRAPH_CHARACTERS = 20_000
# The time of a comparison grows with the square of the lines that differ.
MAX_COMPARED_LINES = 2000


def unified_diff(old: str, new: str) -> str:
    """The changed lines with one line around them, as `diff -u` shows them; at most 40 lines."""
    # Blank lines carry no content.
    before, after = ([line for line in text.splitlines() if line.strip()] for text in (old, new))
    if before == after:
        return "" if old == new else "(only blank lines)"
    same = _common(before, after)
    same_end = _common(before[same:][::-1], after[same:][::-1])
    removed, added = len(before) - same - same_end, len(after) - same - same_end
    if max(removed, added) > MAX_COMPARED_LINES:
        return f"{removed:,} lines removed, {added:,} added"
    start = max(same - 1, 0)
    left = _wrapped(before[start : len(before) - same_end + 1])
    right = _wrapped(after[start : len(after) - same_end + 1])
    lines = list(difflib.unified_diff(left, right, lineterm="", n=1))[2:]
    shown = [line for line in lines if not line.startswith("@@")]
    more = [f"… {len(shown) - MAX_LINES:,} more lines"] if len(shown) > MAX_LINES else []
    return "\n".join([*shown[:MAX_LINES], *more])


def _common(left: list[str], right: list[str]) -> int:
    return next(
        (place for place, (one, other) in enumerate(zip(left, right, strict=False)) if one != other),
        min(len(left), len(right)),
    )


def _wrapped(lines: list[str]) -> list[str]:
    """Wrapped lines: a paragraph is often one long line, of which only the changed part should show."""
    whole = (line[:MAX_PARAGRAPH_CHARACTERS] for line in lines)
    return [part for line in whole for part in textwrap.wrap(line, MAX_LINE_CHARACTERS)]
