"""Vectors whose document is gone go, within guards and budgets; what is in use, in the trash, held or young stays."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.application import tables
from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.deletion.holds import add_hold
from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.deletion.pause import pause
from housekeeping_pipelines.deletion.policy import RowPolicy
from housekeeping_pipelines.deletion.rows import delete_rows
from housekeeping_pipelines.errors import Unavailable
from housekeeping_pipelines.execution.runner import TaskRunner
from housekeeping_pipelines.orphans.definitions import CleanupOrphanVectors
from housekeeping_pipelines.orphans.vectors import clean_vectors
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.resources.vector_store import Chunk
from housekeeping_pipelines.resources.vectors import Vectors
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines_tests.deletion.support import Watcher, sql, undo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from housekeeping_pipelines.execution.progress import Observer
    from housekeeping_pipelines.resources.embedder import Embedder
    from housekeeping_pipelines.resources.vector_store import VectorStore

HOUR = timedelta(hours=1)


@dataclass
class World:
    """A platform with documents, and one of the stores of their vectors; the store's clock is the real one."""

    engine: sa.Engine
    home: Path
    kind: str
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    observer: Observer = field(default_factory=Watcher)
    wrap: Callable[[VectorStore], VectorStore] = lambda store: store
    config: HousekeepingConfig = field(default_factory=HousekeepingConfig)
    paused_by_setting: bool = False

    def __post_init__(self) -> None:
        tables.metadata.create_all(self.engine)
        sql(self.engine, "INSERT INTO workspaces (slug, name) VALUES ('one', 'One')")
        environ = {"HOUSEKEEPING_HOME": str(self.home)}
        if self.kind == "lancedb":
            environ["VECTOR_STORE_URL"] = "lancedb://vectors"
        self.real = Vectors(load_settings(self.home, environ))

    @property
    def embedder(self) -> Embedder:
        return self.real.embedder

    def open(self, database: Callable[[], sa.Engine]) -> VectorStore:
        """As `Vectors` does, of the store that a test may break."""
        return self.wrap(self.real.open(database))

    def store(self) -> VectorStore:
        return self.real.open(lambda: self.engine)

    def rows(self, *ids: str, watched: bool = True) -> None:
        with self.engine.begin() as connection:
            for doc_id in ids:
                connection.execute(
                    sa.insert(tables.documents).values(
                        doc_id=doc_id, filename="f", docpath="p", workspace_id=1, watched=watched
                    )
                )

    def put(self, *ids: str, hours: float = 48, generations: Sequence[str] = ("one",), switched: bool = True) -> None:
        """Vectors of this age, two chunks a generation; searches find the first."""
        store = self.store()
        for doc_id in ids:
            for generation in generations:
                vectors = self.embedder.embed(["a", "b"])
                store.write(doc_id, generation, [Chunk(at, "text", "00", each) for at, each in enumerate(vectors)])
            if switched:
                store.switch(doc_id, generations[0])
        store.close()
        moment = self.now - timedelta(hours=hours)
        for doc_id in ids:
            if self.kind == "lancedb":
                import lancedb

                table = lancedb.connect(str(self.home / "vectors")).open_table("document_vectors")
                table.update(where=f"document = '{doc_id}'", values={"written_at": moment})
            else:
                statement = "UPDATE housekeeping.document_vectors SET written_at = '{}' WHERE document = '{}'"
                sql(self.engine, statement.format(moment.isoformat(), doc_id))

    def left(self) -> dict[str, int]:
        """Chunks by document, and that searches find what is there."""
        store = self.store()
        there = {each.document: each.chunks for each in store.documents()}
        assert {hit.document for hit in store.search(self.embedder.embed(["a"])[0], 500)} <= there.keys()
        store.close()
        return there

    def clean(
        self, *, run_id: str = "run-1", dry_run: bool = False, older_than: timedelta = HOUR, **limits: Any
    ) -> Any:
        runner = TaskRunner(
            self.engine, clock=lambda: self.now, observer=self.observer, paused_by_setting=self.paused_by_setting
        )
        body = partial(
            clean_vectors,
            config=self.config,
            vectors=self,  # type: ignore[arg-type]
            older_than=older_than,
            limits=Limits(**limits),
        )
        return runner.run("cleanup_orphan_vectors", run_id, body, dry_run=dry_run)


