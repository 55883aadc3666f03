"""What an undo could not bring back is known before the first row goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.deletion.purge import purge
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.postgres.engine import make_engine
from housekeeping_pipelines_tests.conftest import NOW
from housekeeping_pipelines_tests.deletion.support import (
    OLD,
    YOUNG,
    came_back,
    column,
    contents,
    delete,
    no_store,
    old_rows,
    scalar,
    sql,
    task_runner,
    trash_is_empty,
    undo,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from housekeeping_pipelines.postgres.catalog import Table

FAMILY = (
    "CREATE TABLE parents (id int PRIMARY KEY, at timestamptz)",
    "CREATE TABLE children (id int PRIMARY KEY, parent int NOT NULL REFERENCES parents ON DELETE CASCADE, word text)",
    "CREATE INDEX ON children (parent)",
    f"INSERT INTO parents SELECT i, '{OLD}' FROM generate_series(1, 20) i",
    f"INSERT INTO parents SELECT i, '{YOUNG}' FROM generate_series(21, 60) i",
    "INSERT INTO children SELECT i, 1 + i % 60, 'word ' || i FROM generate_series(1, 90) i",
)
REFUSE = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no row may be added'; END$$"
)
REWRITE = (
    "CREATE FUNCTION rewrite() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.word := 'rewritten'; RETURN NEW; END$$"
)


@pytest.fixture
def plain(engine: sa.Engine, request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    """The same database by a role that owns the tables and is no superuser."""
    name = f"plain_{engine.url.database}"
    sql(engine, f'CREATE ROLE "{name}" LOGIN', f'GRANT ALL ON SCHEMA housekeeping, public TO "{name}"')
    for kind in ("TABLES", "SEQUENCES"):
        sql(engine, f'GRANT ALL ON ALL {kind} IN SCHEMA housekeeping TO "{name}"')
    plain = make_engine(engine.url.set(username=name))
    yield plain
    plain.dispose()
    sql(engine, f'DROP OWNED BY "{name}" CASCADE', f'DROP ROLE "{name}"')


def tables(*names: str) -> Callable[[Catalog], tuple[Table, ...]]:
    def find(catalog: Catalog) -> tuple[Table, ...]:
        return tuple(table for name in names if (table := catalog.find(name)) is not None)

    return find


class TestWhatIsRefused:
    @pytest.mark.parametrize("table", ["parents", "children"])
    def test_a_trigger_that_takes_no_row(self, engine: sa.Engine, table: str) -> None:
        trigger = f"CREATE TRIGGER t BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()"
        sql(engine, *FAMILY, REFUSE, trigger)
        before = contents(engine)
        report = delete(engine, "parents")
        assert (report.status, report.deleted) == ("refused", {})
        assert f"an undo would not bring back {table}/" in str(report.message)
        assert "no row may be added" in str(report.message)
        assert f"list {table} under without_undo:" in str(report.message)
        assert contents(engine) == before
        assert trash_is_empty(engine)
        # It is found again, until something changes.
        assert delete(engine, "parents", run_id="run-2").status == "refused"
        sql(engine, f"DROP TRIGGER t ON {table}")
        assert delete(engine, "parents", run_id="run-3").status == "succeeded"
        came_back(undo(engine, "run-3"))
        assert contents(engine) == before

    def test_a_trigger_that_drops_a_row_silently(self, engine: sa.Engine) -> None:
        drop = "CREATE FUNCTION ignore() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$"
        trigger = "CREATE TRIGGER t BEFORE INSERT ON children FOR EACH ROW EXECUTE FUNCTION ignore()"
        sql(engine, *FAMILY, drop, trigger)
        assert delete(engine, "parents").status == "refused"

    def test_a_trigger_that_rewrites_where_the_role_cannot_pass_it_by(
        self, engine: sa.Engine, plain: sa.Engine
    ) -> None:
        trigger = "CREATE TRIGGER t BEFORE INSERT OR UPDATE ON children FOR EACH ROW EXECUTE FUNCTION rewrite()"
        sql(plain, *FAMILY, REWRITE, trigger)
        # The rows are as the trigger would not leave them.
        sql(
            plain, "ALTER TABLE children DISABLE TRIGGER t", "UPDATE children SET word = 'old'",
            "ALTER TABLE children ENABLE TRIGGER t",
        )  # fmt: skip
        before = contents(engine)
        report = delete(plain, "parents")
        assert (report.status, report.deleted) == ("refused", {})
        assert contents(engine) == before
        # A superuser passes it by.
        assert delete(engine, "parents", run_id="run-2").status == "succeeded"
        came_back(undo(engine, "run-2"))
        assert contents(engine) == before

    def test_a_key_that_is_not_valid_where_the_role_cannot_pass_it_by(
        self, engine: sa.Engine, plain: sa.Engine
    ) -> None:
        sql(
            plain,
            "CREATE TABLE rooms (id int PRIMARY KEY)",
            "CREATE TABLE posts (id int PRIMARY KEY, room int, at timestamptz)",
            f"INSERT INTO posts SELECT i, i, '{OLD}' FROM generate_series(1, 30) i",
            "ALTER TABLE posts ADD CONSTRAINT to_room FOREIGN KEY (room) REFERENCES rooms NOT VALID",
        )
        before = contents(engine)
        report = delete(plain, "posts", allow_large_deletion=True)
        assert (report.status, report.deleted) == ("refused", {})
        assert "to_room" in str(report.message)
        assert contents(engine) == before
        assert delete(engine, "posts", run_id="run-2", allow_large_deletion=True).deleted == {"posts": 30}
        came_back(undo(engine, "run-2"))
        assert contents(engine) == before

    def test_a_row_below_the_first_ones(self, engine: sa.Engine) -> None:
        sql(
            engine,
            *FAMILY,
            REFUSE,
            "CREATE TABLE toys (id int PRIMARY KEY, child int REFERENCES children ON DELETE CASCADE)",
            # Of all candidates, one has a child with a toy.
            "INSERT INTO toys SELECT 1, max(c.id) FROM children c WHERE c.parent = 13",
            "CREATE TRIGGER t BEFORE INSERT ON toys FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        report = delete(engine, "parents")
        assert (report.status, report.deleted) == ("refused", {})
        assert "toys/1" in str(report.message)

    def test_what_is_allowed_by_name(self, engine: sa.Engine) -> None:
        trigger = "CREATE TRIGGER t BEFORE INSERT ON children FOR EACH ROW EXECUTE FUNCTION refuse()"
        sql(engine, *FAMILY, REFUSE, trigger)
        report = delete(engine, old_rows("parents", without_undo=tables("children")))
        assert (report.status, report.deleted["parents"]) == ("succeeded", 20)
        assert undo(engine).conflict_count == report.deleted["children"]

    def test_rows_that_a_deferred_trigger_deletes_besides(self, engine: sa.Engine) -> None:
        sql(
            engine,
            *FAMILY,
            "CREATE TABLE notes (id int PRIMARY KEY, parent int)",
            "INSERT INTO notes SELECT i, i FROM generate_series(1, 20) i",
            "CREATE FUNCTION sweep() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN DELETE FROM notes WHERE parent = OLD.id; RETURN NULL; END$$",
            "CREATE CONSTRAINT TRIGGER t AFTER DELETE ON parents DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION sweep()",
        )
        before = contents(engine)
        report = delete(engine, "parents")
        assert (report.status, report.deleted) == ("refused", {})
        assert "rows of notes would be deleted besides" in str(report.message)
        assert contents(engine) == before


class TestWhenItIsDone:
    def at(self, engine: sa.Engine) -> Any:
        return scalar(engine, "SELECT rehearsed_at FROM housekeeping.rehearsals WHERE task = 'task'")

    def test_once_and_again_after_a_change(self, engine: sa.Engine) -> None:
        sql(engine, *FAMILY, "CREATE SEQUENCE insertions")
        count = (
            "CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN PERFORM nextval('insertions'); RETURN NEW; END$$"
        )
        sql(engine, count, "CREATE TRIGGER t BEFORE INSERT ON parents FOR EACH ROW EXECUTE FUNCTION count_it()")

        def insertions() -> Any:
            return scalar(engine, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM insertions")

        assert delete(engine, "parents", max_rows=5).stopped_reason == "max_rows"
        first = insertions()
        assert first >= 1
        delete(engine, "parents", run_id="run-2", max_rows=5)
        assert insertions() == first
        sql(engine, "ALTER TABLE children ADD COLUMN more int")
        third = delete(engine, "parents", run_id="run-3", max_rows=5)
        assert third.stopped_reason == "max_rows", third
        assert insertions() > first

    def test_a_dry_run_and_one_without_a_trash_rehearse_nothing(self, engine: sa.Engine) -> None:
        trigger = "CREATE TRIGGER t BEFORE INSERT ON children FOR EACH ROW EXECUTE FUNCTION refuse()"
        sql(engine, *FAMILY, REFUSE, trigger)
        dry = delete(engine, "parents", dry_run=True)
        assert dry.status == "succeeded"
        assert any("t of children may change or refuse" in warning for warning in dry.warnings)
        assert delete(engine, "parents", runner=task_runner(engine, trashed=False)).status == "succeeded"
        assert column(engine, "SELECT task FROM housekeeping.rehearsals") == []

    def test_rows_that_are_held_or_locked_tell_nothing(self, engine: sa.Engine) -> None:
        sql(engine, *FAMILY, "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$")
        sql(engine, "CREATE TRIGGER t BEFORE DELETE ON parents FOR EACH ROW EXECUTE FUNCTION keep()")
        report = delete(engine, "parents", batch_size=10)
        assert report.status in ("partial", "failed")
        assert column(engine, "SELECT task FROM housekeeping.rehearsals") == []


class TestConstraintsThatCanBeDeferred:
    def test_a_trigger_that_holds_only_for_all_rows_together(self, engine: sa.Engine) -> None:
        sql(
            engine,
            *FAMILY,
            "DELETE FROM parents p WHERE NOT EXISTS (SELECT FROM children c WHERE c.parent = p.id)",
            "CREATE FUNCTION has_a_child() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
            " IF NOT EXISTS (SELECT FROM children c WHERE c.parent = NEW.id) THEN"
            " RAISE EXCEPTION 'parent % has no child', NEW.id; END IF; RETURN NULL; END$$",
            "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON parents DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION has_a_child()",
        )
        before = contents(engine)
        report = delete(engine, "parents")
        assert (report.status, report.deleted["parents"]) == ("succeeded", 20)
        came_back(undo(engine))
        assert contents(engine) == before

    def test_rows_that_refer_to_each_other_and_never_to_nothing(self, engine: sa.Engine) -> None:
        sql(
            engine,
            "CREATE TABLE pairs (id int PRIMARY KEY, at timestamptz,"
            " other int NOT NULL REFERENCES pairs DEFERRABLE INITIALLY DEFERRED)",
            f"INSERT INTO pairs SELECT i, '{OLD}', CASE i % 2 WHEN 0 THEN i - 1 ELSE i + 1 END"
            " FROM generate_series(1, 20) i",
            f"INSERT INTO pairs SELECT i, '{YOUNG}', i FROM generate_series(21, 60) i",
        )
        before = contents(engine)
        assert delete(engine, "pairs").deleted == {"pairs": 20}
        came_back(undo(engine))
        assert contents(engine) == before

    def test_where_they_do_not_hold_the_rest_comes_back(self, engine: sa.Engine) -> None:
        sql(
            engine,
            "CREATE TABLE words (id int PRIMARY KEY, at timestamptz, word text,"
            " UNIQUE (word) DEFERRABLE INITIALLY DEFERRED)",
            f"INSERT INTO words SELECT i, '{OLD}', 'word ' || i FROM generate_series(1, 20) i",
            f"INSERT INTO words SELECT i, '{YOUNG}', 'word ' || i FROM generate_series(21, 60) i",
        )
        assert delete(engine, "words").deleted == {"words": 20}
        sql(engine, f"INSERT INTO words VALUES (100, '{YOUNG}', 'word 7')")
        result = undo(engine)
        assert (result.restored, result.conflict_count) == ({"words": 19}, 1)
        assert result.conflicts[0].item == "words/7"


class TestPublications:
    @pytest.fixture(params=["FOR ALL TABLES", "FOR TABLES IN SCHEMA housekeeping, public"])
    def publish(self, request: pytest.FixtureRequest) -> str:
        return f"CREATE PUBLICATION everything {request.param}"

    @pytest.mark.parametrize("late", [False, True])
    def test_the_trash_works_under_a_publication_of_all_tables(
        self, engine: sa.Engine, publish: str, late: bool
    ) -> None:
        sql(engine, *FAMILY)
        before = contents(engine)
        if not late:
            sql(engine, publish)
        assert delete(engine, "parents").status == "succeeded"
        if late:
            sql(engine, publish)
        came_back(undo(engine))
        assert contents(engine) == before
        assert delete(engine, "parents", run_id="run-2").status == "succeeded"
        with engine.connect() as connection:
            assert purge(connection, no_store, before=NOW, run_id="run-2").rows["parents"] == 20
        assert trash_is_empty(engine)

    def test_the_expiry_of_what_went_before_the_publication(self, engine: sa.Engine, publish: str) -> None:
        sql(engine, *FAMILY)
        delete(engine, "parents")
        sql(engine, publish)
        with engine.connect() as connection:
            assert purge(connection, no_store, before=NOW, run_id="run-1").rows["parents"] == 20

    def test_a_table_of_which_no_row_can_be_deleted_is_named(self, engine: sa.Engine, publish: str) -> None:
        sql(
            engine, "CREATE TABLE logs (at timestamptz)", f"INSERT INTO logs SELECT '{OLD}' FROM generate_series(1, 9)",
            publish,
        )  # fmt: skip
        report = delete(engine, "logs")
        assert (report.status, report.deleted) == ("refused", {})
        assert "no row of logs can be deleted: everything publishes it" in str(report.message)
        sql(engine, "ALTER TABLE logs REPLICA IDENTITY FULL")
        assert delete(engine, "logs", run_id="run-2").deleted == {"logs": 9}
        assert came_back(undo(engine, "run-2")) == {"logs": 9}


def a_type_that_ignores_case() -> list[str]:
    """As citext, in a schema that is not on the search path."""
    of = "extensions.name_of"
    made = "LANGUAGE internal IMMUTABLE STRICT AS"
    statements = [
        "CREATE SCHEMA extensions",
        f"CREATE TYPE {of}",
        f"CREATE FUNCTION extensions.name_in(cstring) RETURNS {of} {made} 'textin'",
        f"CREATE FUNCTION extensions.name_out({of}) RETURNS cstring {made} 'textout'",
        f"CREATE TYPE {of} (INPUT = extensions.name_in, OUTPUT = extensions.name_out, LIKE = text)",
        f"CREATE CAST ({of} AS text) WITHOUT FUNCTION AS IMPLICIT",
        f"CREATE CAST (text AS {of}) WITHOUT FUNCTION AS ASSIGNMENT",
    ]
    left, right = ('lower($1::text) COLLATE "C"', 'lower($2::text) COLLATE "C"')
    begin = "IMMUTABLE STRICT LANGUAGE sql AS $$SELECT"
    statements.append(
        f"CREATE FUNCTION extensions.name_cmp({of}, {of}) RETURNS int {begin} pg_catalog.bttextcmp({left}, {right})$$"
    )
    for name, operator in (("lt", "<"), ("le", "<="), ("eq", "="), ("ge", ">="), ("gt", ">")):
        right_of = f"RIGHTARG = {of}" + (", COMMUTATOR = OPERATOR(extensions.=), MERGES" if operator == "=" else "")
        statements += [
            f"CREATE FUNCTION extensions.name_{name}({of}, {of}) RETURNS bool {begin} {left} {operator} {right}$$",
            f"CREATE OPERATOR extensions.{operator} (FUNCTION = extensions.name_{name}, LEFTARG = {of}, {right_of})",
        ]
    operators = ", ".join(f"OPERATOR {i} extensions.{each}" for i, each in enumerate(("<", "<=", "=", ">=", ">"), 1))
    operators += f", FUNCTION 1 extensions.name_cmp({of}, {of})"
    return [*statements, f"CREATE OPERATOR CLASS extensions.name_ops DEFAULT FOR TYPE {of} USING btree AS {operators}"]


class TestKeysThatCompareInAnotherWay:
    @pytest.mark.parametrize("action", ["CASCADE", "NO ACTION", "SET NULL"])
    @pytest.mark.parametrize("tenants", [False, True])
    def test_a_type_of_an_extension(self, engine: sa.Engine, action: str, tenants: bool) -> None:
        more, key, one = ("tenant int, ", "tenant, ", "1, ") if tenants else ("", "", "")
        sql(engine, *a_type_that_ignores_case())
        sql(
            engine,
            f"CREATE TABLE rooms ({more}slug extensions.name_of, at timestamptz, PRIMARY KEY ({key}slug))",
            f"CREATE TABLE posts (id int PRIMARY KEY, {more}room extensions.name_of,"
            f" FOREIGN KEY ({key}room) REFERENCES rooms ON DELETE {action}"
            f" {'(room)' if tenants and action == 'SET NULL' else ''})",
            f"INSERT INTO rooms SELECT {one}'Room-' || i, '{OLD}' FROM generate_series(1, 20) i",
            f"INSERT INTO rooms SELECT {one}'Room-' || i, '{YOUNG}' FROM generate_series(21, 60) i",
            f"INSERT INTO posts SELECT row_number() OVER (), {one}lower(slug::text) FROM rooms",
        )
        before = contents(engine)
        report = delete(engine, "rooms")
        gone = {"rooms": 20} if action == "SET NULL" else {"rooms": 20, "posts": 20}
        assert (report.status, report.deleted) == ("succeeded", gone)
        came_back(undo(engine))
        assert contents(engine) == before

    def test_a_collation_that_ignores_case(self, engine: sa.Engine) -> None:
        try:
            sql(engine, "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        except sa.exc.NotSupportedError:
            pytest.skip("this build of PostgreSQL has no ICU")
        sql(
            engine,
            "CREATE TABLE tags (name text COLLATE any_case PRIMARY KEY, at timestamptz)",
            "CREATE TABLE uses (id int PRIMARY KEY, tag text COLLATE any_case REFERENCES tags ON DELETE CASCADE)",
            f"INSERT INTO tags SELECT 'Tag-' || i, '{OLD}' FROM generate_series(1, 20) i",
            f"INSERT INTO tags SELECT 'Tag-' || i, '{YOUNG}' FROM generate_series(21, 60) i",
            "INSERT INTO uses SELECT row_number() OVER (), lower(name) FROM tags",
        )
        before = contents(engine)
        assert delete(engine, "tags").deleted == {"tags": 20, "uses": 20}
        came_back(undo(engine))
        assert contents(engine) == before
