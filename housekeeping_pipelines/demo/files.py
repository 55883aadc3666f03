"""The files of the sample: those that its rows name, less a few that are missing, and orphans.

They are written only into the default folders of stores that are not configured. Each begins with a line that
identifies it: a later demo replaces the files with that line, and keeps all others.
"""

from __future__ import annotations

import os
import random
import shutil
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.application.sample import FOLDER_MARKER
from housekeeping_pipelines.application.tables import (
    detections,
    parsed_files,
    processed_documents,
    security_events,
)
from housekeeping_pipelines.atomic_files import make_folder
from housekeeping_pipelines.errors import Refused
from housekeeping_pipelines.resources.object_storage.local_folder import TRASH_FOLDER
from housekeeping_pipelines.stores.slugs import slug

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from housekeeping_pipelines.settings import Settings

# The share of names in rows without a file, and the number of orphans in proportion to those names.
_MISSING, _ORPHANS = 0.02, 0.12
_OTHER_KINDS = ("notes.txt", "calibration.csv")

MARKER = b"made by housekeeping demo\n"


def sample_stores(settings: Settings) -> dict[str, Path]:
    """The default folders of the stores that are not configured: store -> folder.

    Raises:
        Refused: one of them is a link, and so leads to a folder that is not the sample's.
    """
    configured = {
        "uploads": settings.direct_uploads_path,
        "media": settings.media_path,
        "bucket": settings.supabase_url,
    }
    home = settings.housekeeping_home
    folders = {store: home / store for store, elsewhere in configured.items() if elsewhere is None}
    for folder in folders.values():
        if folder.is_symlink():
            raise Refused(
                f"the demo writes no files to {folder}, which is a link to {folder.readlink()}",
                hint="remove the link, or set the store's variable to the folder that it leads to",
            )
    return folders


def create_sample_files(engine: sa.Engine, settings: Settings, *, seed: int, now: datetime) -> dict[str, int]:
    """Replace the sample's files with new ones that match the rows; the same seed gives the same files.

    Returns:
        store -> files; without the stores that are configured.

    Raises:
        Refused: see `sample_stores`.
    """
    rng = random.Random(f"{seed} files")  # noqa: S311
    made: dict[str, int] = {}
    with engine.connect() as connection:
        for store, folder in sample_stores(settings).items():
            _empty(folder)
            made[store] = _fill(folder, store, sorted(_named(connection, store)), rng, now)
    return made


def _empty(folder: Path) -> None:
    """Remove the sample's files, and the trash, which belongs to rows of an earlier sample."""
    shutil.rmtree(folder / TRASH_FOLDER, ignore_errors=True)
    for parent, _, leaves in os.walk(folder, topdown=False):
        for path in (Path(parent, leaf) for leaf in leaves):
            if _is_ours(path):
                path.unlink()
        with suppress(OSError):
            # A folder that is not empty holds files of the user.
            Path(parent).rmdir()


def _is_ours(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(MARKER)) == MARKER
    return False


def _named(connection: sa.Connection, store: str) -> Iterator[tuple[str, datetime]]:
    """The names in rows for a store, and when each was written."""
    if store == "uploads":
        columns = [(parsed_files.c.filename, parsed_files.c.created_at)]
    elif store == "media":
        columns = [
            (detections.c.file_path, detections.c.detected_at),
            (detections.c.thumbnail_path, detections.c.detected_at),
            (security_events.c.clip_path, security_events.c.started_at),
        ]
    else:
        paths = ("source_file_path", "excel_file_path", "pdf_file_path", "doc_file_path")
        columns = [(processed_documents.c[path], processed_documents.c.created_at) for path in paths]
    for name, moment in columns:
        for value, written_at in connection.execute(sa.select(name, moment).where(name != "")):
            yield slug(value) if store == "uploads" else value, written_at


def _fill(folder: Path, store: str, named: list[tuple[str, datetime]], rng: random.Random, now: datetime) -> int:
    """Returns how many files were written."""
    make_folder(folder / FOLDER_MARKER)
    files = {name: moment for name, moment in named if rng.random() >= _MISSING}
    for name in [name for name, _ in named if rng.random() < _ORPHANS]:
        parent, slash, leaf = name.rpartition("/")
        stem, dot, kind = leaf.rpartition(".")
        # In the bucket, an existing session keeps all objects in its folder.
        parent = f"{rng.getrandbits(160):040x}" if store == "bucket" else parent
        # One in ten was written within the last hour and is too young to be removed.
        age = timedelta(hours=rng.random()) if rng.random() < 0.1 else timedelta(days=rng.uniform(2, 90))
        files[f"{parent}{slash}{stem}-{rng.getrandbits(24):06x}{dot}{kind}"] = now - age
    if store == "media":
        files |= dict.fromkeys(_OTHER_KINDS, now - timedelta(days=30))
    for name, moment in files.items():
        _write(folder / name, rng, moment)
    return len(files)


def _write(path: Path, rng: random.Random, moment: datetime) -> None:
    content = MARKER + rng.randbytes(rng.randint(200, 6000))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Never over a file of the user, which `_empty` has kept.
    with suppress(FileExistsError), path.open("xb", buffering=0) as file:
        file.write(content)
        os.utime(file.fileno(), (moment.timestamp(), moment.timestamp()))
