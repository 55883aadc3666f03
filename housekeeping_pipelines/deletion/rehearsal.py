"""Rehearsals: whether an undo would bring back what a plan deletes, found out before anything goes.

Before the first run of a plan, and whenever the catalog has changed since, a few roots are deleted and restored, each
in a transaction that is rolled back: for each table of the plan, one that has a row in it. Triggers that rewrite or
refuse rows and keys that hold no more show themselves only then.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from housekeeping_pipelines.deletion.batch import Batch, Recheck
from housekeeping_pipelines.deletion.batch_errors import RowError
from housekeeping_pipelines.deletion.undo import UndoResult, restore_batch
from housekeeping_pipelines.errors import Refused
from housekeeping_pipelines.postgres import errors as database_errors
from housekeeping_pipelines.postgres.fingerprint import surroundings
from housekeeping_pipelines.postgres.keys import text_of
from housekeeping_pipelines.postgres.schema import TIMESTAMPTZ, metadata

if TYPE_CHECKING:
    from collections.abc import Iterable

    from housekeeping_pipelines.deletion.batch import BatchContext
    from housekeeping_pipelines.postgres.catalog import Catalog, ForeignKey, Table
    from housekeeping_pipelines.postgres.keys import Key

logger = logging.getLogger(__name__)

# Of so many candidates, one is looked for that has a row in a table.
EXAMPLES_OF = 1000
# Without an index, looking for one takes a scan of the table.
SEARCH_TIMEOUT_MS = 5_000

rehearsals = sa.Table(
    "rehearsals",
    metadata,
    sa.Column("task", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("rehearsed_at", TIMESTAMPTZ, nullable=False),
)


@dataclass(frozen=True)
class Rehearsal:
    """The rehearsal of one plan.

    Attributes:
        listed: the candidates, with the columns of the root's key from the second on.
        without_undo: tables whose rows need not come back.
    """

    context: BatchContext
    catalog: Catalog
    listed: sa.FromClause
    without_undo: Iterable[Table] = ()

    def ensure(self) -> None:
        """Rehearse the plan unless it was since the catalog last changed; commits.

        Raises:
            Refused: an undo would not bring a row back as it was, or more rows would go than the plan names.
        """
        connection, run = self.context.connection, self.context.run
        fingerprint = surroundings(connection, self.context.plan.members)
        last = connection.scalar(sa.select(rehearsals.c.fingerprint).where(rehearsals.c.task == run.task))
        keys = [] if last == fingerprint else self._examples()
        connection.rollback()
        told = [self._shows(key) for key in keys]
        if any(told):
            values = {"fingerprint": fingerprint, "rehearsed_at": run.clock()}
            insert = pg.insert(rehearsals).values(task=run.task, **values)
            connection.execute(insert.on_conflict_do_update(index_elements=["task"], set_=values))
            connection.commit()

    def _shows(self, key: Key) -> bool:
        """Delete and restore one root; returns whether it told anything: it may be held, in use or locked by now.

        Raises:
            Refused: see `ensure`.
        """
        context = self.context
        connection, restored = context.connection, UndoResult(context.run.run_id)
        with connection.begin() as transaction:
            try:
                with connection.begin_nested():
                    number = Batch(context, Recheck.BEFORE).execute([key]).number
                if number is None:
                    return False
                since = connection.scalar(sa.text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))
                mirrors = {mirror.id: mirror for mirror in context.mirrors.values()}
                restore_batch(connection, self.catalog, mirrors, number, restored, made_since=since)
            except RowError as error:
                logger.debug("%s: no rehearsal with %s: %s", context.run.task, key, error.reason)
                return False
            except sa.exc.DBAPIError as error:
                if not database_errors.is_about_a_row(error):
                    raise
                logger.debug("%s: no rehearsal with %s: %s", context.run.task, key, database_errors.describe(error))
                return False
            finally:
                transaction.rollback()
        self._check(restored)
        return True

    def _check(self, restored: UndoResult) -> None:
        allowed = {table.label for table in self.without_undo}
        for conflict in restored.conflicts:
            label = conflict.item.partition("/")[0]
            if label not in allowed:
                raise Refused(
                    f"an undo would not bring back {conflict.item}: {conflict.reason}",
                    hint=f"change what keeps it from coming back, or list {label} under without_undo: in"
                    " housekeeping.yaml if its rows need not come back",
                )

    def _examples(self) -> list[Key]:
        """A candidate for each table of the plan, with a row in it, if there is one."""
        found: dict[Key, None] = {}
        for path in self.context.plan.paths.values():
            try:
                with self.context.connection.begin_nested():
                    if (key := self._example(path)) is not None:
                        found[key] = None
            except sa.exc.OperationalError as error:
                if not database_errors.is_transient(error):
                    raise
        return list(found)

    def _example(self, path: tuple[ForeignKey, ...]) -> Key | None:
        """A candidate with a row at the end of a path of keys."""
        connection, root = self.context.connection, self.context.plan.root
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {SEARCH_TIMEOUT_MS}")
        own = list(self.listed.c)[1:]
        some = sa.select(*own).select_from(self.listed).limit(EXAMPLES_OF).subquery()
        rows: sa.FromClause = root.selectable
        conditions = [rows.c[name] == column for name, column in zip(root.key, some.c, strict=True)]
        parent = rows
        for key in path:
            child = self.catalog.table(key.child).selectable.alias()
            conditions += key.same(child, parent)
            rows, parent = rows.join(child, sa.true()), child
        statement = sa.select(*text_of(root, root.key)).select_from(rows.join(some, sa.true()))
        row = connection.execute(statement.where(*conditions).limit(1)).one_or_none()
        return None if row is None else tuple(row)
