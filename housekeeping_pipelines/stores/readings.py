"""What a value in a row may mean: every name of a stored file that a person would read in it.

Platforms write references in many forms: a path from the store's root, an absolute path on this machine or in a
container, an address, with or without percent-encoding, several of them in a JSON document or a text. A superfluous
reading keeps a file that nothing refers to; a missing one would delete a file that is in use. So when in doubt, a value
is read in every way.

Names are compared in NFC: a reading in another normal form than the name on disk is the same name.
"""

from __future__ import annotations

import csv
import html
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unicodedata import is_normalized, normalize
from urllib.parse import parse_qsl, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# A longer text is no path: PATH_MAX of Linux; a key of S3 and Supabase Storage has at most 1,024 bytes.
MAX_NAME_LENGTH = 4096
# A text that is encoded more often, or nested more deeply, was not written to name a file.
MAX_ROUNDS = 4
MAX_VARIANTS = 64

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_DRIVE = re.compile(r"/?[A-Za-z]:")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LIST_SEPARATORS = re.compile(r"[\n\r\t,;|]")
# What surrounds a path in a sentence, in Markdown, in HTML, and in what Python prints of a list.
_WORD_SEPARATORS = re.compile(r"[\s\"'`<>()\[\]{}=,;|]+")


def canonical(name: str) -> str:
    """The form in which names are compared."""
    return name if is_normalized("NFC", name) else normalize("NFC", name)


def spellings(name: str) -> set[str]:
    """The forms in which a store may have a name."""
    return {name, normalize("NFC", name), normalize("NFD", name)}


@dataclass(frozen=True)
class Reading:
    """Names that a value may mean, in canonical form.

    Attributes:
        exact: each is meant if the store has it.
        chains: of each chain, the first name that the store has is meant: the value is a path from an unknown root,
            and its suffixes are tried from the longest to the shortest.
        literal: those of `exact` that are the value as it stands, with nothing decoded or cut off.
    """

    exact: set[str] = field(default_factory=set)
    chains: set[tuple[str, ...]] = field(default_factory=set)
    literal: set[str] = field(default_factory=set)

    def meant(self, stored: Iterable[str]) -> set[str]:
        """What is meant, of all the names that the store has, which are in canonical form."""
        has = set(stored)
        longest = (next((name for name in chain if name in has), None) for chain in self.chains)
        return (self.exact & has) | {name for name in longest if name is not None}

    def likely(self) -> set[str]:
        """Those that are meant if the store has them."""
        return self.exact.union(chain[0] for chain in self.chains)

    def names(self) -> set[str]:
        """All of them."""
        return self.exact.union(*self.chains)


def meant(readings: Iterable[Reading], stored: Iterable[str]) -> set[str]:
    """What a value means by all its readings; none counts after one that the store has literally."""
    has, found = set(stored), set[str]()
    for reading in readings:
        found |= reading.meant(has)
        if not has.isdisjoint(reading.literal):
            break
    return found