@pytest.fixture(params=["pgvector", "lancedb"])
def world(request: pytest.FixtureRequest, engine: sa.Engine, tmp_path: Path) -> World:
    return World(engine, tmp_path, request.param)


def at_plan(act: Callable[[], None]) -> Watcher:
    """An observer that acts between the search and the first deletion."""

    class Acting(Watcher):
        def on_start(self, task: str, what: str, candidates: int, *, dry_run: bool) -> None:
            super().on_start(task, what, candidates, dry_run=dry_run)
            act()

    return Acting()


def test_vectors_without_a_document_go_from_all_generations(world: World) -> None:
    world.rows("used", "it's-used", "not-watched")
    world.rows("unwatched", watched=False)
    world.put("used", "unwatched", "not-watched", generations=("one", "two"))
    world.put("gone", "Used", generations=("one", "two", "three"))
    world.put("half", switched=False)
    world.put("young", hours=0.9)
    before = world.left()
    dry = world.clean(dry_run=True)
    assert (dry.status, dry.deleted, dry.would_delete, dry.candidates) == ("succeeded", {}, {"vectors": 3}, 3)
    assert world.observer.items == ["vectors/Used", "vectors/gone", "vectors/half"]  # type: ignore[attr-defined]
    assert world.left() == before
    report = world.clean()
    assert (report.status, report.deleted, report.would_delete) == ("succeeded", {"vectors": 3}, {})
    assert (report.scanned, report.candidates, report.stopped_reason) == (7, 3, None)
    assert report.skipped == dict.fromkeys(report.skipped, 0) | {"young": 1}
    assert sorted(each.item for each in report.sample) == ["vectors/Used", "vectors/gone", "vectors/half"]
    assert [each.age_seconds for each in report.sample] == [pytest.approx(48 * 3600, abs=1)] * 3
    assert world.left() == {"used": 4, "unwatched": 4, "not-watched": 4, "young": 2}
    store = world.store()
    assert store.current("gone") is None
    assert store.count() == 8
    store.close()
    assert (report.missing_count, report.missing) == (1, ("it's-used",))
    assert json.loads(json.dumps(report.to_dict()))["deleted"] == {"vectors": 3}
    again = world.clean(run_id="run-2")
    assert (again.status, again.deleted, again.candidates) == ("succeeded", {}, 0)


def test_vectors_are_as_old_as_the_newest_of_them(world: World) -> None:
    world.rows("used")
    world.put("young-again", hours=48)
    store = world.store()
    store.write("young-again", "two", [Chunk(0, "text", "00", world.embedder.embed(["a"])[0])])
    store.close()
    report = world.clean()
    assert (report.deleted, report.skipped["young"], world.left()) == ({}, 1, {"young-again": 3})
    world.now += 2 * HOUR
    assert world.clean(run_id="run-2").deleted == {"vectors": 1}


def test_a_store_that_was_never_written_is_no_fault(world: World) -> None:
    report = world.clean()
    assert (report.status, report.scanned, report.deleted) == ("succeeded", 0, {})
    world.rows("new")
    assert world.clean(run_id="run-2").missing == ("new",)


def test_a_failed_or_an_empty_reference_deletes_nothing(world: World) -> None:
    world.put("gone")
    refused = world.clean()
    assert (refused.status, refused.deleted) == ("refused", {})
    assert "documents.doc_id has no values" in refused.message
    assert world.clean(run_id="run-2", dry_run=True).status == "refused"
    world.rows("used")
    sql(world.engine, "ALTER TABLE documents RENAME doc_id TO other")
    skipped = world.clean(run_id="run-3")
    assert (skipped.status, skipped.error_type, skipped.deleted) == ("skipped", "Absent", {})
    assert "documents has no column doc_id" in skipped.message
    sql(world.engine, "ALTER TABLE documents RENAME other TO doc_id", "ALTER TABLE documents RENAME TO papers")
    assert world.clean(run_id="run-4").status == "skipped"
    assert world.left() == {"gone": 2}
    sql(world.engine, "ALTER TABLE papers RENAME TO documents", "DELETE FROM documents")
    assert world.clean(run_id="run-5", allow_empty_reference=True).deleted == {"vectors": 1}


