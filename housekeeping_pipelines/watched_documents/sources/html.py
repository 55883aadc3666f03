"""Converts HTML that is all content, as from a wiki's API, to Markdown.

markdownify would need half of this besides (cells, relative links, macros, the depth limit), and takes fourteen times
as long: nine seconds a megabyte, and a space may have a thousand pages.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from housekeeping_pipelines.watched_documents.sources.decoding import clean

if TYPE_CHECKING:
    from lxml.html import HtmlElement

_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption"}
    | {"figure", "footer", "form", "header", "hr", "html", "main", "nav", "p", "section", "summary"}
)
_DROPPED = frozenset({"script", "style", "noscript", "template", "svg", "head", "iframe", "object"})
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_MARKS = {"strong": "**", "b": "**", "em": "*", "i": "*", "code": "`"}
# Deeper nesting is an attack on parsers.
_DEEPEST = 150


def markdown_of(html: str) -> str:
    """Headings, paragraphs, lists, tables, code and links as Markdown; other elements as their text."""
    import lxml.html

    # A parser would end the page at a lone surrogate.
    html = _macros(clean(html))
    if not html.strip():
        return ""
    root = lxml.html.document_fromstring(f"<div>{html}</div>", parser=lxml.html.HTMLParser(encoding=None))
    return re.sub(r"\n{3,}", "\n\n", _block(root, 0)).strip()


def _macros(html: str) -> str:
    """Convert the code blocks of Confluence, whose CDATA an HTML parser would drop."""

    def listing(match: re.Match[str]) -> str:
        body = match[1].replace("&", "&amp;").replace("<", "&lt;")
        return f"<pre>{body}</pre>"

    return re.sub(
        r"<ac:plain-text-body>\s*<!\[CDATA\[(.*?)\]\]>\s*</ac:plain-text-body>", listing, html, flags=re.DOTALL
    )


def _block(element: HtmlElement, depth: int) -> str:
    """An element whose children may be blocks, with blank lines around each block."""
    tag = element.tag
    if not isinstance(tag, str) or tag in _DROPPED:
        return ""
    if tag == "ac:parameter":
        return ""
    if depth > _DEEPEST:
        return str(element.text_content())
    if tag in _HEADINGS:
        return f"\n\n{'#' * _HEADINGS[tag]} {_inline(element, depth)}\n\n"
    if tag == "pre":
        return f"\n\n```\n{element.text_content().strip(chr(10))}\n```\n\n"
    if tag in ("ul", "ol"):
        return f"\n\n{_list(element, depth)}\n\n"
    if tag == "table":
        return f"\n\n{_table(element, depth)}\n\n"
    text = _children(element, depth)
    return f"\n\n{text.strip()}\n\n" if tag in _BLOCKS else text


def _children(element: HtmlElement, depth: int) -> str:
    parts = [_spaced(element.text)]
    for child in element:
        parts += [_any(child, depth + 1), _spaced(child.tail)]
    return "".join(parts)


def _any(element: HtmlElement, depth: int) -> str:
    tag = element.tag
    if tag == "br":
        return "\n"
    if tag in _MARKS:
        text = _inline(element, depth)
        return f"{_MARKS[tag]}{text}{_MARKS[tag]}" if text else ""
    if tag == "a":
        text, target = _inline(element, depth), (element.get("href") or "").strip()
        return f"[{text}]({target})" if text and target.startswith(("http://", "https://")) else text
    if tag == "img":
        return element.get("alt") or ""
    return _block(element, depth)


def _inline(element: HtmlElement, depth: int) -> str:
    return " ".join(_children(element, depth).split()) if depth <= _DEEPEST else element.text_content()


def _list(element: HtmlElement, depth: int) -> str:
    lines = []
    for number, item in enumerate(element.iterchildren("li"), 1):
        mark = f"{number}. " if element.tag == "ol" else "- "
        text = re.sub(r"\n{2,}", "\n", _children(item, depth).strip())
        lines.append(mark + text.replace("\n", "\n" + " " * len(mark)))
    return "\n".join(lines)


def _table(element: HtmlElement, depth: int) -> str:
    # Not `iter`: it would include the rows of a table in a cell.
    parts = [element, *element.iterchildren("thead", "tbody", "tfoot")]
    rows = [
        [_inline(cell, depth + 1).replace("|", "\\|") for cell in row.iterchildren("td", "th")]
        for part in parts
        for row in part.iterchildren("tr")
    ]
    rows = [row for row in rows if row]
    if not rows:
        return ""
    width = max(map(len, rows))
    lines = [f"| {' | '.join(row + [''] * (width - len(row)))} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * width}", *lines[1:]])


def _spaced(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "")
