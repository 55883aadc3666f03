"""The text of a document on disk: a JSON file below DOCUMENTS_PATH with `pageContent`, `published` and metadata."""

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

# Far more than any text that is written here; a file beyond it is not one of ours.
MAX_FILE_BYTES = 256 * 2**20


class TextFileError(Exception):
    """The file cannot be read or written; the text says why."""


@dataclass(frozen=True)
class Texts:
    """The folder of documents."""

    folder: Path

    def read(self, docpath: str) -> str | None:
        """A document's text; None if there is no file, or none that has a text.

        Raises:
            TextFileError: the path leads elsewhere, or the file cannot be read.
        """
        text = self._load(docpath).get("pageContent")
        return text if isinstance(text, str) else None

    @contextmanager
    def draft(self, docpath: str, text: str, about: Mapping[str, Any]) -> Iterator[Callable[[], None]]:
        """Write a document's new text beside the old one, safe on the disk; what is yielded puts it in its place.

        Whatever else the file says stays. A draft that was not put in its place is gone at the end.

        Raises:
            TextFileError: the path leads elsewhere, or the file cannot be written.
        """
        path = self._path(docpath)
        try:
            document = self._load(docpath)
        except TextFileError:
            # It is about to be replaced by one that can be read.
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
        # A link within may lead out.
        if not inside or not path.parent.resolve().is_relative_to(self.folder.resolve()) or path.is_symlink():
            raise TextFileError(f"docpath {docpath!r} leads to no file below DOCUMENTS_PATH")
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
    """The folder of DOCUMENTS_PATH, or ours where it is unset."""
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
