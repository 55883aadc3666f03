"""Over random schemas and rows, deletion and undo are the identity, or the run is refused before anything goes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines_tests.deletion.random_schemas import RandomSchema
from housekeeping_pipelines_tests.deletion.support import contents, delete, scalar, trash_is_empty, undo

if TYPE_CHECKING:
    import sqlalchemy as sa

SCHEMAS, LONG_SCHEMAS, PARTS = 100, 10_000, 10


def make(engine: sa.Engine, seed: int) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", *RandomSchema(seed).statements):
            connection.exec_driver_sql(statement.replace("%", "%%"))


def everything(engine: sa.Engine) -> dict[str, list[str]]:
    """All rows but those that triggers write of themselves."""
    return {name: rows for name, rows in contents(engine).items() if name != "public.journal"}


def check(engine: sa.Engine, seed: int) -> str:
    """Returns how it ended."""
    make(engine, seed)
    before = everything(engine)
    run_id = f"run-{seed}"
    report = delete(engine, "t0", run_id=run_id, task=f"task-{seed}", max_fraction=1.0)
    after = everything(engine)
    if not report.deleted:
        assert after == before, report
        return report.status
    assert report.status in ("succeeded", "partial"), report
    # What is reported is what went.
    gone = {name.removeprefix("public."): len(rows) - len(after[name]) for name, rows in before.items()}
    assert {name: count for name, count in gone.items() if count} == report.deleted
    result = undo(engine, run_id)
    assert result.conflicts == [], result.conflicts
    assert everything(engine) == before
    assert result.restored == report.deleted
    assert trash_is_empty(engine)
    return report.status


@pytest.mark.parametrize("part", range(PARTS))
def test_deletion_and_undo_are_the_identity_or_refused(engine: sa.Engine, part: int, long: bool) -> None:
    number = (LONG_SCHEMAS if long else SCHEMAS) // PARTS
    ended: Counter[str] = Counter()
    for seed in range(part * number, (part + 1) * number):
        try:
            ended[check(engine, seed)] += 1
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    # Most of them are no refusals, which would show nothing.
    assert ended["succeeded"] + ended["partial"] > number // 3, ended
    assert scalar(engine, "SELECT count(*) FROM housekeeping.rehearsals") > 0
