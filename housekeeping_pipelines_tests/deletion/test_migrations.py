"""A migration of the application that commits while a run is going on: what it brought stays as it is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines_tests.deletion.support import (
    OLD,
    Watcher,
    came_back,
    contents,
    delete,
    scalar,
    sql,
    task_runner,
    undo,
)

if TYPE_CHECKING:
    import sqlalchemy as sa

    from housekeeping_pipelines.execution.report import Report

MIGRATIONS = {
    "a new column": (
        "ALTER TABLE children ADD COLUMN translated text",
        "UPDATE children SET translated = 'translation ' || id",
    ),
    "a new child that cascades": (
        "CREATE TABLE votes (child int REFERENCES children ON DELETE CASCADE, vote int)",
        "INSERT INTO votes SELECT id, 1 FROM children",
    ),
    "a new key that sets null": (
        "DELETE FROM bookmarks WHERE child NOT IN (SELECT id FROM children)",
        "ALTER TABLE bookmarks ADD FOREIGN KEY (child) REFERENCES children ON DELETE SET NULL",
    ),
    "a key that cascades now": (
        "ALTER TABLE stars DROP CONSTRAINT star",
        "ALTER TABLE stars ADD CONSTRAINT star FOREIGN KEY (parent) REFERENCES parents ON DELETE CASCADE",
    ),
    "a trigger": (
        """
        CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN UPDATE bookmarks SET child = NULL WHERE child = OLD.id; RETURN OLD; END $$
        """,
        "CREATE TRIGGER forget AFTER DELETE ON children FOR EACH ROW EXECUTE FUNCTION forget()",
    ),
    "a rule": ("CREATE RULE forget AS ON DELETE TO children DO ALSO DELETE FROM bookmarks WHERE child = OLD.id",),
    "another type": ("ALTER TABLE children ALTER COLUMN note TYPE jsonb USING to_jsonb(note)",),
    "another name": ("ALTER TABLE children RENAME COLUMN note TO remark",),
    "no such column": ("ALTER TABLE children DROP COLUMN note",),
    "a table that inherits": ("CREATE TABLE grandchildren (extra text) INHERITS (children)",),
    "row security": ("ALTER TABLE children ENABLE ROW LEVEL SECURITY",),
}


def platform(engine: sa.Engine) -> None:
    """20 parents with 40 children; bookmarks name children without a key, stars refer to parents by one."""
    sql(
        engine,
        "CREATE TABLE parents (id int PRIMARY KEY, at timestamptz)",
        "CREATE TABLE children (id int PRIMARY KEY, note text, parent int REFERENCES parents ON DELETE CASCADE)",
        "CREATE TABLE bookmarks (id int PRIMARY KEY, child int)",
        "CREATE TABLE stars (id int PRIMARY KEY, parent int CONSTRAINT star REFERENCES parents ON DELETE SET NULL)",
        "CREATE INDEX ON children (parent); CREATE INDEX ON stars (parent)",
        f"INSERT INTO parents SELECT n, '{OLD}'::timestamptz + n * interval '1 s' FROM generate_series(1, 20) n",
        "INSERT INTO children SELECT n, 'note', 1 + n % 20 FROM generate_series(1, 40) n",
        "INSERT INTO bookmarks SELECT n, n FROM generate_series(1, 40) n",
        "INSERT INTO stars SELECT n, n FROM generate_series(1, 20) n",
    )


def permanent(engine: sa.Engine) -> dict[str, list[str]]:
    """The contents without the lists of a run that is going on."""
    return {name: texts for name, texts in contents(engine).items() if not name.startswith("pg_temp")}


def migrated_run(engine: sa.Engine, *statements: str) -> tuple[Report, dict[str, list[str]]]:
    """A run in batches of five, with a migration after the second; and what the migration left."""
    left: dict[str, list[str]] = {}

    def migrate(batch: int) -> None:
        if batch == 2:
            sql(engine, *statements)
            left.update(permanent(engine))

    report = delete(engine, "parents", batch_size=5, runner=task_runner(engine, observer=Watcher(migrate)))
    return report, left


@pytest.mark.parametrize("kind", MIGRATIONS)
def test_a_migration_between_two_batches_stops_the_run(engine: sa.Engine, kind: str) -> None:
    platform(engine)
    before = contents(engine)
    report, left = migrated_run(engine, *MIGRATIONS[kind])
    assert report.status == "failed"
    assert "parents or a table below it was changed while the run was going on" in (report.message or "")
    assert report.deleted == {"parents": 10, "children": 20}
    assert permanent(engine) == left
    assert undo(engine).restored["parents"] == 10
    assert scalar(engine, "SELECT count(*) FROM parents") == 20
    assert contents(engine)["public.stars"] == before["public.stars"]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX ON children (note)",
        "ANALYZE parents, children",
        "CREATE TABLE elsewhere (id int PRIMARY KEY)",
        "GRANT SELECT ON parents TO PUBLIC",
        "COMMENT ON TABLE parents IS 'of children'",
    ],
)
def test_what_changes_no_table_stops_no_run(engine: sa.Engine, statement: str) -> None:
    platform(engine)
    before = contents(engine)
    report, _ = migrated_run(engine, statement)
    assert (report.status, report.deleted) == ("succeeded", {"parents": 20, "children": 40})
    came_back(undo(engine))
    after = contents(engine)
    assert {name: after[name] for name in before} == before


def test_a_migration_that_is_not_committed_yet_is_not_overtaken(engine: sa.Engine) -> None:
    """It holds its locks: the batch gives way, and sees what it did afterwards."""
    platform(engine)
    begun, ended = threading.Event(), threading.Event()

    def migrate() -> None:
        with engine.begin() as connection:
            for statement in MIGRATIONS["a new child that cascades"]:
                connection.exec_driver_sql(statement)
            begun.set()
            ended.wait(1.2)

    thread = threading.Thread(target=migrate)

    def start(batch: int) -> None:
        if batch == 2:
            thread.start()
            assert begun.wait(10)

    report = delete(engine, "parents", batch_size=5, runner=task_runner(engine, observer=Watcher(start)))
    thread.join()
    assert report.status == "failed"
    assert report.deleted == {"parents": 10, "children": 20}
    assert scalar(engine, "SELECT count(*) FROM votes") == 20


def test_the_next_run_plans_anew(engine: sa.Engine) -> None:
    platform(engine)
    migrated_run(engine, *MIGRATIONS["a new child that cascades"])
    before = contents(engine)
    report = delete(engine, "parents", run_id="run-2")
    assert report.deleted == {"parents": 10, "children": 20, "votes": 20}
    assert came_back(undo(engine, "run-2")) == report.deleted
    assert contents(engine) == before
