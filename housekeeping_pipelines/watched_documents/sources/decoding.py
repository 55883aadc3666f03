"""From bytes to text, whatever their label says: pages are often labelled with a charset that they are not in.

Bytes that are UTF-8 beyond ASCII are hardly ever anything else by accident, so then no label is believed.
"""

from __future__ import annotations

import codecs
import re

# Python's codecs that are no charsets of pages, or read anything as anything.
_NOT_CHARSETS = frozenset(
    {"unicode_escape", "raw_unicode_escape", "utf-7", "punycode", "idna", "undefined", "mbcs", "oem", "charmap"}
)
# Labels that all browsers take for windows-1252, https://encoding.spec.whatwg.org/#names-and-labels
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
# How far browsers look for it, https://html.spec.whatwg.org/#prescan-a-byte-stream-to-determine-its-encoding
_META_WITHIN = 1024
# Fewer letters beyond ASCII than this say nothing of the charset: a guess takes "größer" for Arabic.
_GUESS_FROM = 32
# Guessing takes time that grows with the text, and gains nothing after so much.
_GUESS_BYTES = 64 * 1024


def decode(body: bytes, declared: str | None = None, *, markup: bool = False) -> str:
    """The text; what cannot be read becomes U+FFFD. A byte order mark, UTF-8, the labels, and a guess, in this order.

    Args:
        declared: the charset of the header, if there is one.
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
        # Charsets that switch by escape sequences look like ASCII.
        if not body.isascii() or not any(name.startswith(("iso2022", "hz")) for name in labels):
            return text
    for name in labels:
        try:
            return body.decode(name)
        except UnicodeDecodeError:
            continue
    if labels and labels[0] != "utf-8":
        return body.decode(labels[0], "replace")
    return body.decode(_guess(body), "replace")


def clean(text: str) -> str:
    """Without what PostgreSQL and UTF-8 cannot hold: NUL, and halves of surrogate pairs (whole pairs are joined)."""
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "")


def _labels(body: bytes) -> list[str]:
    head = body[:_META_WITHIN]
    return [found[1].decode("ascii") for pattern in (_DECLARATION, _META) if (found := pattern.search(head))]


def _charset(label: str | None) -> str | None:
    """Python's name of a charset; None if it is none."""
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


def _guess(body: bytes) -> str:
    from charset_normalizer import from_bytes

    beyond = sum(byte > 127 for byte in body)
    # In a text of another script, nearly every letter is beyond ASCII.
    if beyond < _GUESS_FROM and beyond * 2 <= len(body):
        return "cp1252"
    best = from_bytes(body[:_GUESS_BYTES]).best()
    return best.encoding if best is not None else "cp1252"
