"""Content-defined chunking: the borders of chunks depend only on the text around them.

An edit must not move the borders behind it, or every later chunk would have to be embedded again. A chunk therefore
begins at a block (a paragraph, a heading, a fenced listing) whose hash is the smallest of all blocks near it, which
depends on these blocks alone. A heading always ranks below other blocks.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

# In characters: embedding models do well with 2,000 (about 500 tokens), and most paragraphs are shorter.
MAX_CHARACTERS = 2000
# In characters: the neighbourhood in which a block must be the smallest. Chunks are about as long on average.
REACH = 300

_FENCE = re.compile(r" {0,3}(```|~~~)")
_HEADING = re.compile(r"#{1,6} ")


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A part of a text, and the SHA-256 of it in hexadecimal."""

    text: str
    hash: str


def split(text: str) -> list[TextChunk]:
    """The chunks of a text, of at most 2,000 characters each; only white space is dropped."""
    parts = [part for segment in _segments(_blocks(text)) for part in _fitting(segment)]
    return [TextChunk(part, content_hash(part)) for part in parts if part.strip()]


def content_hash(text: str) -> str:
    """The SHA-256 of a text in hexadecimal."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _blocks(text: str) -> list[str]:
    """The blocks between blank lines; a blank line within a fence does not end a block."""
    blocks: list[str] = []
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        opened = _FENCE.match(line)
        if opened and not fence:
            fence = opened[1]
        elif opened and opened[1] == fence:
            fence = ""
        if line.strip() or fence:
            lines.append(line)
        elif lines:
            blocks.append("\n".join(lines))
            lines = []
    return [*blocks, "\n".join(lines)] if lines else blocks


def _segments(blocks: list[str]) -> list[list[str]]:
    ranks = [_rank(block) for block in blocks]
    offsets = [0]
    for block in blocks:
        offsets.append(offsets[-1] + len(block))
    segments: list[list[str]] = []
    for place, block in enumerate(blocks):
        if not segments or _begins(place, ranks, offsets):
            segments.append([])
        segments[-1].append(block)
    return segments


def _fitting(segment: list[str]) -> list[str]:
    """A segment, split into parts of as many blocks as fit if it is too long."""
    parts: list[list[str]] = []
    size = 0
    for block in segment:
        size += len(block) + 2
        if not parts or size > MAX_CHARACTERS:
            parts.append([])
            size = len(block)
        parts[-1].append(block)
    texts = ("\n\n".join(blocks) for blocks in parts)
    return [part for text in texts for part in ([text] if len(text) <= MAX_CHARACTERS else _cut(text))]


def _rank(block: str) -> tuple[bool, bytes]:
    return not _HEADING.match(block), hashlib.sha256(block.encode(errors="surrogatepass")).digest()


def _begins(place: int, ranks: list[tuple[bool, bytes]], offsets: list[int]) -> bool:
    """Whether a chunk begins here: no block within reach ranks lower; the first of equal ones begins."""
    before, after = place - 1, place + 1
    while before >= 0 and offsets[place] - offsets[before + 1] < REACH:
        if ranks[before] <= ranks[place]:
            return False
        before -= 1
    while after < len(ranks) and offsets[after] - offsets[place + 1] < REACH:
        if ranks[after] < ranks[place]:
            return False
        after += 1
    return True


def _cut(block: str) -> list[str]:
    """A block that is too long, split at the ends of sentences or lines."""
    from semantic_text_splitter import MarkdownSplitter

    return list(MarkdownSplitter(MAX_CHARACTERS).chunks(block))
