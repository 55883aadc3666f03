"""The files of the sample: what its rows name, some that nothing names, and some that are missing.

They are written only into the folders that stand in where nothing is configured, and only those are emptied.
"""

from __future__ import annotations

import os
import random
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.application.tables import (
    detections,
    parsed_files,
    processed_documents,
    security_events,
)
from housekeeping_pipelines.orphans.slugs import slug

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from housekeeping_pipelines.settings import Settings

# Of the names that rows have, so many have no file; and for so many that have one there is one more without a row.
_MISSING, _ORPHANS = 0.02, 0.12
_OTHER_KINDS = ("notes.txt", "calibration.csv")


def create_sample_files(engine: sa.Engine, settings: Settings, *, seed: int, now: datetime) -> dict[str, int]:
    """Empty the stand-in folders and fill them in accordance with the rows; the same seed gives the same names.

    Returns:
        store -> files; nothing for a store that is configured.
    """
    home, rng = settings.housekeeping_home, random.Random(f"{seed} files")  # noqa: S311
    configured = {
        "uploads": settings.direct_uploads_path,
        "media": settings.media_path,
        "bucket": settings.supabase_url,
    }
    made: dict[str, int] = {}
    with engine.connect() as connection:
        for store, elsewhere in configured.items():
            if elsewhere is not None:
                continue
            folder = home / store
            shutil.rmtree(folder, ignore_errors=True)
            named = sorted(_named(connection, store))
            made[store] = _fill(folder, store, named, rng, now)
    return made


def _named(connection: sa.Connection, store: str) -> Iterator[tuple[str, datetime]]:
    """The names that rows have in a store, and when each was written."""
    if store == "uploads":
        columns = [(slug(parsed_files.c.filename), parsed_files.c.created_at)]
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
        yield from (tuple(row) for row in connection.execute(sa.select(name, moment).where(name != "")))


def _fill(folder: Path, store: str, named: list[tuple[str, datetime]], rng: random.Random, now: datetime) -> int:
    """Returns how many files were written."""
    folder.mkdir(parents=True)
    files = {name: moment for name, moment in named if rng.random() >= _MISSING}
    for name in [name for name, _ in named if rng.random() < _ORPHANS]:
        parent, slash, leaf = name.rpartition("/")
        stem, dot, kind = leaf.rpartition(".")
        # In the bucket, a session that exists keeps what is in its folder.
        parent = f"{rng.getrandbits(160):040x}" if store == "bucket" else parent
        # One in ten is of the last hour and too young to go.
        age = timedelta(hours=rng.random()) if rng.random() < 0.1 else timedelta(days=rng.uniform(2, 90))
        files[f"{parent}{slash}{stem}-{rng.getrandbits(24):06x}{dot}{kind}"] = now - age
    if store == "media":
        files |= dict.fromkeys(_OTHER_KINDS, now - timedelta(days=30))
    for name, moment in files.items():
        _write(folder / name, rng, moment)
    return len(files)


def _write(path: Path, rng: random.Random, moment: datetime) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rng.randbytes(rng.randint(200, 6000)))
    os.utime(path, (moment.timestamp(), moment.timestamp()))
