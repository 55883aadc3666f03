"""What changed in a text, short enough to be read in a run's page."""

from __future__ import annotations

import difflib
import textwrap

MAX_LINES = 40
MAX_LINE_CHARACTERS = 100
MAX_PARAGRAPH_CHARACTERS = 20_000
# Comparing takes time by the square of what differs.
MAX_COMPARED_LINES = 2000


def unified_diff(old: str, new: str) -> str:
    """The changed lines with one line around them, as `diff -u` shows them; at most 40 lines."""
    # Blank lines only part what is to be seen.
    before, after = ([line for line in text.splitlines() if line.strip()] for text in (old, new))
    if before == after:
        return "" if old == new else "(only blank lines)"
    same = _common(before, after)
    same_end = _common(before[same:][::-1], after[same:][::-1])
    gone, come = len(before) - same - same_end, len(after) - same - same_end
    if max(gone, come) > MAX_COMPARED_LINES:
        return f"{gone:,} lines went, {come:,} came"
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
    """A paragraph is often one line: of it, only what changed is to be shown."""
    whole = (line[:MAX_PARAGRAPH_CHARACTERS] for line in lines)
    return [part for line in whole for part in textwrap.wrap(line, MAX_LINE_CHARACTERS)]
