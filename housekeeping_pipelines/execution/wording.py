"""Numbers and counts as people read them, in the UI and in the command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a sync of watched documents counts, by the names of its report's fields.
SYNC_COUNTS = {
    "updated": "updated",
    "would_update": "would be updated",
    "unchanged": "unchanged",
    "gone": "gone",
    "held_for_review": "held for review",
    "chunks_embedded": "chunks embedded",
    "chunks_reused": "chunks reused",
    "fetched_bytes": "bytes fetched",
}


def in_units(size: int) -> str:
    """Bytes for people: `12.3 MB`, of 1024 each."""
    amount, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:,.0f} {units[0]}" if units[0] == "B" else f"{amount:,.1f} {units[0]}"


def counted(count: int, what: str) -> str:
    """`1 file`, `2,000 files`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def missing(document: Mapping[str, Any]) -> str | None:
    """What a report's `missing_count` says; None where nothing is missing, or nothing can be."""
    count = document.get("missing_count")
    if not count:
        return None
    have = "has" if count == 1 else "have"
    if document["table"] == "vectors":
        return f"{counted(count, 'watched document')} {have} no vectors; the next sync makes them"
    return f"{counted(count, 'name')} in rows {have} no file"
