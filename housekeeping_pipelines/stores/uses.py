"""The platform's references to the objects of each store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion.tables import kept_files
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.stores import references
from housekeeping_pipelines.stores.references import ReferenceSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from housekeeping_pipelines.application.config import HousekeepingConfig


UPLOADS, MEDIA, BUCKET = "uploads", "media", "bucket"

# The columns of processed_documents that name objects: the upload, and the outputs derived from it.
SOURCE_COLUMN = "source_file_path"
OUTPUT_COLUMNS = ("excel_file_path", "pdf_file_path", "doc_file_path")


def _from_root(value: references.Value) -> Sequence[references.Value]:
    """A path with a leading / names the same object: storage's own clients strip it."""
    return [sa.func.ltrim(value, "/"), sa.case((sa.func.starts_with(value, "/"), value))]


@dataclass(frozen=True)
class PlatformUses:
    """The platform's references to the objects of one store.

    `sources` fails rather than leave a column out: the files that only this column names would look unreferenced.
    """

    store: str
    config: HousekeepingConfig
    root: Path | None = None

    def sources(self, connection: sa.Connection) -> list[ReferenceSource]:
        """The columns whose values name objects of the store.

        Raises:
            ConfigurationError: the platform lacks one of the tables or columns, and the mapping does not declare that.
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
        """Those of the names that a row refers to now, or that were kept when their row was deleted.

        Raises:
            ConfigurationError: the references cannot be found.
        """
        if not names:
            return set()
        referred_to = references.referred_to(connection, self.sources(connection), names)
        return referred_to | self.still_referenced(connection, names)

    def still_referenced(self, connection: sa.Connection, names: Sequence[str]) -> set[str]:
        """Those of the names that were kept when the row that named them was deleted."""
        wanted = sa.bindparam("names", list(names), ARRAY(sa.Text))
        statement = sa.select(kept_files.c.name).where(kept_files.c.store == self.store)
        return set(connection.scalars(statement.where(kept_files.c.name == sa.any_(wanted))))

    def referenced_by_sessions(self, connection: sa.Connection, names: Sequence[str]) -> set[str]:
        """Those of the names in the folder of an existing upload session, whether or not a document names them."""
        if self.store != BUCKET:
            return set()
        sessions = Platform(Catalog(connection), self.config).table("upload_sessions")
        key = sa.cast(sessions["session_key"], sa.Text)
        folders = sorted({name.partition("/")[0] for name in names if "/" in name})
        wanted = sa.bindparam("folders", folders, ARRAY(sa.Text))
        live = set(connection.scalars(sa.select(key).where(key == sa.any_(wanted))))
        return {name for name in names if "/" in name and name.partition("/")[0] in live}
