"""The deep check: no row refers to a conversation, or to a dependent row of one, that does not exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.deletion.plan import make_plan
from housekeeping_pipelines.execution.report import MAX_FAILED, PARTIAL, Ending, FailedItem, Report
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.retention.policies import ORPHAN_FLOOR

if TYPE_CHECKING:
    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.execution.run import Run
    from housekeeping_pipelines.postgres.catalog import ForeignKey


def verify_no_orphans(run: Run, config: HousekeepingConfig) -> Report:
    """Check every key of the plan for conversations, declared or not.

    A message younger than the floor of cleanup_orphaned_messages is not counted: its conversation may not be committed.
    """
    connection = run.connection
    catalog = Catalog(connection)
    platform = Platform(catalog, config)
    plan = make_plan(catalog, platform.table("conversations").live, platform.undeclared_keys())
    messages = platform.table("chat_messages")
    scanned, found = 0, []
    for key in (*plan.followed, *plan.cleared):
        child = catalog.table(key.child)
        orphans = dangling(catalog, key)
        if child.oid == messages.live.oid:
            orphans = orphans.where(messages["created_at"] < run.started_at - ORPHAN_FLOOR)
        scanned += connection.scalar(sa.select(sa.func.count()).select_from(child.selectable)) or 0
        count = connection.scalar(orphans) or 0
        if count:
            parent = plan.members[key.parent].label
            found.append(FailedItem(child.label, f"{count:,} rows refer by {key.name} to no row of {parent}"))
    return run.report(
        PARTIAL if found else Ending("succeeded", "nothing refers to a row that does not exist"),
        scanned=scanned,
        failed=tuple(found[:MAX_FAILED]),
        failed_count=len(found),
        warnings=tuple(plan.warnings()),
    )


def dangling(catalog: Catalog, key: ForeignKey) -> sa.Select[int]:
    """How many rows refer by this key to a row that does not exist."""
    child, parent = catalog.table(key.child).selectable, catalog.table(key.parent).selectable.alias()
    pairs = list(zip(key.columns, key.targets, strict=True))
    there = sa.select(sa.literal(1)).where(*(parent.c[t] == child.c[c] for c, t in pairs)).correlate(child).exists()
    given = (child.c[name].is_not(None) for name in key.columns)
    return sa.select(sa.func.count()).select_from(child).where(*given, ~there)
