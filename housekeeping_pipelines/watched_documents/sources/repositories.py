"""Parses the address of a repository, and joins its files to one text."""

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

# Each takes a request; a repository with more is a code base, not a document.
MAX_FILES = 1000
MAX_FILE_BYTES = 2**20

# Neither `.` nor `..`, which would change the path, nor the dash between a GitLab project and its content.
_NAME = re.compile(r"(?!(\.\.?|-)(/|$))[\w.-]+(/(?!(\.\.?|-)(/|$))[\w.-]+)+", re.ASCII)


@dataclass(frozen=True)
class Place:
    """A place in a repository; an empty branch is the default one, an empty path the whole repository."""

    name: str
    branch: str
    path: str

    def holds(self, path: str) -> bool:
        """Whether a file is at or below the path."""
        return not self.path or path == self.path or path.startswith(f"{self.path}/")


@dataclass(frozen=True)
class File:
    """A file of a repository, with the hash of its content."""

    path: str
    blob: str


def place(reference: Reference, *, below: str = "") -> Place | None:
    """Parse `OWNER/NAME`, `…/tree/BRANCH/PATH` or `…/-/blob/BRANCH/PATH`, or `branch` and `path` in the query.

    A branch with a slash in its name must be in the query.

    Args:
        below: the base path of the server; empty if it has none.

    Returns:
        None if the address is not one of a repository.
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
    # Browsers percent-encode non-ASCII characters in addresses.
    branch = given.get("branch") or given.get("ref") or unquote(branch)
    return Place(name, branch, (given.get("path") or unquote(path)).strip("/"))


def digest(files: Iterable[File]) -> str:
    """One hash of all files, which changes with any of them."""
    lines = "".join(f"{file.blob} {file.path}\n" for file in files)
    return hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest()


def joined(files: Iterable[File], read: Callable[[File], bytes], *, single: bool) -> str:
    """The texts of the files, each below its path; binary and large files are left out."""
    texts = []
    for file in files:
        content = read(file)
        if len(content) > MAX_FILE_BYTES or b"\0" in content[:8000]:
            continue
        text = clean(decode(content))
        if text.strip():
            texts.append(text if single else f"# {clean(file.path)}\n\n{text.strip()}")
    return "\n\n".join(texts)
