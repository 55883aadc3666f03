"""Numbers as people read them."""

from __future__ import annotations


def in_units(size: int) -> str:
    """Bytes for people: `12.3 MB`, of 1024 each."""
    amount, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:,.0f} {units[0]}" if units[0] == "B" else f"{amount:,.1f} {units[0]}"
