"""The platform's stores: where they are, what refers to them, and where what leaves them is kept."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.application.config import load_config
from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion.files import Store
from housekeeping_pipelines.deletion.tables import kept_files
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.orphans import references
from housekeeping_pipelines.orphans.references import ReferenceSource
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.resources.object_storage.local_folder import TRASH_FOLDER, LocalFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.orphans.search import Search
    from housekeeping_pipelines.resources.object_storage import ObjectStorage
    from housekeeping_pipelines.settings import Settings

UPLOADS, MEDIA, BUCKET = "uploads", "media", "bucket"

# The columns of processed_documents that name objects: what was uploaded, and what was made of it.
SOURCE_COLUMN = "source_file_path"
OUTPUT_COLUMNS = ("excel_file_path", "pdf_file_path", "doc_file_path")

# A path that begins with / names the same object: storage's own clients take it off.
_from_root = references.Transform(
    "from_root", lambda value: [sa.func.ltrim(value, "/"), sa.case((sa.func.starts_with(value, "/"), value))]
)


@dataclass(frozen=True)
class PlatformUses:
    """What of the platform names objects of one store.

    `sources` fails rather than leave one out: a name that nobody was asked about would look like nobody's.
    """

    store: str
    config: HousekeepingConfig
    root: Path | None = None

    def sources(self, connection: sa.Connection) -> list[ReferenceSource]:
        """The columns that refer to the store's names.

        Raises:
            ConfigurationError: the platform lacks such a table or column, and the mapping does not say so.
        """
        platform = Platform(Catalog(connection), self.config)
        found: list[ReferenceSource] = []
        for table_name, columns, transform in self._columns():
            table = platform.table(table_name)
            names = [theirs for column in columns if (theirs := table.names[column]) is not None]
            found += [ReferenceSource(table.live, name, transform=transform) for name in names]
        return found

    def _columns(self) -> list[tuple[str, Sequence[str], references.Transform]]:
        if self.store == UPLOADS:
            return [("parsed_files", ["filename"], references.slugify)]
        if self.store == MEDIA:
            assert self.root is not None  # noqa: S101 - a folder has one
            paths = references.join_to_root(self.root)
            return [
                ("detections", ["file_path", "thumbnail_path"], paths),
                ("security_events", ["clip_path"], paths),
            ]
        return [("processed_documents", [SOURCE_COLUMN, *OUTPUT_COLUMNS], _from_root)]

    def in_use(self, connection: sa.Connection, names: Sequence[str]) -> set[str]:
        """Those of the names that a row refers to now, or that were kept when their row went.

        Raises:
            ConfigurationError: it cannot be known.
        """
        if not names:
            return set()
        return references.referred_to(connection, self.sources(connection), names) | self.kept(connection, names)

    def kept(self, connection: sa.Connection, names: Sequence[str]) -> set[str]:
        """Those that stayed when the row that named them went."""
        wanted = sa.bindparam("names", list(names), ARRAY(sa.Text))
        statement = sa.select(kept_files.c.name).where(kept_files.c.store == self.store)
        return set(connection.scalars(statement.where(kept_files.c.name == sa.any_(wanted))))

    def of_sessions(self, connection: sa.Connection, names: Sequence[str]) -> set[str]:
        """Those in the folder of an upload session that exists, whether or not a document names them."""
        if self.store != BUCKET:
            return set()
        sessions = Platform(Catalog(connection), self.config).table("upload_sessions")
        key = sa.cast(sessions["session_key"], sa.Text)
        folders = sorted({name.partition("/")[0] for name in names if "/" in name})
        wanted = sa.bindparam("folders", folders, ARRAY(sa.Text))
        live = set(connection.scalars(sa.select(key).where(key == sa.any_(wanted))))
        return {name for name in names if "/" in name and name.partition("/")[0] in live}


@dataclass(frozen=True)
class Stores:
    """The stores as the settings name them; none is opened before it is used."""

    settings: Settings
    _opened: dict[str, Store] = field(default_factory=dict)

    @cached_property
    def config(self) -> HousekeepingConfig:
        """`housekeeping.yaml`.

        Raises:
            ConfigurationError: it is not of its form.
        """
        return load_config(self.settings.housekeeping_config)

    def __getitem__(self, name: str) -> Store:
        """
        Raises:
            ConfigurationError: there is no such store, or its settings are wrong.
        """
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]

    def uses(self, name: str) -> PlatformUses:
        """What of the platform refers to a store's names."""
        return PlatformUses(name, self.config, self._folders()[name][0])

    def folder(self, name: str) -> Path:
        """Where a store's files are, or would be if the bucket were a folder."""
        return self._folders()[name][0]

    def prefix(self, search: Search) -> str:
        """How the names begin that a search is limited to.

        Raises:
            ConfigurationError: its folder is not within the store's.
        """
        root = self._folders()[search.store][0]
        if search.base_path is None:
            return ""
        inside = Path(os.path.normpath(root / search.base_path))
        if not inside.is_relative_to(root) or not inside.resolve().is_relative_to(root.resolve()):
            raise ConfigurationError(f"base_path {search.base_path!r} is not within {root}", hint="name a folder in it")
        if not inside.is_dir():
            raise ConfigurationError(f"base_path {search.base_path!r} is no folder in {root}", hint="name one that is")
        name = inside.relative_to(root).as_posix()
        return "" if name == "." else f"{name}/"

    def _folders(self) -> dict[str, tuple[Path, str | None]]:
        """Each store's folder, and the variable that names it; None for our own, which stands in."""
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
            # Our own stand-in for what is not configured: an empty folder is a store in which there is nothing.
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
        if settings.supabase_url is None or not settings.supabase_key:
            raise ConfigurationError(
                "SUPABASE_URL is set and SUPABASE_KEY is not", hint="set SUPABASE_KEY to the project's service key"
            )
        return SupabaseBucket(
            settings.supabase_url,
            settings.supabase_key,
            settings.supabase_bucket,
            trash_prefix=settings.storage_trash_prefix,
            concurrency=settings.supabase_concurrency,
            # Processes tell each other by way of the platform's database that storage is down.
            circuit=Circuit(f"storage at {settings.supabase_url}", engine=make_engine(platform_url(settings))),
        )


def _given(path: Path | None, default: Path, variable: str) -> tuple[Path, str | None]:
    return (default, None) if path is None else (path, variable)
