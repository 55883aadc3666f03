"""The platform's references to the objects of each store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.application.sample import sample_tables
from housekeeping_pipelines.application.tables import FILE_COLUMNS
from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.mirrors import BATCH_COLUMN, MIRRORS_LOCK, find_mirrors
from housekeeping_pipelines.deletion.store import InUse
from housekeeping_pipelines.deletion.tables import kept_files, trash_batches
from housekeeping_pipelines.errors import Absent, ConfigurationError
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.postgres.locks import lock_for_transaction
from housekeeping_pipelines.stores.columns import shape_of
from housekeeping_pipelines.stores.folders import BUCKET, MEDIA, UPLOADS
from housekeeping_pipelines.stores.in_use import in_use, meant
from housekeeping_pipelines.stores.readings import spellings
from housekeeping_pipelines.stores.references import ReferenceSource, Root, naming

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.postgres.catalog import Table
    from housekeeping_pipelines.stores.readings import Naming
    from housekeeping_pipelines.stores.references import Transform

# The columns of processed_documents that name objects: the upload, and the outputs derived from it.
SOURCE_COLUMN = "source_file_path"
OUTPUT_COLUMNS = ("excel_file_path", "pdf_file_path", "doc_file_path")

_COLUMNS: dict[str, list[tuple[str, Sequence[str], Transform]]] = {
    UPLOADS: [("parsed_files", ["filename"], "slug")],
    MEDIA: [("detections", ["file_path", "thumbnail_path"], "path"), ("security_events", ["clip_path"], "path")],
    BUCKET: [("processed_documents", [SOURCE_COLUMN, *OUTPUT_COLUMNS], "path")],
}


@dataclass(frozen=True)
class PlatformUses:
    """The platform's references to the objects of one store.

    Attributes:
        folder: the store's folder, or that of the bucket's stand-in.
        bucket: the name of the bucket.
        setting: the variable by which a user named the store; None: it is ours.
        around: the stores in whose folders this one's lies.

    `sources` fails rather than leave a column out: the files that only this column names would look unreferenced.
    """

    store: str
    config: HousekeepingConfig
    folder: Path | None = None
    bucket: str | None = None
    setting: str | None = None
    around: tuple[str, ...] = ()

    @property
    def naming(self) -> Naming:
        """How the store's files are named in rows."""
        own_names = [self.bucket] if self.bucket else []
        return naming(Root(self.folder, own_names, self.config.roots.get(self.store, ())))

    def sources(self, connection: sa.Connection, *, except_tasks: Collection[str] = ()) -> list[ReferenceSource]:
        """The columns whose values name objects of the store: of the platform, of rows in the trash, of kept outputs.

        Args:
            except_tasks: rows in the trash are left out if one of these tasks deleted them.

        Raises:
            Refused: the tables are the sample's, and the store is not.
            ConfigurationError: the platform lacks one of the tables or columns, and the mapping does not declare that;
                or a column's values cannot be names.
        """
        self.check_not_sample(connection)
        columns = [*self._columns(connection), *self._columns_around(connection)]
        kept = sa.select(kept_files.c.name).where(kept_files.c.store == self.store).subquery()
        return [
            *(source for _, source in columns),
            *self._in_trash(connection, columns, trash_batches.c.task.not_in(except_tasks) if except_tasks else None),
            ReferenceSource(kept, "name", "kept outputs", self.naming, guarded=False),
        ]

    def columns(self, connection: sa.Connection) -> list[ReferenceSource]:
        """The columns of the platform's own tables alone; raises what `sources` does."""
        return [source for _, source in self._columns(connection)]

    def check_not_sample(self, connection: sa.Connection) -> None:
        """
        Raises:
            Refused: the tables are the sample's, and the store is not.
        """
        if self.setting is not None:
            platform = Platform(Catalog(connection), self.config)
            found = [table.live for name, _, _ in _COLUMNS[self.store] if (table := platform.find(name))]
            guards.check_not_sample(sample_tables(connection, found), self.store, self.setting)

    def in_trash_of(self, connection: sa.Connection, run_id: str) -> list[ReferenceSource]:
        """The columns of the rows that a run deleted and that are in the trash; raises what `sources` does."""
        return list(self._in_trash(connection, self._columns(connection), trash_batches.c.run_id == run_id))

    def _columns(self, connection: sa.Connection) -> Iterator[tuple[Table, ReferenceSource]]:
        platform = Platform(Catalog(connection), self.config)
        found: list[tuple[Table, str, dict[str, Any]]] = []
        for name, columns, transform in _COLUMNS[self.store]:
            table = platform.table(name)
            for column in columns:
                theirs = table.names[column]
                if theirs is not None:
                    found.append((table.live, theirs, {"transform": transform}))
                elif column not in FILE_COLUMNS.get(name, ()):
                    raise Absent(
                        f"tables.{name}.columns.{column} is null, and names files of {self.store}",
                        hint=f"name the column in housekeeping.yaml, or leave the task on {self.store} disabled",
                    )
        for reference in self.config.references.get(self.store, ()):
            table_found = platform.any_table(reference.table)
            if reference.column not in {column.name for column in table_found.columns}:
                near = table_found.nearest(reference.column)
                raise ConfigurationError(
                    f"{table_found.label} has no column {reference.column}{near}",
                    hint=f"correct it under references.{self.store} in housekeeping.yaml",
                )
            more = {"json_path": reference.json_path, "template": reference.template}
            found.append((table_found, reference.column, {"transform": reference.transform, **more}))
        for live, column, more in found:
            shape = shape_of(connection, live, column)
            yield live, ReferenceSource.of(live, column, naming=self.naming, shape=shape, **more)

    def _columns_around(self, connection: sa.Connection) -> Iterator[tuple[Table, ReferenceSource]]:
        """The columns that name files of the stores around this one, and may name some of this one."""
        for store in self.around:
            for table, source in replace(self, store=store)._columns(connection):
                yield table, replace(source, naming=self.naming, guarded=False)

    def _in_trash(
        self,
        connection: sa.Connection,
        columns: Iterable[tuple[Table, ReferenceSource]],
        which: sa.ColumnElement[bool] | None,
    ) -> Iterator[ReferenceSource]:
        """The same columns of rows in the trash, which an undo brings back; `which` is a condition on their batches."""
        mirrors = find_mirrors(connection)
        for table, source in columns:
            for mirror in mirrors:
                same = (mirror.source_schema, mirror.source_table) == (table.schema, table.name)
                if not same or source.column not in {name for name, _ in mirror.columns}:
                    continue
                rows = mirror.selectable
                selected = sa.select(rows.c[source.column])
                if which is not None:
                    selected = selected.join(trash_batches, trash_batches.c.id == rows.c[BATCH_COLUMN]).where(which)
                yield source.elsewhere(selected.subquery(), f"{source.label} in the trash")

    def in_use(self, connection: sa.Connection, names: Sequence[str], *, except_tasks: Collection[str] = ()) -> InUse:
        """What a row refers to now, of the names, or what was kept when its row was deleted.

        Raises:
            ConfigurationError: the references cannot be found.
        """
        if not names:
            return InUse()
        # A mirror of the trash must not be dropped meanwhile.
        connection.execute(lock_for_transaction(MIRRORS_LOCK, shared=True))
        return in_use(connection, self.sources(connection, except_tasks=except_tasks), names)

    def meant(self, values: Collection[str], stored: Callable[[Collection[str]], set[str]]) -> dict[str, set[str]]:
        """The names in the store that each value of a row means."""
        return meant(self.naming, values, stored)

    def may_mean(self, value: str) -> set[str]:
        """All names in the store that a value may mean, whether the store has them or not."""
        names = {name for reading in self.naming.read(value) for name in reading.names()}
        return {form for name in names for form in spellings(name)}

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
