"""What a repository's address names, and its files as one text."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from housekeeping_pipelines.watched_documents.sources.decoding import clean, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from housekeeping_pipelines.watched_documents.sources.references import Reference

# A request each; more of them are a code base, not a document.
MAX_FILES = 1000
MAX_FILE_BYTES = 2**20

# No dots alone, which would lead elsewhere, nor the dash by which GitLab parts a project from what is in it.
_NAME = re.compile(r"(?!(\.\.?|-)(/|$))[\w.-]+(/(?!(\.\.?|-)(/|$))[\w.-]+)+", re.ASCII)


@dataclass(frozen=True)
class Place:
    """Where in a repository: the default branch and all of it where they are empty."""

    name: str
    branch: str
    path: str

    def holds(self, path: str) -> bool:
        """Whether a file is what is named, or lies below it."""
        return not self.path or path == self.path or path.startswith(f"{self.path}/")


@dataclass(frozen=True)
class File:
    """A file of a repository by the hash of its content."""

    path: str
    blob: str


def place(reference: Reference, *, below: str = "") -> Place | None:
    """`OWNER/NAME`, `…/tree/BRANCH/PATH`, `…/-/blob/BRANCH/PATH`, with `branch` and `path` in the query; None: no name.

    A branch with a slash in its name must be given in the query.

    Args:
        below: the folder of the server that repositories are in; empty if it has none.
    """
    whole = reference.path.strip("/")
    if below:
        if not whole.startswith(f"{below}/"):
            return None
        whole = whole.removeprefix(f"{below}/")
    name, _, inside = re.sub(r"/(-/)?(tree|blob|raw)/", "\0", whole, count=1).partition("\0")
    branch, _, path = inside.partition("/")
    name = name.removesuffix(".git")
    if not _NAME.fullmatch(name):
        return None
    given = reference.parameters
    # A browser shows an address with what is no ASCII in it encoded.
    branch = given.get("branch") or given.get("ref") or unquote(branch)
    return Place(name, branch, (given.get("path") or unquote(path)).strip("/"))


def digest(files: Iterable[File]) -> str:
    """One hash of all files, which changes when one of them does."""
    lines = "".join(f"{file.blob} {file.path}\n" for file in files)
    return hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest()


def joined(files: Iterable[File], read: Callable[[File], bytes], *, single: bool) -> str:
    """The texts of the files, each under its path; what is no text is left out."""
    texts = []
    for file in files:
        content = read(file)
        if len(content) > MAX_FILE_BYTES or b"\0" in content[:8000]:
            continue
        text = clean(decode(content))
        if text.strip():
            texts.append(text if single else f"# {clean(file.path)}\n\n{text.strip()}")
    return "\n\n".join(texts)