def test_documents_that_were_emptied_after_the_search_are_no_reason(world: World) -> None:
    world.rows("used")
    world.put("gone", "used")
    world.observer = at_plan(lambda: sql(world.engine, "DELETE FROM documents"))
    report = world.clean()
    assert (report.status, report.deleted, world.left()) == ("refused", {}, {"gone": 2, "used": 2})


def test_a_document_that_came_back_after_the_search_keeps_its_vectors(world: World) -> None:
    world.rows("used")
    world.put("a", "b", "c", "d")
    world.observer = at_plan(lambda: world.rows("c"))
    report = world.clean()
    assert (report.deleted, report.skipped["in_use"], world.left()) == ({"vectors": 3}, 1, {"c": 2})


def test_more_than_half_of_a_store_is_refused(world: World) -> None:
    ids = [f"d{number}" for number in range(10)]
    world.rows(*ids[:4])
    world.put(*ids)
    refused = world.clean(guard_minimum=5)
    assert (refused.status, len(world.left())) == ("refused", 10)
    assert "6 of 10 entries" in refused.message
    assert world.clean(run_id="run-2", guard_minimum=5, max_fraction=0.6).deleted == {"vectors": 6}
    sql(world.engine, "DELETE FROM documents WHERE doc_id <> 'd0'")
    assert world.clean(run_id="run-3", guard_minimum=2).status == "refused"
    # Below the minimum, the fraction is not applied.
    assert world.clean(run_id="run-4", guard_minimum=4, max_rows=1).deleted == {"vectors": 1}
    assert world.clean(run_id="run-5", guard_minimum=2, allow_large_deletion=True).deleted == {"vectors": 2}
    assert world.left() == {"d0": 2}


def test_budgets_stop_before_and_take_the_oldest_first(world: World) -> None:
    world.rows("used")
    for number in range(5):
        world.put(f"d{number}", hours=100 - number)
    dry = world.clean(dry_run=True, max_rows=2)
    assert (dry.would_delete, dry.stopped_reason, dry.skipped["budget"]) == ({"vectors": 2}, "max_rows", 3)
    assert [each.item for each in dry.sample] == ["vectors/d0", "vectors/d1"]
    report = world.clean(max_rows=2, batch_size=1)
    assert (report.deleted, report.stopped_reason, report.skipped["budget"]) == ({"vectors": 2}, "max_rows", 3)
    assert world.left().keys() == {"d2", "d3", "d4"}
    late = world.clean(run_id="run-2", max_seconds=1e-9)
    assert (late.status, late.deleted, late.stopped_reason) == ("succeeded", {}, "max_seconds")
    whole = world.clean(run_id="run-3", max_rows=3)
    assert (whole.deleted, whole.stopped_reason, whole.skipped["budget"]) == ({"vectors": 3}, None, 0)


def test_a_pause_refuses_a_run_and_stops_one_on_its_way(world: World) -> None:
    world.rows("used")
    world.put("a", "b", "c")

    def stop(step: int) -> None:
        if step == 1:
            with world.engine.begin() as connection:
                pause(connection, reason="a test", now=world.now)

    world.observer = Watcher(stop)
    report = world.clean(batch_size=1)
    assert (report.status, report.stopped_reason, report.deleted) == ("succeeded", "paused", {"vectors": 1})
    assert report.skipped["budget"] == 2
    assert world.clean(run_id="run-2").status == "refused"
    sql(world.engine, "DELETE FROM housekeeping.pauses")
    world.paused_by_setting = True
    assert "HOUSEKEEPING_PAUSED" in world.clean(run_id="run-3").message
    assert len(world.left()) == 2


