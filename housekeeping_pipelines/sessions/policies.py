"""Which upload sessions have expired.

A session's last activity is the later of `last_activity` and the creation of its newest document, because few
applications keep `last_activity` up to date. A session with a document in `processing` is in use, at any age.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from housekeeping_pipelines.deletion.policy import FileColumn, RowPolicy
from housekeeping_pipelines.stores.folders import BUCKET
from housekeeping_pipelines.stores.uses import OUTPUT_COLUMNS, SOURCE_COLUMN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from housekeeping_pipelines.application.platform import Platform

PROCESSING = "processing"


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """The conditions under which a session expires.

    Attributes:
        hours: hours without activity after which a session expires.
        session: only this session, at any age; never while it is in use.
        include_outputs: whether the outputs derived from the uploads are deleted with them.
        with_files: False keeps sessions that have files.
    """

    hours: int = 1
    session: str | None = None
    include_outputs: bool = True
    with_files: bool = True


def expired_sessions(
    platform: Platform,
    now: datetime,
    expiry: Expiry,
    may_mean: Callable[[str], Collection[str]] = lambda value: (value,),
) -> RowPolicy:
    """Sessions without activity for `expiry.hours`, with their documents and the documents' files.

    Args:
        may_mean: the objects that a value of a document may mean.
    """
    sessions, documents = platform.table("upload_sessions"), _Documents(platform)
    last_activity = sessions["last_activity"]
    eligible = [~documents.exist(documents["processing_status"] == PROCESSING)]
    reason = f"not used for more than {expiry.hours} h"
    if expiry.session is not None:
        # Naming a session replaces the age floor, never the check that it is in use.
        eligible.append(sa.cast(sessions["session_key"], sa.Text) == expiry.session)
        old: sa.ColumnElement[bool] = sa.true()
        reason = "named by the user"
    else:
        cutoff = now - timedelta(hours=expiry.hours)
        old = last_activity < cutoff
        if "created_at" in documents:
            old = sa.and_(old, ~documents.exist((documents["created_at"] < cutoff).is_not(True)))
    paths = [name for name in (SOURCE_COLUMN, *OUTPUT_COLUMNS) if name in documents]
    if not expiry.with_files:
        eligible.append(~documents.exist(sa.or_(*(documents[name] != "" for name in paths))))
    users = platform.find("users")
    return RowPolicy(
        table=sessions.live,
        age_from=last_activity,
        old=old,
        eligible=sa.and_(*eligible),
        reason=reason,
        undeclared=platform.undeclared_keys(),
        also_deleted=platform.also_deleted(),
        without_undo=platform.without_undo(),
        users=users.live if users else None,
        files=tuple(
            FileColumn(
                documents.mapped.live,
                str(documents.mapped.names[name]),
                BUCKET,
                kept=name in OUTPUT_COLUMNS and not expiry.include_outputs,
                may_mean=may_mean,
            )
            for name in paths
        ),
    )


class _Documents:
    """The documents of a session, under an alias that does not clash with the engine's use of the table."""

    def __init__(self, platform: Platform) -> None:
        self.mapped = platform.table("processed_documents")
        self._sessions = platform.table("upload_sessions")
        self._alias = self.mapped.live.selectable.alias()

    def __contains__(self, column: str) -> bool:
        return self.mapped.names[column] is not None

    def __getitem__(self, column: str) -> sa.ColumnElement[Any]:
        return self._alias.c[str(self.mapped[column].key)]

    def exist(self, which: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        """Whether a session has a document that satisfies the condition."""
        own = self["session_key"] == self._sessions["session_key"]
        found = sa.select(sa.literal(1)).select_from(self._alias).where(own, which)
        return found.correlate(self._sessions.live.selectable).exists()
