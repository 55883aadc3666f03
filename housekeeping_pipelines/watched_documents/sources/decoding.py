"""Decodes bytes to text without trusting their label: pages often declare a charset that they are not in.

Bytes beyond ASCII that are valid UTF-8 are hardly ever anything else, so they are decoded as UTF-8 whatever the label.
"""

from __future__ import annotations

import codecs
import re

# Codecs of Python that are not charsets of pages, or that decode any bytes.
_NOT_CHARSETS = frozenset(
    {"unicode_escape", "raw_unicode_escape", "utf-7", "punycode", "idna", "undefined", "mbcs", "oem", "charmap"}
)
# Labels that browsers treat as windows-1252, https://encoding.spec.whatwg.org/#names-and-labels
_WINDOWS_1252 = frozenset({"ascii", "iso8859-1", "cp1252"})
_MARKS = (
    # UTF-32 first, which begins as UTF-16 does.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_META = re.compile(rb"""<meta\b[^>]{0,300}?charset\s*=\s*["']?\s*([a-z0-9_:.-]{2,40})""", re.IGNORECASE)
_DECLARATION = re.compile(rb"""^\s*<\?xml\b[^>]{0,200}?encoding\s*=\s*["']([a-z0-9_:.-]{2,40})""", re.IGNORECASE)
# How far browsers search for it, https://html.spec.whatwg.org/#prescan-a-byte-stream-to-determine-its-encoding
_META_WITHIN = 1024
# Detection needs this many bytes beyond ASCII: with fewer it takes "größer" for Arabic.
_DETECT_FROM = 32
# Detection time grows with the text, and more text does not improve it.
_DETECT_BYTES = 64 * 1024


def decode(body: bytes, declared: str | None = None, *, markup: bool = False) -> str:
    """Decode by a byte order mark, UTF-8, the labels or detection, in this order; invalid bytes become U+FFFD.

    Args:
        declared: the charset of the header, if it has one.
        markup: whether the text itself may declare a charset.
    """
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return body.decode(encoding, "replace")
    labels = [name for label in (declared, *(_labels(body) if markup else ())) if (name := _charset(label))]
    wide = next((name for name in labels if name.startswith(("utf-16", "utf-32"))), None)
    if wide is not None and b"\0" in body:
        return body.decode(wide, "replace")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        # Charsets with escape sequences look like ASCII.
        if not body.isascii() or not any(name.startswith(("iso2022", "hz")) for name in labels):
            return text
    for name in labels:
        try:
            return body.decode(name)
        except UnicodeDecodeError:
            continue
    if labels and labels[0] != "utf-8":
        return body.decode(labels[0], "replace")
    return body.decode(_detect(body), "replace")


def clean(text: str) -> str:
    """The text without NUL and lone surrogates, which PostgreSQL and UTF-8 cannot store; surrogate pairs are joined."""
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "")


def _labels(body: bytes) -> list[str]:
    head = body[:_META_WITHIN]
    return [found[1].decode("ascii") for pattern in (_DECLARATION, _META) if (found := pattern.search(head))]


def _charset(label: str | None) -> str | None:
    """Python's name of a charset; None if the label is not a charset."""
    if not label:
        return None
    try:
        name = codecs.lookup(label.strip(" \"'").lower()).name
        "".encode(name)
    except (LookupError, ValueError):
        return None
    if name in _WINDOWS_1252:
        return "cp1252"
    return None if name in _NOT_CHARSETS else name


def _detect(body: bytes) -> str:
    from charset_normalizer import from_bytes

    beyond = sum(byte > 127 for byte in body)
    # In another script, nearly every letter is beyond ASCII.
    if beyond < _DETECT_FROM and beyond * 2 <= len(body):
        return "cp1252"
    best = from_bytes(body[:_DETECT_BYTES]).best()
    return best.encoding if best is not None else "cp1252"