def hold(world: World, key: str, until: datetime) -> None:
    with world.engine.begin() as connection:
        table = Catalog(connection).find("documents")
        assert table is not None
        add_hold(
            connection, type="row", table=table, key=(key,), subject=f"row:documents/{key}", until=until,
            reason="case", now=world.now,
        )  # fmt: skip


@pytest.mark.parametrize("late", [False, True], ids=["before", "late"])
def test_a_held_document_keeps_its_vectors_where_its_key_says_which_it_was(world: World, late: bool) -> None:
    sql(
        world.engine,
        "DROP TABLE document_sync_runs, document_sync_queues",
        "ALTER TABLE documents DROP CONSTRAINT documents_pkey, DROP COLUMN id, ADD PRIMARY KEY (doc_id)",
    )
    world.config = HousekeepingConfig.model_validate({"tables": {"documents": {"columns": {"id": "doc_id"}}}})
    sql(world.engine, "INSERT INTO documents (doc_id, filename, docpath, workspace_id) VALUES ('used', 'f', 'p', 1)")
    world.put("held", "free", "ended")
    hold(world, "ended", world.now - HOUR)
    if late:
        world.observer = at_plan(lambda: hold(world, "held", world.now + HOUR))
    else:
        hold(world, "held", world.now + HOUR)
        assert world.clean(dry_run=True).would_delete == {"vectors": 2}
    report = world.clean()
    assert (report.deleted, report.skipped["held"], world.left()) == ({"vectors": 2}, 1, {"held": 2})


def test_a_hold_by_another_key_than_the_document_s_id_holds_no_strange_vectors(world: World) -> None:
    world.rows("used")
    world.put("1")
    hold(world, "1", world.now + HOUR)
    assert world.clean().deleted == {"vectors": 1}


def test_a_document_in_the_trash_finds_its_vectors_when_it_comes_back(world: World) -> None:
    world.rows("used", "trashed")
    world.put("used", "trashed", "late", "gone")

    sql(
        world.engine,
        "CREATE TABLE papers (doc_id text PRIMARY KEY, created_at timestamptz)",
        "INSERT INTO papers VALUES ('gone', now())",
    )

    def trash(run_id: str, doc_id: str, name: str = "documents") -> None:
        def policy(catalog: Catalog, now: datetime) -> RowPolicy:
            table = catalog.find(name)
            assert table is not None
            columns = table.selectable.c
            return RowPolicy(table=table, age_from=columns.created_at, old=columns.doc_id == doc_id, reason="a test")

        runner = TaskRunner(world.engine, clock=lambda: world.now)
        assert runner.run("task", run_id, lambda run: delete_rows(run, policy, Limits())).deleted == {name: 1}

    def come_and_go() -> None:
        world.rows("late")
        trash("run-b", "late")

    trash("run-a", "trashed")
    # Another table's row of this id is nothing to the document.
    trash("run-c", "gone", "papers")
    dry = world.clean(dry_run=True)
    assert (dry.would_delete, dry.skipped["in_use"], dry.skipped["held"]) == ({"vectors": 2}, 1, 0)
    world.observer = at_plan(come_and_go)
    report = world.clean()
    assert (report.deleted, report.skipped["in_use"], report.skipped["held"]) == ({"vectors": 1}, 2, 0)
    assert world.left().keys() == {"used", "trashed", "late"}
    with world.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM documents")) == 1
    world.observer = Watcher()
    assert world.clean(run_id="run-2").skipped["in_use"] == 2
    undo(world.engine, "run-a")
    # What has left the trash as well is gone.
    mirrors = "SELECT mirror FROM housekeeping.trash_tables WHERE source_table = 'documents'"
    with world.engine.begin() as connection:
        for name in connection.scalars(sa.text(mirrors)).all():
            connection.exec_driver_sql(f'DELETE FROM housekeeping."{name}"')
    last = world.clean(run_id="run-3")
    assert (last.deleted, set(world.left())) == ({"vectors": 1}, {"used", "trashed"})


