"""Folders of files with ages, and searches in them."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.orphans.finding import find_orphans
from housekeeping_pipelines.orphans.listing import Kind
from housekeeping_pipelines.orphans.search import Scan
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.resources.object_storage.local_folder import LocalFolder
from housekeeping_pipelines.stores.references import ReferenceSource, Root, naming
from housekeeping_pipelines_tests.conftest import NOW

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    import sqlalchemy as sa

    from housekeeping_pipelines.orphans.candidates import Orphans
    from housekeeping_pipelines.resources.object_storage import StoredObject

MEDIA = {"jpg", "jpeg", "png", "mp4"}


def make(root: Path, *names: str | bytes, hours: float = 48, size: int = 1) -> None:
    """Files that were last written so many hours ago."""
    moment = (NOW - timedelta(hours=hours)).timestamp()
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))  # noqa: PTH118 - names of any bytes
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(b"x" * size)
        os.utime(path, (moment, moment))


def source(engine: sa.Engine, table: str, column: str, **more: Any) -> ReferenceSource:
    with engine.connect() as connection:
        found = Catalog(connection).find(table)
    assert found is not None
    return ReferenceSource.of(found, column, **more)


def search(
    connection: sa.Connection, root: Path, *sources: ReferenceSource, storage: LocalFolder | None = None, **more: Any
) -> Orphans:
    """A search with an age floor of a day."""
    given: dict[str, Any] = {"floor": NOW - timedelta(hours=24), "limits": Limits(), "kind": Kind()} | more
    folder = storage or LocalFolder(root, trust_mtime=True)

    def stored(names: Collection[str]) -> set[str]:
        return {found.name for found in folder.examine(sorted(names, key=str.encode))}

    return find_orphans(connection, Scan(folder, sources, stored=stored, **given))


def media(engine: sa.Engine, root: Path) -> list[ReferenceSource]:
    return [source(engine, "detections", column, naming=naming(Root(root))) for column in ("file_path", "thumbnail")]


def names(batches: Iterable[list[StoredObject]]) -> list[str]:
    return [file.name for batch in batches for file in batch]
