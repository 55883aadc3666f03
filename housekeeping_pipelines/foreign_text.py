"""Text from outside, made harmless before it is shown: names, keys, reasons and pages are written by strangers.

A terminal obeys control characters, and Markdown fetches the images that it names.
"""

from __future__ import annotations

import re

# Long enough for a path or a message of PostgreSQL; a key may be of any length.
MAX_CHARACTERS = 1000

# C0 and C1 controls, marks that change the direction of what follows, separators of lines, halves of characters.
# JSON itself escapes the first.
_C0 = "\x00-\x1f"
_FURTHER = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_OBEYED = re.compile(f"[{_C0}{_FURTHER}]")
_OBEYED_IN_JSON = re.compile(f"[{_FURTHER}]")
_MARKDOWN = re.compile(r"[\\\[\]<>]|(?<=http:)//|(?<=https:)//|(?<=ftp:)//|(?<=www)\.")


def shown(text: str, *, lines: bool = False, limit: int | None = MAX_CHARACTERS) -> str:
    """The text with control characters written as escapes, and cut to `limit` characters.

    Args:
        lines: whether it may have several lines, and tabs.
    """
    if limit is not None and len(text) > limit:
        text = f"{text[:limit]}… ({len(text):,} characters)"
    return _OBEYED.sub(lambda found: found[0] if lines and found[0] in "\n\t" else _escaped(found[0]), text)


def in_markdown(text: str) -> str:
    """The text for Markdown, in which it is neither a link nor an image nor HTML."""
    return _MARKDOWN.sub(lambda found: "".join(f"\\{character}" for character in found[0]), shown(text))


def in_json(document: str) -> str:
    """A JSON document that was written with characters as they are, with those escaped that a terminal obeys."""
    return _OBEYED_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
