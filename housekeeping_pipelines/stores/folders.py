"""Where the stores' folders are, and which of them lie within another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from housekeeping_pipelines.application.config import STORES
from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from housekeeping_pipelines.settings import Settings

UPLOADS, MEDIA, BUCKET = STORES


class Folder(NamedTuple):
    """A folder, and the setting that names it; None for a folder of our own."""

    path: Path
    variable: str | None


@dataclass(frozen=True)
class Folders:
    """The folders of the stores; the bucket has one only while SUPABASE_URL is unset."""

    settings: Settings

    def __getitem__(self, store: str) -> Folder:
        return self._stores()[store]

    def __contains__(self, store: str) -> bool:
        return store in self._stores()

    def within(self, store: str) -> list[Path]:
        """The folders in a store's folder that are not part of the store: other stores', and our own.

        Raises:
            ConfigurationError: one of them is the store's folder itself.
        """
        mine = self[store]
        root, inner = mine.path.resolve(), []
        for name, other in self._all().items():
            there = other.path.resolve()
            if name == store or not there.is_relative_to(root):
                continue
            if there == root:
                raise ConfigurationError(
                    f"{mine.path} is the folder of {store} and of {name}: neither can tell its own files",
                    hint=f"give each a folder of its own: set {mine.variable or other.variable}",
                )
            inner.append(other.path)
        return inner

    def around(self, store: str) -> list[str]:
        """The other stores in whose folders a store's folder lies: their rows may name its files."""
        root = self[store].path.resolve()
        return [
            name
            for name, other in self._stores().items()
            if name != store and self._is_local(name) and self._is_local(store) and other.path.resolve() in root.parents
        ]

    def _is_local(self, store: str) -> bool:
        return store != BUCKET or self.settings.supabase_url is None

    def _stores(self) -> dict[str, Folder]:
        settings, home = self.settings, self.settings.housekeeping_home
        return {
            UPLOADS: _given(settings.direct_uploads_path, home / UPLOADS, "DIRECT_UPLOADS_PATH"),
            MEDIA: _given(settings.media_path, home / MEDIA, "MEDIA_PATH"),
            BUCKET: Folder(home / BUCKET, None),
        }

    def _all(self) -> dict[str, Folder]:
        settings, home = self.settings, self.settings.housekeeping_home
        return {
            **{name: folder for name, folder in self._stores().items() if self._is_local(name)},
            "documents": _given(settings.documents_path, home / "documents", "DOCUMENTS_PATH"),
            "HOUSEKEEPING_HOME": Folder(home, "HOUSEKEEPING_HOME"),
        }


def _given(path: Path | None, default: Path, variable: str) -> Folder:
    return Folder(default, None) if path is None else Folder(path, variable)
