"""The platform's stores: their locations, the references to their files, and their trash."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from housekeeping_pipelines.application.config import STORES, load_config
from housekeeping_pipelines.application.sample import is_sample_folder
from housekeeping_pipelines.atomic_files import make_folder
from housekeeping_pipelines.deletion.store import Store
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.resources.object_storage.local_folder import TRASH_FOLDER, LocalFolder
from housekeeping_pipelines.stores.folders import BUCKET, Folders
from housekeeping_pipelines.stores.uses import PlatformUses

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
        folders, settings = self._folders, self.settings
        folder, setting, bucket = *folders[name], None
        if name == BUCKET:
            bucket = settings.supabase_bucket
            setting = "SUPABASE_URL" if settings.supabase_url is not None else None
        return PlatformUses(name, self.config, folder, bucket, setting, tuple(folders.around(name)))

    def folder(self, name: str) -> Path:
        """The folder of a store's files; for the bucket, the folder that stands in for it."""
        return self._folders[name].path

    @property
    def disabled(self) -> dict[str, str]:
        """The stores from which nothing is removed, with the reason."""
        return {} if self.settings.storage_cleanup_enabled else {BUCKET: "STORAGE_CLEANUP_ENABLED is false"}

    @property
    def _folders(self) -> Folders:
        return Folders(self.settings)

    def _open(self, name: str) -> Store:
        settings, folders = self.settings, self._folders
        disabled = self.disabled.get(name)
        if name not in folders:
            raise ConfigurationError(f"there is no store {name!r}", hint=f"the stores are {', '.join(STORES)}")
        if name == BUCKET and settings.supabase_url is not None:
            prefix = settings.storage_trash_prefix or None if settings.trash_retention_days else None
            return Store(name, self.bucket, prefix, self.uses(name), settings.storage_trash_prefix or None, disabled)
        path, variable = folders[name]
        if variable is None:
            # The stand-in for a store that is not configured is an empty folder.
            make_folder(path)
        storage = LocalFolder(
            path,
            variable=variable,
            # The sample's files are as old as the demo made them look.
            trust_mtime=settings.trust_mtime or (variable is None and is_sample_folder(path)),
            without=folders.within(name),
        )
        prefix = TRASH_FOLDER if settings.trash_retention_days else None
        return Store(name, storage, prefix, self.uses(name), TRASH_FOLDER, disabled)

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
            trash_prefix=settings.storage_trash_prefix or None,
            concurrency=settings.supabase_concurrency,
            # Processes share the state of the circuit through the platform's database.
            circuit=Circuit(f"storage at {settings.supabase_url}", engine=make_engine(platform_url(settings))),
        )
