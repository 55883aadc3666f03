"""A platform whose stores are real folders and a bucket of the loopback server, and runs over them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.application import tables
from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.deletion.rows import delete_rows
from housekeeping_pipelines.execution.runner import TaskRunner
from housekeeping_pipelines.maintenance import outbox, trash
from housekeeping_pipelines.orphans.cleanup import clean_store
from housekeeping_pipelines.orphans.search import Search
from housekeeping_pipelines.retention import policies
from housekeeping_pipelines.sessions.cleanup import cleanup_files
from housekeeping_pipelines.sessions.policies import Expiry
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.stores.stores import Stores
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import Watcher, sql

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import sqlalchemy as sa

    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.execution.progress import Observer
    from housekeeping_pipelines.execution.report import Report
    from housekeeping_pipelines.postgres.catalog import Catalog

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@dataclass
class World:
    """Time stands still at `now`, which is `NOW` for folders; a bucket's server writes the real time."""

    engine: sa.Engine
    home: Path
    environ: dict[str, str] = field(default_factory=dict)
    now: datetime = NOW
    observer: Observer = field(default_factory=Watcher)

    def __post_init__(self) -> None:
        tables.metadata.create_all(self.engine)

    @property
    def stores(self) -> Stores:
        url = self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        # `put` sets the times of files.
        given = {"HOUSEKEEPING_HOME": str(self.home), "DATABASE_URL": url, "TRUST_MTIME": "true", **self.environ}
        return Stores(load_settings(self.home, given))

    @property
    def runner(self) -> TaskRunner:
        return TaskRunner(self.engine, clock=lambda: self.now, observer=self.observer)

    def put(self, store: str, name: str, *, age: timedelta = 30 * DAY, content: str = "content") -> Path:
        """A file of this age."""
        path = self.home / store / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        moment = (self.now - age).timestamp()
        os.utime(path, (moment, moment))
        return path

    def files(self, store: str) -> list[str]:
        """What is in a folder, but for its trash."""
        root = self.home / store
        found = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        return sorted(name for name in found if not name.startswith(".housekeeping-trash/"))

    def clean(
        self,
        store: str,
        *,
        run_id: str = "run-1",
        dry_run: bool = False,
        older_than: timedelta = DAY,
        pattern: Any = None,
        base_path: str | None = None,
        stores: Stores | None = None,
        **limits: Any,
    ) -> Any:
        stores = stores or self.stores
        search = Search(store, older_than, pattern=pattern, base_path=base_path)
        return self.runner.run(
            "orphans",
            run_id,
            lambda run: clean_store(run, stores=stores, search=search, limits=Limits(**limits)),
            dry_run=dry_run,
        )

    def delete_by_rule(self, run_id: str = "run-1") -> Any:
        """Delete rows by the first retention rule of `housekeeping.yaml`, with no guard of the share."""
        config = self.stores.config
        rule = config.retention[0]

        def policy(catalog: Catalog, now: datetime) -> RowPolicy:
            return policies.declared_rule(Platform(catalog, config), now, rule=rule)

        limits = Limits(allow_large_deletion=True)
        return self.runner.run(rule.task, run_id, lambda run: delete_rows(run, policy, limits))

    def purge(self) -> Any:
        """Remove everything in the trash permanently."""
        stores, later = self.stores, replace(self.runner, clock=lambda: self.now + 365 * DAY)
        return later.run(
            "purge_trash",
            "purge",
            lambda run: trash.purge_trash(run, store_of=stores.__getitem__, retention_days=0, run_id=None),
        )

    def end_sessions(
        self,
        *,
        run_id: str = "run-1",
        dry_run: bool = False,
        quota: int | None = None,
        batch_size: int = 5000,
        max_seconds: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        **expiry: Any,
    ) -> Any:
        stores = self.stores
        return replace(self.runner, monotonic=monotonic).run(
            "cleanup_files",
            run_id,
            lambda run: cleanup_files(
                run,
                config=stores.config,
                store_of=stores.__getitem__,
                uses=stores.uses("bucket"),
                expiry=Expiry(**expiry),
                limits=Limits(max_fraction=1.0, batch_size=batch_size, max_seconds=max_seconds),
                max_storage_bytes=quota,
            ),
            dry_run=dry_run,
        )

    def undo(self, run_id: str = "run-1") -> Any:
        stores = self.stores
        return self.runner.run("undo", "undo", lambda run: trash.undo(run, run_id, stores))

    def drain(self) -> Report:
        stores = self.stores
        return self.runner.run("drain_file_outbox", "drain", lambda run: outbox.drain_outbox(run, stores.__getitem__))

    def session(self, key: str, *documents: str, idle: timedelta = 2 * HOUR, status: str = "completed") -> None:
        """A session with a document for each path, which may be given as `column=path`."""
        then = (self.now - idle).isoformat()
        sql(
            self.engine,
            "INSERT INTO upload_sessions (session_key, created_at, last_activity)"
            f" VALUES ('{key}', '{then}', '{then}')",
        )
        for document in documents:
            column, _, path = document.rpartition("=")
            sql(
                self.engine,
                "INSERT INTO processed_documents (session_key, filename, file_type, file_size, processing_status,"
                f" created_at, {column or 'source_file_path'})"
                f" VALUES ('{key}', 'a file', 'pdf', 7, '{status}', '{then}', '{path}')",
            )
