"""The platform's stores: their locations, the references to their files, and their trash."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from housekeeping_pipelines.application.config import load_config
from housekeeping_pipelines.deletion.store import Store
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.resources.object_storage.local_folder import TRASH_FOLDER, LocalFolder
from housekeeping_pipelines.stores.uses import BUCKET, MEDIA, UPLOADS, PlatformUses

if TYPE_CHECKING:
    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.resources.object_storage import ObjectStorage
    from housekeeping_pipelines.settings import Settings


@dataclass(frozen=True)
class Stores:
    """The stores that the settings name; each is opened on first use."""

    settings: Settings
    _opened: dict[str, Store] = field(default_factory=dict)

    @cached_property
    def config(self) -> HousekeepingConfig:
        """`housekeeping.yaml`.

        Raises:
            ConfigurationError: the file is not valid.
        """
        return load_config(self.settings)

    def __getitem__(self, name: str) -> Store:
        """
        Raises:
            ConfigurationError: there is no such store, or its settings are wrong.
        """
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]

    def close(self) -> None:
        """Close the connections of the stores that were opened."""
        for store in self._opened.values():
            # A folder has none.
            close = getattr(store.storage, "close", None)
            if callable(close):
                close()

    def uses(self, name: str) -> PlatformUses:
        """The platform's references to a store's files."""
        return PlatformUses(name, self.config, self._folders()[name][0])

    def folder(self, name: str) -> Path:
        """The folder of a store's files; for the bucket, the folder that stands in for it."""
        return self._folders()[name][0]

    def _folders(self) -> dict[str, tuple[Path, str | None]]:
        """Each store's folder, and the variable that names it; None for a folder of our own that stands in."""
        settings, home = self.settings, self.settings.housekeeping_home
        return {
            UPLOADS: _given(settings.direct_uploads_path, home / UPLOADS, "DIRECT_UPLOADS_PATH"),
            MEDIA: _given(settings.media_path, home / MEDIA, "MEDIA_PATH"),
            BUCKET: (home / BUCKET, None),
        }

    def _open(self, name: str) -> Store:
        settings, folders = self.settings, self._folders()
        if name not in folders:
            raise ConfigurationError(f"there is no store {name!r}", hint=f"the stores are {', '.join(folders)}")
        if name == BUCKET and settings.supabase_url is not None:
            prefix = settings.storage_trash_prefix if settings.trash_retention_days else None
            return Store(name, self.bucket, prefix, self.uses(name))
        path, variable = folders[name]
        if variable is None:
            # The stand-in for a store that is not configured is an empty folder.
            path.mkdir(parents=True, exist_ok=True)
        prefix = TRASH_FOLDER if settings.trash_retention_days else None
        return Store(name, LocalFolder(path, variable=variable), prefix, self.uses(name))

    @cached_property
    def bucket(self) -> ObjectStorage:
        """The Supabase bucket.

        Raises:
            ConfigurationError: SUPABASE_KEY is not set.
        """
        from housekeeping_pipelines.postgres.addresses import platform_url
        from housekeeping_pipelines.postgres.engine import make_engine
        from housekeeping_pipelines.resources.object_storage.circuit import Circuit
        from housekeeping_pipelines.resources.object_storage.supabase_bucket import SupabaseBucket

        settings = self.settings
        if settings.supabase_url is None or settings.supabase_key is None:
            raise ConfigurationError(
                "SUPABASE_URL is set and SUPABASE_KEY is not", hint="set SUPABASE_KEY to the project's service key"
            )
        return SupabaseBucket(
            settings.supabase_url,
            settings.supabase_key.get_secret_value(),
            settings.supabase_bucket,
            trash_prefix=settings.storage_trash_prefix,
            concurrency=settings.supabase_concurrency,
            # Processes share the state of the circuit through the platform's database.
            circuit=Circuit(f"storage at {settings.supabase_url}", engine=make_engine(platform_url(settings))),
        )


def _given(path: Path | None, default: Path, variable: str) -> tuple[Path, str | None]:
    return (default, None) if path is None else (path, variable)
