"""Extracts the text of an answer: the main text of a web page, the text of a PDF, or plain text as it is."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from housekeeping_pipelines.watched_documents.sources.decoding import clean, decode

if TYPE_CHECKING:
    from collections.abc import Callable

# A longer text makes more chunks than a search can use.
MAX_CHARACTERS = 10_000_000
MAX_PAGES = 2_000
# The time is checked after each page, and may be exceeded by one page.
MAX_PDF_SECONDS = 120.0

# Finding the main text takes about a second per megabyte, and far more memory than the page.
_MAIN_TEXT_CHARACTERS = 4 * 2**20

_TEXT_TYPES = re.compile(r"(text/.*|.*[/+](json|xml|yaml|toml|javascript|x-sh|x-yaml|sql|x-ndjson|rtf))")
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_UNKNOWN_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-download"})
_HTML_START = re.compile(rb"\s*(<!--.*?-->\s*|<\?xml[^>]*>\s*)*<(!doctype\s+html|html|head|body)\b", re.I | re.S)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffd]")


class NotReadable(Exception):
    """The answer has no readable text; the message says why, for the user."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """A text in Markdown, or as it was received."""

    text: str
    title: str | None = None


def extract(body: bytes, content_type: str, url: str, *, monotonic: Callable[[], float] = time.monotonic) -> Extracted:
    """The text of an answer.

    Args:
        content_type: the header; if it is missing or wrong, the beginning of the body decides.
        url: of the answer; its file name is used in messages.

    Raises:
        NotReadable: it is not text, is encrypted or broken, or has no text.
    """
    media, charset = _media_type(content_type)
    if b"%PDF-" in body[:1024] and not media.startswith("text/plain"):
        extracted = _pdf(body, monotonic)
    elif media in _HTML_TYPES or (media in _UNKNOWN_TYPES | {"application/xml", "text/xml"} and _is_html(body)):
        extracted = _html(decode(body, charset, markup=True), url)
    elif media == "application/pdf":
        raise NotReadable("it is not a PDF, but labelled as one")
    elif _TEXT_TYPES.fullmatch(media) or media in _UNKNOWN_TYPES:
        extracted = Extracted(decode(body, charset, markup=media.endswith("xml")))
        _refuse_binary(extracted.text, media or urlsplit(url).path.rpartition("/")[2])
    else:
        raise NotReadable(f"{media[:80]} is not readable text")
    text = clean(extracted.text).strip("\n")
    if not text.strip():
        raise NotReadable("it has no text")
    if len(text) > MAX_CHARACTERS:
        raise NotReadable(f"its text has {len(text):,} characters, more than {MAX_CHARACTERS:,}")
    title = " ".join(clean(extracted.title or "").split())[:500]
    return Extracted(text, title or None)


def _media_type(content_type: str) -> tuple[str, str | None]:
    media, _, parameters = content_type.partition(";")
    charset = re.search(r"charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]+)", parameters, re.IGNORECASE)
    # Several headers of the name were joined by a comma: the last one counts, as in browsers.
    return media.rpartition(",")[2].strip().lower(), charset[1] if charset else None


def _is_html(body: bytes) -> bool:
    return _HTML_START.match(body[:2048].removeprefix(b"\xef\xbb\xbf")) is not None


def _refuse_binary(text: str, what: str) -> None:
    sample = text[:65536]
    # One control character may be a typing error.
    if (len(_CONTROL.findall(sample)) - 1) * 20 > len(sample):
        raise NotReadable(f"{what[:80] or 'it'} is not readable text")


def _html(page: str, url: str) -> Extracted:
    """The main text as Markdown, or all visible text if none is found.

    Links are dropped: one with a session or a time in it would change the text at every fetch.
    """
    # The import takes half a second.
    import trafilatura

    # An XML parser refuses text that declares an encoding.
    page = re.sub(r"^\s*<\?xml[^>]*\?>", "", page).replace("\0", "")
    title = _title(page)
    if len(page) <= _MAIN_TEXT_CHARACTERS:
        try:
            text = trafilatura.extract(
                page,
                url=url,
                output_format="markdown",
                include_comments=False,
                include_tables=True,
                include_links=False,
                include_images=False,
                include_formatting=True,
                favor_recall=True,
            )
        except Exception:  # noqa: BLE001 - a page may break a parser in any way; its visible text remains
            text = None
        if text and text.strip():
            return Extracted(text, title)
    try:
        return Extracted(_visible_text(page), title)
    except Exception as error:
        raise NotReadable(f"the page cannot be read: {type(error).__name__}") from error


def _title(page: str) -> str | None:
    found = re.search(r"<title\b[^>]*>(.{0,2000}?)</title", page[: 512 * 1024], re.IGNORECASE | re.DOTALL)
    if found is None:
        return None
    from html import unescape

    return unescape(found[1])


def _visible_text(page: str) -> str:
    """A line per block of text, in one pass that takes linear time at any nesting."""
    from lxml import etree, html

    try:
        tree = html.document_fromstring(page, parser=html.HTMLParser(encoding="utf-8", remove_comments=True))
    except (etree.LxmlError, ValueError):
        return ""
    lines: list[str] = []
    line: list[str] = []
    hidden = 0
    for event, element in etree.iterwalk(tree, events=("start", "end")):
        tag = element.tag if isinstance(element.tag, str) else ""
        if tag in _BLOCKS:
            lines.append(" ".join("".join(line).split()))
            line = []
        if event == "start":
            hidden += tag in _INVISIBLE
            line.append("" if hidden else element.text or "")
        else:
            hidden -= tag in _INVISIBLE
            line.append("" if hidden else element.tail or "")
    lines.append(" ".join("".join(line).split()))
    return "\n\n".join(found for found in lines if found)


_INVISIBLE = frozenset({"head", "script", "style", "noscript", "template", "svg", "iframe", "object", "select"})
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt"}
    | {"fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "li", "main", "nav", "ol", "p", "pre"}
    | {"h1", "h2", "h3", "h4", "h5", "h6", "section", "summary", "table", "td", "th", "tr", "ul"}
)


def _pdf(body: bytes, monotonic: Callable[[], float]) -> Extracted:
    from pypdf import PasswordType, PdfReader
    from pypdf.errors import DependencyError

    ends_at = monotonic() + MAX_PDF_SECONDS
    try:
        reader = PdfReader(BytesIO(body))
        # Many are encrypted with an empty password, to forbid printing.
        if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
            raise NotReadable("the PDF is encrypted with a password")
        count = len(reader.pages)
        if count > MAX_PAGES:
            raise NotReadable(f"the PDF has {count:,} pages, more than {MAX_PAGES:,}")
        pages: list[str] = []
        length = 0
        for page in reader.pages:
            pages.append(page.extract_text().strip())
            length += len(pages[-1])
            if monotonic() > ends_at:
                raise NotReadable(f"the PDF could not be read within {MAX_PDF_SECONDS:g} s")
            if length > MAX_CHARACTERS:
                raise NotReadable(f"the text of the PDF has more than {MAX_CHARACTERS:,} characters")
        title = reader.metadata.title if reader.metadata is not None else None
    except NotReadable:
        raise
    except DependencyError:
        raise NotReadable("the PDF is encrypted; to read it: pip install cryptography") from None
    except Exception as error:  # broken files raise anything
        raise NotReadable(f"the PDF is broken: {type(error).__name__}") from error
    if not any(pages):
        raise NotReadable("the PDF has no text; it may consist of scanned images")
    return Extracted("\n\n".join(text for text in pages if text), title if isinstance(title, str) else None)
