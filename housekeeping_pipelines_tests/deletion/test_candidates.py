"""The list of candidates of a table that is read in slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.deletion.candidates import SLICE_BLOCKS, CandidateList
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import OLD, YOUNG, delete, old_rows, scalar, sql, task_runner

if TYPE_CHECKING:
    from collections.abc import Callable

# Two rows fill a page: three slices and a bit.
ROWS = 2 * 3 * SLICE_BLOCKS + 100


def wide_table(engine: sa.Engine, *partitions: str) -> None:
    """Rows in the order of their numbers, the oldest last; each seventh is young."""
    sql(
        engine,
        "CREATE TABLE items (id int PRIMARY KEY, at timestamptz, body text STORAGE PLAIN)"
        + (" PARTITION BY RANGE (id)" if partitions else ""),
        *partitions,
        f"INSERT INTO items SELECT n, CASE WHEN n % 7 = 0 THEN '{YOUNG}' ELSE '{OLD}'::timestamptz"
        f" - n * interval '1 s' END, repeat('x', 3500) FROM generate_series(1, {ROWS}) n",
    )


@pytest.mark.parametrize(
    "partitions",
    [
        (),
        (
            "CREATE TABLE small PARTITION OF items FOR VALUES FROM (0) TO (1000)",
            "CREATE TABLE big PARTITION OF items DEFAULT",
        ),
    ],
    ids=["one table", "partitions"],
)
def test_every_candidate_is_listed_once_and_the_oldest_first(engine: sa.Engine, partitions: tuple[str, ...]) -> None:
    wide_table(engine, *partitions)
    with engine.connect() as connection:
        listed = CandidateList(connection, old_rows("items")(Catalog(connection), NOW))
        connection.commit()
        listed.make(None)
        listed.open()
        found: list[int] = []
        while keys := listed.next(1000):
            found += [int(key) for (key,) in keys]
    assert found == [n for n in range(ROWS, 0, -1) if n % 7]
    assert (listed.scanned, listed.candidates, listed.held) == (ROWS, len(found), 0)


def test_no_transaction_lasts_for_the_whole_of_a_large_table(engine: sa.Engine) -> None:
    wide_table(engine)
    transactions: list[str] = []
    record: Callable[..., None] = lambda connection: transactions.append("begin")  # noqa: E731
    with engine.connect() as connection:
        listed = CandidateList(connection, old_rows("items")(Catalog(connection), NOW))
        connection.commit()
        sa.event.listen(connection, "begin", record)
        listed.make(None)
    assert len(transactions) >= 3


def test_a_reference_that_is_emptied_on_the_way_ends_the_run(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE parents (id int PRIMARY KEY)",
        "CREATE TABLE items (id int PRIMARY KEY, at timestamptz, parent int)",
        "INSERT INTO parents VALUES (1)",
        f"INSERT INTO items SELECT n, '{OLD}', CASE WHEN n > 10 THEN 1 END FROM generate_series(1, 60) n",
    )
    emptied: list[int] = []

    def empty(catalog: Catalog) -> sa.ColumnElement[bool]:
        items, parents = (catalog.find(name) for name in ("items", "parents"))
        assert items is not None
        assert parents is not None
        there = sa.select(sa.literal(1)).where(parents.selectable.c.id == items.selectable.c.parent)
        return ~there.correlate(items.selectable).exists()

    class Emptier:
        """Empties the reference between the list and the first batch."""

        def on_start(self, task: str, what: str, candidates: int, *, dry_run: bool) -> None:
            emptied.append(candidates)
            sql(engine, "DELETE FROM parents")

        def on_progress(self, task: str, done: int, candidates: int, rows: int) -> None: ...

        def on_item(self, item: str) -> None: ...

    policy = old_rows("items", eligible=empty, references=lambda catalog: (catalog.find("parents"),))
    report = delete(engine, policy, runner=task_runner(engine, observer=Emptier()))
    assert emptied == [10]
    assert (report.status, report.deleted) == ("refused", {})
    assert scalar(engine, "SELECT count(*) FROM items") == 60