def test_watched_documents_without_vectors_are_listed_and_nothing_else_is_done(world: World) -> None:
    ids = [f"d{number:02}" for number in range(60)]
    world.rows(*ids, "Ä", "a b", "\uff5e", "😀", "B", "A")
    world.rows("not watched", watched=False)
    world.put("d00", "d30", "a b", "😀", "B", "A")
    dry, report = world.clean(dry_run=True), world.clean(run_id="run-2")
    missing = sorted({*ids, "Ä", "\uff5e"} - {"d00", "d30"}, key=str.encode)
    for each in (dry, report):
        assert (each.status, each.deleted, each.missing_count) == ("succeeded", {}, 60)
        assert each.missing == tuple(missing[:50])
    assert world.left().keys() == {"d00", "d30", "a b", "😀", "B", "A"}
    with world.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM documents")) == 67


class Breaking:
    """A store that goes down after some deletions."""

    def __init__(self, store: VectorStore, deletions: int) -> None:
        self._store, self._left = store, deletions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete(self, documents: Sequence[str]) -> int:
        if self._left == 0:
            raise Unavailable("the store went away")
        self._left -= 1
        return self._store.delete(documents)


@pytest.mark.parametrize("deletions", [0, 1])
def test_a_store_that_goes_down_on_the_way_fails_with_what_was_done(world: World, deletions: int) -> None:
    world.rows("used")
    world.put("a", "b", "c")
    world.wrap = lambda store: Breaking(store, deletions)
    report = world.clean(batch_size=1)
    assert (report.status, report.error_type) == ("failed", "Unavailable")
    assert "the store went away" in report.message
    assert report.deleted == ({"vectors": deletions} if deletions else {})
    assert len(world.left()) == 3 - deletions


def test_a_store_that_cannot_be_read_deletes_nothing(engine: sa.Engine, tmp_path: Path) -> None:
    world = World(engine, tmp_path, "pgvector")
    world.rows("used")
    world.put("gone")
    sql(engine, "UPDATE housekeeping.vector_space SET model = 'another'")
    report = world.clean()
    assert (report.status, report.error_type, report.deleted) == ("failed", "ConfigurationError", {})
    assert "EMBEDDING_MODEL" in report.message


def test_ids_that_are_uuids_are_compared_as_text(engine: sa.Engine, tmp_path: Path) -> None:
    world = World(engine, tmp_path, "pgvector")
    sql(engine, "ALTER TABLE documents ALTER doc_id TYPE uuid USING doc_id::uuid")
    used, gone = "6f3c7f0e-6f0b-5c0a-9d5e-2f1a3c4b5d6e", "00000000-0000-4000-8000-000000000000"
    values = (
        f"INSERT INTO documents (doc_id, filename, docpath, workspace_id, watched) VALUES ('{used}', 'f', 'p', 1, true)"
    )
    sql(engine, values)
    world.put(used, gone)
    report = world.clean()
    assert (report.deleted, report.missing_count, world.left()) == ({"vectors": 1}, 0, {used: 2})


def test_a_document_without_an_id_is_nobodys(engine: sa.Engine, tmp_path: Path) -> None:
    world = World(engine, tmp_path, "pgvector")
    sql(engine, "ALTER TABLE documents ALTER doc_id DROP NOT NULL")
    world.rows("used")
    sql(engine, "INSERT INTO documents (filename, docpath, workspace_id, watched) VALUES ('f', 'p', 1, true)")
    world.put("zzz, after all ids")
    report = world.clean()
    assert (report.status, report.deleted, report.missing) == ("succeeded", {"vectors": 1}, ("used",))


def test_the_op_s_defaults_are_the_contract_s() -> None:
    config = CleanupOrphanVectors.model_validate({})
    assert (config.min_age_hours, config.limits()) == (1, Limits(batch_size=500))
    given = {"max_rows": 3, "allow_large_deletion": True}
    assert CleanupOrphanVectors.model_validate(given).limits().max_rows == 3
    with pytest.raises(ValueError):
        CleanupOrphanVectors.model_validate({"min_age_hours": 0})