@dataclass(frozen=True)
class Naming:
    """How the files of one store are named in rows.

    Attributes:
        roots: absolute paths that mean the store's root, with `/` between their parts and none at the end; those of
            Windows begin with a drive letter.
        own_names: the names of the folder or bucket, which may stand in front of a name.
    """

    roots: tuple[str, ...] = ()
    own_names: tuple[str, ...] = ()

    def read(self, value: str) -> list[Reading]:
        """The reading of the whole value, and that of the texts in it: see `meant`."""
        whole, inner = Reading(), Reading()
        for text in (value, value.strip()):
            self._read_text(text, whole)
        whole.literal.update({canonical(value), canonical(value.strip())} & whole.exact)
        for text in dict.fromkeys(_texts_in(value, MAX_ROUNDS)):
            self._read_text(text, inner)
        return [reading for reading in (whole, inner) if reading.exact or reading.chains]

    def meant(self, value: str, stored: Iterable[str]) -> set[str]:
        """What a value means, of all the names that the store has, in canonical form."""
        return meant(self.read(value), stored)

    def _read_text(self, text: str, reading: Reading) -> None:
        if text and len(text) <= MAX_NAME_LENGTH:
            for variant in filter(_can_be_a_name, _variants(text)):
                self._read_path(canonical(variant), reading)

    def _read_path(self, text: str, reading: Reading) -> None:
        reading.exact.update({text, text.lstrip("/")} - {""})
        scheme = _SCHEME.match(text)
        path = f"/{text[scheme.end() :]}" if scheme else text
        is_local = scheme is None or scheme[1].lower() == "file"
        if is_local and (below := self._below_roots(path)):
            reading.exact.update(below)
            if _is_absolute(path):
                return
        drive = _DRIVE.match(path)
        parts = _resolved(path[drive.end() :] if drive else path)
        if not parts:
            return
        reading.chains.add(tuple("/".join(parts[start:]) for start in range(len(parts))))
        if len(parts) > 1 and parts[0] in self.own_names:
            reading.exact.add("/".join(parts[1:]))

    def _below_roots(self, path: str) -> set[str]:
        """The names of a path that lies below a root: absolute, or relative to it with a way out and in again."""
        found: set[str] = set()
        for root in self.roots if _is_absolute(path) or "/../" in f"/{path}" else ():
            parts, root_parts = _resolved(path if _is_absolute(path) else f"{root}/{path}"), _resolved(root)
            if _DRIVE.match(root):
                same = [part.casefold() for part in parts[: len(root_parts)]] == [
                    each.casefold() for each in root_parts
                ]
            else:
                same = parts[: len(root_parts)] == root_parts
            if same and len(parts) > len(root_parts):
                found.add("/".join(parts[len(root_parts) :]))
        return found


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or _DRIVE.match(path) is not None


def _can_be_a_name(text: str) -> bool:
    """Whether PostgreSQL can hold it: no NUL, and no half of a surrogate pair, which JSON can escape."""
    return "\0" not in text and not _SURROGATE.search(text)


def strings(document: Any) -> Iterator[str]:
    """Every string of a JSON document, keys included."""
    waiting = [document]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, dict):
            yield from found
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def _texts_in(value: str, rounds: int) -> Iterator[str]:
    """Texts in the value that may be names of their own."""
    text = value.strip()
    if not rounds or not text:
        return
    for inner in {*_parts_of_structure(text), *_parameters(text)} - {value, text}:
        yield inner
        yield inner.strip()
        yield from _texts_in(inner, rounds - 1)


def _parts_of_structure(text: str) -> Iterable[str]:
    if text[0] in '[{"':
        try:
            return strings(json.loads(text))
        except (ValueError, RecursionError):
            pass
    parts: set[str] = set()
    if text[0] == "{" and text[-1] == "}":
        # An array as PostgreSQL writes it.
        parts.update(next(csv.reader([text[1:-1].replace("\n", " ")], escapechar="\\"), []))
    parts.update(_LIST_SEPARATORS.split(text))
    parts.update(word.rstrip(".:!") for word in _WORD_SEPARATORS.split(text) if "/" in word or "." in word)
    return parts - {""}


def _parameters(text: str) -> Iterable[str]:
    """The values of the parameters of an address: one that resizes a picture names it there."""
    if "?" not in text or len(text) > MAX_NAME_LENGTH:
        return ()
    return [value for _, value in parse_qsl(text.partition("?")[2])]


def _variants(text: str) -> Iterable[str]:
    """The text as it is, decoded, unescaped, and without what may follow a path in an address."""
    found = {text: None}
    waiting = [text]
    for _ in range(MAX_ROUNDS):
        new = (each for known in waiting for each in _simpler(known))
        waiting = [each for each in dict.fromkeys(new) if each not in found][: MAX_VARIANTS - len(found)]
        if not waiting:
            break
        found |= dict.fromkeys(waiting)
    return found


def _simpler(text: str) -> Iterator[str]:
    yield text.strip()
    yield text.strip("\"'` \t\r\n<>")
    if "%" in text:
        yield _decoded(text)
    if "+" in text:
        yield text.replace("+", " ")
    if "&" in text:
        yield html.unescape(text)
    if "\\" in text:
        yield text.replace("\\", "/")
    for mark in "?#":
        if mark in text:
            yield text.partition(mark)[0]


def _decoded(text: str) -> str:
    raw = unquote_to_bytes(text)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _resolved(path: str) -> list[str]:
    """The parts of a path without `.`, `..` and empty ones."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts
