"""Making tables, running a policy on them, and looking at what is left."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.deletion.policy import RowPolicy
from housekeeping_pipelines.deletion.rows import delete_rows
from housekeeping_pipelines.deletion.undo import UndoResult, undo_run
from housekeeping_pipelines.execution.runner import TaskRunner
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines_tests.conftest import NOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from housekeeping_pipelines.deletion.store import Store
    from housekeeping_pipelines.execution.report import Report

OLD = (NOW - timedelta(days=100)).isoformat()
YOUNG = (NOW - timedelta(hours=1)).isoformat()


def no_store(name: str) -> Store:
    """For a trash that has rows alone."""
    raise AssertionError(f"there is no store {name!r} here")


PolicyMaker = "Callable[[Catalog, datetime], RowPolicy]"


def sql(engine: sa.Engine, *statements: str) -> None:
    """Execute statements as they stand, all in one transaction."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))


def rows(engine: sa.Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query.replace("%", "%%"))]


def column(engine: sa.Engine, query: str) -> list[Any]:
    return [row[0] for row in rows(engine, query)]


def scalar(engine: sa.Engine, query: str) -> Any:
    return rows(engine, query)[0][0]


def quoted(*parts: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def texts(engine: sa.Engine, table: str) -> list[str]:
    """Every row of a table as text, in the order of the text."""
    return column(engine, f'SELECT t::text FROM {table} t ORDER BY t::text COLLATE "C"')


def contents(engine: sa.Engine, *, with_ours: bool = False) -> dict[str, list[str]]:
    """Every table of the database with its rows as text; ours only where it is asked for."""
    names = rows(
        engine,
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
        + ("" if with_ours else " AND n.nspname <> 'housekeeping'"),
    )
    return {f"{schema}.{name}": texts(engine, quoted(schema, name)) for schema, name in names}


def old_rows(name: str, *, age: str = "at", days: int = 30, **more: Any) -> Callable[[Catalog, datetime], RowPolicy]:
    """A policy: rows of the table `name` whose column `age` is older than `days`."""

    def make(catalog: Catalog, now: datetime) -> RowPolicy:
        table = catalog.find(name)
        assert table is not None, f"no table {name}"
        moment = table.selectable.c[age]
        given = {key: value(catalog) if callable(value) and key != "follows" else value for key, value in more.items()}
        return RowPolicy(
            table=table, age_from=moment, old=moment < now - timedelta(days=days), reason="it is old", **given
        )

    return make


def family(engine: sa.Engine, count: int = 10) -> None:
    """Old parents with two children each."""
    sql(
        engine,
        "CREATE TABLE parents (id int PRIMARY KEY, at timestamptz, code text UNIQUE)",
        "CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents, age int CHECK (age < 200))",
        f"INSERT INTO parents SELECT n, '{OLD}', 'code ' || n FROM generate_series(1, {count}) n",
        f"INSERT INTO children SELECT n, 1 + n % {count}, n FROM generate_series(1, {2 * count}) n",
    )


def task_runner(engine: sa.Engine, **options: Any) -> TaskRunner:
    return TaskRunner(engine=engine, **{"clock": lambda: NOW, **options})


def delete(
    engine: sa.Engine,
    policy: str | Callable[[Catalog, datetime], RowPolicy],
    *,
    run_id: str = "run-1",
    task: str = "task",
    dry_run: bool = False,
    runner: TaskRunner | None = None,
    **limits: Any,
) -> Report:
    """Run a policy, or the one of `old_rows` on the table of this name."""
    policy = old_rows(policy) if isinstance(policy, str) else policy
    runner = runner or task_runner(engine)
    return runner.run(task, run_id, lambda run: delete_rows(run, policy, Limits(**limits)), dry_run=dry_run)


def undo(engine: sa.Engine, run_id: str = "run-1") -> UndoResult:
    with engine.connect() as connection:
        return undo_run(connection, run_id)


def came_back(result: UndoResult) -> dict[str, int]:
    """What an undo without any conflict restored."""
    assert result.conflicts == []
    assert result.conflict_count == 0
    return result.restored


def trash_is_empty(engine: sa.Engine) -> bool:
    """Whether neither a mirror nor our own records have anything left."""
    mirrors = column(engine, "SELECT mirror FROM housekeeping.trash_tables")
    tables = [quoted("housekeeping", name) for name in [*mirrors, "trash_batches", "trash_references"]]
    return all(scalar(engine, f"SELECT count(*) FROM {table}") == 0 for table in tables)


def until(condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.01)


@contextmanager
def transaction(engine: sa.Engine, *statements: str) -> Iterator[sa.Connection]:
    """Somebody else's transaction, with these statements done and still open; it is rolled back at the end."""
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))
        yield connection
        connection.rollback()


class Watcher:
    """An observer that keeps what it is told, and may act at a batch's end."""

    def __init__(self, at_advance: Callable[[int], None] | None = None) -> None:
        self.items: list[str] = []
        self.steps: list[tuple[int, int, int]] = []
        self.plans: list[tuple[str, int, bool]] = []
        self._at_advance = at_advance

    def on_start(self, task: str, what: str, candidates: int, *, dry_run: bool) -> None:
        self.plans.append((what, candidates, dry_run))

    def on_progress(self, task: str, done: int, candidates: int, rows: int) -> None:
        self.steps.append((done, candidates, rows))
        if self._at_advance is not None:
            self._at_advance(len(self.steps))

    def on_item(self, item: str) -> None:
        self.items.append(item)
