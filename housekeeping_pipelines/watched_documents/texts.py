"""The texts of documents: JSON files below DOCUMENTS_PATH with `pageContent`, `published` and metadata."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.atomic_files import drafted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from housekeeping_pipelines.settings import Settings

# Far larger than any text that a sync writes; a larger file is not a document.
MAX_FILE_BYTES = 256 * 2**20


class TextFileError(Exception):
    """The file cannot be read or written; the message says why."""


@dataclass(frozen=True)
class Texts:
    """The folder of documents."""

    folder: Path

    def read(self, docpath: str) -> str | None:
        """The text of a document; None if there is no file, or no text in it.

        Raises:
            TextFileError: the path leads out of the folder, or the file cannot be read.
        """
        text = self._load(docpath).get("pageContent")
        return text if isinstance(text, str) else None

    @contextmanager
    def draft(self, docpath: str, text: str, about: Mapping[str, Any]) -> Iterator[Callable[[], None]]:
        """Write a document's new text beside the old one, flushed to disk; yields a function that replaces the old one.

        The other fields of the file are kept. A draft that did not replace the old text is removed at the end.

        Raises:
            TextFileError: the path leads out of the folder, or the file cannot be written.
        """
        path = self._path(docpath)
        try:
            document = self._load(docpath)
        except TextFileError:
            # The new text replaces the unreadable file.
            document = {}
        content = json.dumps({**document, **about, "pageContent": text}, ensure_ascii=False, indent=4).encode()
        with ExitStack() as stack:
            with _explained(docpath):
                path.parent.mkdir(parents=True, exist_ok=True)
                put_in_place = stack.enter_context(drafted(path, content, draft=f".{path.name[:200]}.part"))
            yield lambda: _put_in_place(put_in_place, docpath)

    def check_path(self, docpath: str) -> None:
        """
        Raises:
            TextFileError: the path leads out of the folder.
        """
        self._path(docpath)

    def _path(self, docpath: str) -> Path:
        path = Path(os.path.normpath(self.folder / docpath))
        inside = docpath and "\0" not in docpath and path != self.folder and path.is_relative_to(self.folder)
        # A link within the folder may lead out of it.
        if not inside or not path.parent.resolve().is_relative_to(self.folder.resolve()) or path.is_symlink():
            raise TextFileError(f"docpath {docpath!r} is not a path below DOCUMENTS_PATH")
        return path

    def _load(self, docpath: str) -> dict[str, Any]:
        path = self._path(docpath)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise TextFileError(f"{docpath} is larger than {MAX_FILE_BYTES // 2**20} MB")
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise TextFileError(f"{docpath} cannot be read: {_reason(error)}") from None
        return document if isinstance(document, dict) else {}


def documents_folder(settings: Settings) -> Texts:
    """The folder of DOCUMENTS_PATH, or one below HOUSEKEEPING_HOME if it is unset."""
    return Texts(settings.documents_path or settings.housekeeping_home / "documents")


def _put_in_place(put_in_place: Callable[[], None], docpath: str) -> None:
    with _explained(docpath):
        put_in_place()


@contextmanager
def _explained(docpath: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TextFileError(f"{docpath} cannot be written: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
