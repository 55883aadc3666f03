"""A test session on the configured storage, which shows that the clean-up works without touching other sessions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError, Refused
from housekeeping_pipelines.stores.folders import BUCKET
from housekeeping_pipelines.stores.stores import Stores

if TYPE_CHECKING:
    from datetime import datetime

    from housekeeping_pipelines.application.platform import MappedTable
    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.settings import Settings

SESSION = "test_cleanup_session_123"
AGE = timedelta(days=2)

# The name of a test document.
_DOCUMENT = "housekeeping test document {}.txt"
_DOCUMENTS = 3


@dataclass(frozen=True)
class SelfTest:
    """The test session on one platform and its bucket."""

    connection: sa.Connection
    sessions: MappedTable
    documents: MappedTable
    store: Store

    @classmethod
    def on(cls, connection: sa.Connection, settings: Settings) -> SelfTest:
        """
        Raises:
            ConfigurationError: the platform has no tables of sessions, or the bucket's settings are wrong.
        """
        platform = Platform.on(connection, settings)
        tables = platform.table("upload_sessions"), platform.table("processed_documents")
        return cls(connection, *tables, Stores(settings)[BUCKET])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the test objects."""
        return tuple(f"{SESSION}/document {number}.txt" for number in range(1, _DOCUMENTS + 1))

    def create(self, now: datetime) -> None:
        """Create the session, unused for two days, with completed documents; an existing test session is replaced.

        Raises:
            Refused: a session with this key exists that the test did not create.
        """
        self.check_is_ours()
        self._delete_rows()
        for name in self.names:
            self.store.storage.upload(name, b"a document to try the clean-up with\n")
        then = now - AGE
        session = {"session_key": SESSION, "created_at": then, "is_active": True, "last_activity": then}
        self._insert(self.sessions, session)
        for number, name in enumerate(self.names, start=1):
            self._insert(
                self.documents,
                {
                    "session_key": SESSION,
                    "filename": _DOCUMENT.format(number),
                    "file_type": "txt",
                    "file_size": 36,
                    "processing_status": "completed",
                    "retry_count": 0,
                    "source_file_path": name,
                    "created_at": then,
                },
            )

    def check_is_ours(self) -> None:
        """
        Raises:
            Refused: a session with this key exists, and it or one of its documents was not created by the test.
        """
        paths = sa.select(self.documents["source_file_path"]).where(self.documents["session_key"] == SESSION)
        found = list(self.connection.scalars(paths))
        if any(path not in self.names for path in found):
            problem = f"session {SESSION} has documents that the test did not create"
        elif not found and self._rows(self.sessions):
            # The session and its documents are inserted in one transaction, and deleted in one.
            problem = f"session {SESSION} exists, and the test did not create it: it has no documents"
        else:
            return
        raise Refused(problem, hint="rename or delete this session: the test changes only the session that it created")

    def check_is_there(self) -> None:
        """
        Raises:
            Refused: the session was not created by the test.
            ConfigurationError: the session does not exist.
        """
        self.check_is_ours()
        if not self._rows(self.sessions):
            raise ConfigurationError(
                f"there is no session {SESSION}", hint="create it: housekeeping test-cleanup --create-test-data"
            )

    def findings(self) -> list[tuple[str, bool]]:
        """What a clean-up should have achieved, and whether it did."""
        files, where = f"its files are gone from {self.store.storage.label}", self.store.storage
        try:
            left = {each.name for each in where.list(f"{SESSION}/")} & set(self.names)
        except HousekeepingError as error:
            files, left = f"{files}: unknown, {error.one_line}", set(self.names)
        return [
            ("the session's row is gone", not self._rows(self.sessions)),
            ("its documents' rows are gone", not self._rows(self.documents)),
            (files, not left),
        ]

    def _rows(self, table: MappedTable) -> int:
        mine = sa.select(sa.func.count()).select_from(table.live.selectable).where(table["session_key"] == SESSION)
        return self.connection.scalar(mine) or 0

    def _delete_rows(self) -> None:
        for table in (self.documents, self.sessions):
            self.connection.execute(sa.delete(table.live.selectable).where(table["session_key"] == SESSION))

    def _insert(self, table: MappedTable, values: dict[str, object]) -> None:
        given = {theirs: value for name, value in values.items() if (theirs := table.names[name]) is not None}
        self.connection.execute(sa.insert(table.live.selectable).values(given))
