"""Numbers and counts as people read them, in the UI and in the command."""

from __future__ import annotations


def in_units(size: int) -> str:
    """Bytes for people: `12.3 MB`, of 1024 each."""
    amount, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:,.0f} {units[0]}" if units[0] == "B" else f"{amount:,.1f} {units[0]}"


def counted(count: int, what: str) -> str:
    """`1 file`, `2,000 files`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
