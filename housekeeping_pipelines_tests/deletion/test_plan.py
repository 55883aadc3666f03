"""What goes with a row, in which order, and what stays and only loses its reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.postgres.catalog import Catalog, ForeignKey
from housekeeping_pipelines_tests.deletion.support import (
    OLD,
    YOUNG,
    came_back,
    column,
    contents,
    delete,
    old_rows,
    rows,
    scalar,
    sql,
    trash_is_empty,
    undo,
)

if TYPE_CHECKING:
    import sqlalchemy as sa

ACTIONS = ["NO ACTION", "RESTRICT", "CASCADE", "NO ACTION DEFERRABLE INITIALLY DEFERRED"]


@pytest.mark.parametrize("action", ACTIONS)
def test_five_levels_go_from_the_bottom_up(engine: sa.Engine, action: str) -> None:
    on_delete = f"ON DELETE {action}"
    sql(engine, "CREATE TABLE level0 (id bigint PRIMARY KEY, at timestamptz)")
    for level in range(1, 6):
        # An int may refer to a bigint.
        sql(
            engine,
            f"CREATE TABLE level{level} (id int PRIMARY KEY, parent int REFERENCES level{level - 1} {on_delete})",
            f"CREATE INDEX ON level{level} (parent)",
        )
    sql(engine, f"INSERT INTO level0 SELECT n, CASE WHEN n % 3 = 0 THEN '{YOUNG}' ELSE '{OLD}' END::timestamptz"
        " FROM generate_series(1, 12) n")  # fmt: skip
    for level in range(1, 6):
        sql(engine, f"INSERT INTO level{level} SELECT n, n FROM generate_series(1, 12) n")
    before = contents(engine)

    report = delete(engine, "level0", batch_size=3)
    assert (report.status, report.warnings) == ("succeeded", ())
    assert report.deleted == {f"level{level}": 8 for level in range(6)}
    for level in range(6):
        assert column(engine, f"SELECT id FROM level{level} ORDER BY id") == [3, 6, 9, 12]
    assert came_back(undo(engine)) == report.deleted
    assert contents(engine) == before
    assert trash_is_empty(engine)


@pytest.mark.parametrize(("left", "right"), [("CASCADE", "CASCADE"), ("RESTRICT", "SET NULL"), ("SET NULL", "CASCADE")])
def test_a_diamond_is_counted_once(engine: sa.Engine, left: str, right: str) -> None:
    sql(
        engine,
        "CREATE TABLE top (id int PRIMARY KEY, at timestamptz)",
        "CREATE TABLE lefts (id int PRIMARY KEY, top int REFERENCES top)",
        "CREATE TABLE rights (id int PRIMARY KEY, top int REFERENCES top)",
        "CREATE TABLE bottom (id int PRIMARY KEY,"
        f" l int REFERENCES lefts ON DELETE {left}, r int REFERENCES rights ON DELETE {right})",
        f"INSERT INTO top VALUES (1, '{OLD}'), (2, '{OLD}'), (3, '{YOUNG}')",
        "INSERT INTO lefts VALUES (1, 1), (2, 2), (3, 3)",
        "INSERT INTO rights VALUES (1, 1), (2, 2), (3, 3)",
        # Both sides go; each side goes; neither does.
        "INSERT INTO bottom VALUES (11, 1, 1), (12, 1, 2), (13, 1, 3), (31, 3, 1), (33, 3, 3), (30, 3, NULL)",
    )
    before = contents(engine)
    goes = [11, 12]
    goes += [13] if left != "SET NULL" else []
    goes += [31] if right != "SET NULL" else []
    dry = delete(engine, "top", batch_size=1, dry_run=True)
    assert dry.would_delete == {"top": 2, "lefts": 2, "rights": 2, "bottom": len(goes)}
    assert contents(engine) == before

    report = delete(engine, "top", batch_size=1)
    assert report.status == "succeeded"
    assert report.deleted == dry.would_delete
    assert column(engine, "SELECT id FROM bottom WHERE id = ANY (ARRAY[11, 12, 13, 31]) ORDER BY 1") == sorted(
        {11, 12, 13, 31} - set(goes)
    )
    assert came_back(undo(engine)) == report.deleted
    assert contents(engine) == before
    assert trash_is_empty(engine)


@pytest.mark.parametrize("batch_size", [1, 2, 1000])
def test_a_row_that_both_hangs_and_is_cleared_comes_back_whole(engine: sa.Engine, batch_size: int) -> None:
    # `bottom` hangs on `a` and is cleared by `z`, which may go before it or after it.
    for first, last in (("a", "z"), ("z", "a")):
        sql(
            engine,
            "DROP SCHEMA IF EXISTS s CASCADE",
            "CREATE SCHEMA s",
            "CREATE TABLE s.top (id int PRIMARY KEY, at timestamptz)",
            f"CREATE TABLE s.{first} (id int PRIMARY KEY, top int REFERENCES s.top)",
            f"CREATE TABLE s.{last} (id int PRIMARY KEY, top int REFERENCES s.top)",
            "CREATE TABLE s.m (id int PRIMARY KEY, a int REFERENCES s.a, z int REFERENCES s.z ON DELETE SET NULL)",
            f"INSERT INTO s.top SELECT n, '{OLD}' FROM generate_series(1, 4) n",
            "INSERT INTO s.a SELECT n, n FROM generate_series(1, 4) n",
            "INSERT INTO s.z SELECT n, n FROM generate_series(1, 4) n",
            "INSERT INTO s.m SELECT n, n, 5 - n FROM generate_series(1, 4) n",
        )
        before = contents(engine)
        run_id = f"run-{first}"
        report = delete(engine, "s.top", batch_size=batch_size, run_id=run_id)
        assert report.deleted == {"s.top": 4, "s.a": 4, "s.z": 4, "s.m": 4}
        assert came_back(undo(engine, run_id)) == report.deleted
        assert contents(engine) == before
        assert trash_is_empty(engine)


def test_composite_keys_and_keys_to_a_unique_column(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE teams (tenant uuid, slug text, code varchar(8) UNIQUE, id int PRIMARY KEY, at timestamptz,"
        " UNIQUE (slug, tenant))",
        "CREATE TABLE members (id int PRIMARY KEY, team_slug text, t uuid,"
        " FOREIGN KEY (t, team_slug) REFERENCES teams (tenant, slug))",
        "CREATE TABLE badges (id int PRIMARY KEY, code text REFERENCES teams (code))",
        "CREATE INDEX ON members (team_slug, t)",
        "CREATE INDEX ON badges USING hash (code)",
        f"""INSERT INTO teams VALUES
            ('00000000-0000-0000-0000-000000000001', 'a,b', 'A', 1, '{OLD}'),
            ('00000000-0000-0000-0000-000000000002', 'a,b', 'a', 2, '{YOUNG}'),
            ('00000000-0000-0000-0000-000000000001', 'b', NULL, 3, '{OLD}'),
            (NULL, 'b', 'B', 4, '{OLD}')""",
        """INSERT INTO members VALUES (1, 'a,b', '00000000-0000-0000-0000-000000000001'),
            (2, 'a,b', '00000000-0000-0000-0000-000000000002'), (3, 'b', '00000000-0000-0000-0000-000000000001'),
            (4, 'b', NULL), (5, NULL, '00000000-0000-0000-0000-000000000001')""",
        "INSERT INTO badges VALUES (1, 'A'), (2, 'a'), (3, NULL), (4, 'B')",
    )
    before = contents(engine)
    report = delete(engine, "teams")
    assert (report.status, report.warnings) == ("succeeded", ())
    assert report.deleted == {"teams": 3, "members": 2, "badges": 2}
    assert column(engine, "SELECT id FROM members ORDER BY 1") == [2, 4, 5]
    assert column(engine, "SELECT id FROM badges ORDER BY 1") == [2, 3]
    came_back(undo(engine))
    assert contents(engine) == before


def tree(engine: sa.Engine, on_delete: str = "CASCADE") -> None:
    sql(engine, "CREATE TABLE nodes (id int PRIMARY KEY, at timestamptz, parent int,"
        f" FOREIGN KEY (parent) REFERENCES nodes ON DELETE {on_delete})", "CREATE INDEX ON nodes (parent)")  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
@pytest.mark.parametrize("on_delete", ["CASCADE", "NO ACTION"])
def test_a_deep_tree_goes_with_its_root(engine: sa.Engine, on_delete: str, batch_size: int) -> None:
    tree(engine, on_delete)
    sql(
        engine,
        "CREATE TABLE leaves (id int PRIMARY KEY, node int REFERENCES nodes)",
        # A chain of 20, the deepest the oldest; and a wide one.
        f"INSERT INTO nodes SELECT n, '{OLD}'::timestamptz - n * interval '1 hour', nullif(n - 1, 0)"
        " FROM generate_series(1, 20) n",
        f"INSERT INTO nodes SELECT 100 + n, '{OLD}', 1 + n % 20 FROM generate_series(1, 20) n",
        "INSERT INTO leaves SELECT id, id FROM nodes",
    )
    before = contents(engine)
    dry = delete(engine, "nodes", batch_size=batch_size, dry_run=True)
    assert (dry.status, dry.would_delete) == ("succeeded", {"nodes": 40, "leaves": 40})
    report = delete(engine, "nodes", batch_size=batch_size)
    assert (report.status, report.deleted) == ("succeeded", {"nodes": 40, "leaves": 40})
    assert came_back(undo(engine)) == report.deleted
    assert contents(engine) == before


def test_a_child_that_is_to_stay_keeps_its_ancestors(engine: sa.Engine) -> None:
    tree(engine)
    sql(
        engine,
        f"INSERT INTO nodes VALUES (1, '{OLD}', NULL), (2, '{OLD}', 1), (3, '{OLD}', 2), (4, '{YOUNG}', 3)",
        f"INSERT INTO nodes VALUES (5, '{OLD}', 1), (6, '{OLD}', NULL), (7, '{OLD}', 6), (8, NULL, NULL)",
    )
    dry = delete(engine, "nodes", dry_run=True)
    report = delete(engine, "nodes")
    assert (report.status, report.deleted) == ("succeeded", {"nodes": 3})
    assert report.skipped == {"young": 2, "held": 0, "unrecognised": 0, "in_use": 3, "locked": 0, "budget": 0}
    assert (dry.would_delete, dry.skipped) == (report.deleted, report.skipped)
    assert column(engine, "SELECT id FROM nodes ORDER BY id") == [1, 2, 3, 4, 8]


def test_two_keys_to_itself_are_both_followed(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE posts (id int PRIMARY KEY, at timestamptz, thread int REFERENCES posts ON DELETE CASCADE,"
        " reply int REFERENCES posts ON DELETE CASCADE)",
        # From 1 by reply, then by thread, then by reply; what is cascaded away would be lost.
        f"INSERT INTO posts VALUES (1, '{OLD}', NULL, NULL), (2, '{OLD}', NULL, 1), (3, '{OLD}', 2, NULL),"
        f" (4, '{OLD}', NULL, 3)",
    )
    before = contents(engine)
    assert delete(engine, "posts", batch_size=1).deleted == {"posts": 4}
    assert came_back(undo(engine)) == {"posts": 4}
    assert contents(engine) == before


@pytest.mark.parametrize("batch_size", [1, 1000])
def test_a_self_reference_that_sets_null_keeps_the_child(engine: sa.Engine, batch_size: int) -> None:
    tree(engine, "SET NULL")
    sql(
        engine,
        f"INSERT INTO nodes VALUES (1, '{OLD}', NULL), (2, '{YOUNG}', 1), (3, '{OLD}', 1), (4, '{OLD}', 3)",
        "UPDATE nodes SET parent = 4 WHERE id = 1",
    )
    before = contents(engine)
    report = delete(engine, "nodes", batch_size=batch_size)
    assert (report.status, report.deleted) == ("succeeded", {"nodes": 3})
    assert rows(engine, "SELECT id, parent FROM nodes") == [(2, None)]
    assert came_back(undo(engine)) == {"nodes": 3}
    assert contents(engine) == before
    assert trash_is_empty(engine)


def conversations(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE conversations (id int PRIMARY KEY, at timestamptz, last_message_id int)",
        "CREATE TABLE messages (id int PRIMARY KEY,"
        " conversation_id int NOT NULL REFERENCES conversations ON DELETE CASCADE, body text)",
        "ALTER TABLE conversations ADD CONSTRAINT last FOREIGN KEY (last_message_id) REFERENCES messages"
        " ON DELETE SET NULL",
        f"INSERT INTO conversations SELECT n, CASE WHEN n > 8 THEN '{YOUNG}' ELSE '{OLD}' END::timestamptz"
        " FROM generate_series(1, 10) n",
        "INSERT INTO messages SELECT n, 1 + n % 10, 'message ' || n FROM generate_series(1, 50) n",
        "UPDATE conversations c SET last_message_id = (SELECT max(id) FROM messages WHERE conversation_id = c.id)",
        # One that stays points into one that goes, and one that goes into another that goes.
        "UPDATE conversations SET last_message_id = 11 WHERE id = 9",
        "UPDATE conversations SET last_message_id = 12 WHERE id = 1",
    )


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_the_last_message_is_the_last_message_again(engine: sa.Engine, batch_size: int) -> None:
    conversations(engine)
    before = contents(engine)
    dry = delete(engine, "conversations", batch_size=batch_size, dry_run=True)
    report = delete(engine, "conversations", batch_size=batch_size)
    assert (report.status, report.failed) == ("succeeded", ())
    assert report.deleted == dry.would_delete == {"conversations": 8, "messages": 40}
    assert rows(engine, "SELECT id, last_message_id FROM conversations ORDER BY id") == [(9, None), (10, 49)]

    assert came_back(undo(engine)) == report.deleted
    assert contents(engine) == before
    assert trash_is_empty(engine)


def test_a_last_message_that_cannot_be_set_again_stays_in_the_trash(engine: sa.Engine) -> None:
    conversations(engine)
    assert delete(engine, "conversations").status == "succeeded"
    # The number of conversation 2's last message is taken, and 9 has another last message by now.
    sql(engine, "INSERT INTO messages VALUES (41, 9, 'new'), (1000, 9, 'newer')",
        "UPDATE conversations SET last_message_id = 1000 WHERE id = 9")  # fmt: skip
    result = undo(engine)
    assert result.restored == {"conversations": 8, "messages": 39}
    conflicts = {conflict.item: conflict.reason for conflict in result.conflicts}
    assert set(conflicts) == {"messages/41", "conversations/9"}
    assert "already exists" in conflicts["messages/41"]
    assert conflicts["conversations/9"].endswith("the row has changed since, or no longer exists")
    # Conversation 2 refers to a row that has the number of its last message and is another's: it exists, so it is set.
    assert rows(engine, "SELECT id, last_message_id FROM conversations WHERE id IN (2, 3, 9) ORDER BY 1") == [
        (2, 41),
        (3, 42),
        (9, 1000),
    ]
    sql(engine, "DELETE FROM messages WHERE id IN (41, 1000)")
    assert came_back(undo(engine)) == {"messages": 1}
    assert scalar(engine, "SELECT last_message_id FROM conversations WHERE id = 9") == 11
    assert scalar(engine, "SELECT body FROM messages WHERE id = 41") == "message 41"
    # What the deletion of 41 has cleared was not ours to record.
    assert trash_is_empty(engine)


def test_a_last_message_that_is_gone_is_set_when_it_is_back(engine: sa.Engine) -> None:
    conversations(engine)
    sql(engine, "CREATE UNIQUE INDEX one_body ON messages (body)")
    before = contents(engine)
    assert delete(engine, "conversations").status == "succeeded"
    sql(engine, "INSERT INTO messages VALUES (900, 9, 'message 41'), (901, 9, 'message 42')")
    result = undo(engine)
    assert {conflict.item for conflict in result.conflicts} == {
        "messages/41",
        "messages/42",
        "conversations/2",
        "conversations/3",
    }
    assert result.restored == {"conversations": 8, "messages": 38}
    assert rows(engine, "SELECT id, last_message_id FROM conversations WHERE id < 5 ORDER BY 1") == [
        (1, 12),
        (2, None),
        (3, None),
        (4, 43),
    ]
    sql(engine, "DELETE FROM messages WHERE id > 100")
    assert came_back(undo(engine)) == {"messages": 2}
    assert contents(engine) == before
    assert trash_is_empty(engine)


def test_cleared_columns_are_the_ones_that_the_key_names(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE parents (tenant int, id int, at timestamptz, PRIMARY KEY (tenant, id))",
        f"INSERT INTO parents VALUES (1, 0, '{YOUNG}'), (1, 1, '{OLD}'), (1, 2, '{OLD}'), (2, 1, '{YOUNG}')",
        "CREATE TABLE nulled (id int PRIMARY KEY, tenant int NOT NULL, parent int,"
        " FOREIGN KEY (tenant, parent) REFERENCES parents ON DELETE SET NULL (parent))",
        "CREATE TABLE defaulted (id int PRIMARY KEY, tenant int DEFAULT 1, parent int DEFAULT 0,"
        " FOREIGN KEY (tenant, parent) REFERENCES parents ON DELETE SET DEFAULT)",
        "CREATE TABLE part (id int PRIMARY KEY, tenant int, parent int DEFAULT 0,"
        " FOREIGN KEY (parent, tenant) REFERENCES parents (id, tenant) ON DELETE SET DEFAULT (parent))",
        *(f"INSERT INTO {name} VALUES (1, 1, 1), (2, 1, 2), (3, 2, 1)" for name in ("nulled", "defaulted", "part")),
    )
    before = contents(engine)
    report = delete(engine, "parents")
    assert (report.status, report.deleted) == ("succeeded", {"parents": 2})
    assert rows(engine, "SELECT * FROM nulled ORDER BY 1") == [(1, 1, None), (2, 1, None), (3, 2, 1)]
    assert rows(engine, "SELECT * FROM defaulted ORDER BY 1") == [(1, 1, 0), (2, 1, 0), (3, 2, 1)]
    assert rows(engine, "SELECT * FROM part ORDER BY 1") == [(1, 1, 0), (2, 1, 0), (3, 2, 1)]
    recorded = rows(engine, "SELECT source_table, columns, count(*) FROM housekeeping.trash_references GROUP BY 1, 2")
    assert sorted(recorded) == [
        ("defaulted", ["tenant", "parent"], 2),
        ("nulled", ["parent"], 2),
        ("part", ["parent"], 2),
    ]
    assert came_back(undo(engine)) == {"parents": 2}
    assert contents(engine) == before
    assert trash_is_empty(engine)


def test_what_is_cleared_must_have_a_key(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE parents (id int PRIMARY KEY, at timestamptz)",
        "CREATE TABLE notes (parent int CONSTRAINT to_parent REFERENCES parents ON DELETE SET NULL)",
        f"INSERT INTO parents VALUES (1, '{OLD}')",
        "INSERT INTO notes VALUES (1)",
    )
    report = delete(engine, "parents")
    assert (report.status, report.deleted) == ("refused", {})
    assert report.message == (
        "notes has no primary key, so what to_parent clears could not be restored; give notes a primary key"
    )
    assert column(engine, "SELECT parent FROM notes") == [1]


def test_keys_that_are_not_validated_are_followed(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE parents (id int PRIMARY KEY, at timestamptz)",
        "CREATE TABLE children (id int PRIMARY KEY, parent int)",
        f"INSERT INTO parents VALUES (1, '{OLD}'), (2, '{YOUNG}')",
        "INSERT INTO children VALUES (1, 1), (2, 2), (3, 77)",
        "ALTER TABLE children ADD FOREIGN KEY (parent) REFERENCES parents NOT VALID",
    )
    before = contents(engine)
    assert delete(engine, "parents").deleted == {"parents": 1, "children": 1}
    assert column(engine, "SELECT id FROM children ORDER BY 1") == [2, 3]
    came_back(undo(engine))
    assert contents(engine) == before


def test_a_circle_of_keys_is_refused(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE a (id int PRIMARY KEY, at timestamptz)",
        "CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE)",
        "CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b ON DELETE CASCADE)",
        "ALTER TABLE a ADD c int REFERENCES c ON DELETE CASCADE DEFERRABLE",
        f"INSERT INTO a VALUES (1, '{OLD}')",
        "INSERT INTO b VALUES (1, 1)",
    )
    before = contents(engine, with_ours=True)
    for dry_run in (True, False):
        report = delete(engine, "a", dry_run=dry_run)
        assert (report.status, report.error_type) == ("refused", "Refused")
        assert report.message is not None
        assert "\n" not in report.message
        assert "form a cycle, so no row of a can be deleted before another" in report.message
        assert all(f"{name} -> " in report.message for name in "abc")
    assert contents(engine, with_ours=True) == before


REFUSED = {
    "inherited": (
        ["CREATE TABLE root (id int PRIMARY KEY, at timestamptz)", "CREATE TABLE more (extra int) INHERITS (root)"],
        "other tables inherit from root",
    ),
    "view": (["CREATE TABLE t (at timestamptz)", "CREATE VIEW root AS SELECT * FROM t"], "root is a view"),
    "materialized view": (
        ["CREATE TABLE t (at timestamptz)", "CREATE MATERIALIZED VIEW root AS SELECT * FROM t"],
        "root is a materialized view",
    ),
    "foreign table": (
        [
            "CREATE FOREIGN DATA WRAPPER nothing",
            "CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing",
            "CREATE FOREIGN TABLE root (at timestamptz) SERVER elsewhere",
        ],
        "root is a foreign table",
    ),
    "partitioned without a key": (
        [
            "CREATE TABLE root (at timestamptz) PARTITION BY RANGE (at)",
            "CREATE TABLE rest PARTITION OF root DEFAULT",
        ],
        "root is partitioned and has no key",
    ),
    "a key to one partition": (
        [
            "CREATE TABLE root (id int PRIMARY KEY, at timestamptz) PARTITION BY RANGE (id)",
            "CREATE TABLE part PARTITION OF root DEFAULT",
            "CREATE TABLE child (part int CONSTRAINT to_part REFERENCES part ON DELETE CASCADE)",
        ],
        "child refers to root by to_part, which cannot be followed: it belongs to one partition alone",
    ),
    "a key of one partition": (
        [
            "CREATE TABLE root (id int PRIMARY KEY, at timestamptz)",
            "CREATE TABLE child (id int PRIMARY KEY, root int) PARTITION BY RANGE (id)",
            "CREATE TABLE part PARTITION OF child DEFAULT",
            "ALTER TABLE part ADD CONSTRAINT of_part FOREIGN KEY (root) REFERENCES root ON DELETE CASCADE",
        ],
        "child refers to root by of_part, which cannot be followed: it belongs to one partition alone",
    ),
    "a key that nobody enforces": (
        [
            "CREATE TABLE root (id int PRIMARY KEY, at timestamptz)",
            "CREATE TABLE child (id int PRIMARY KEY, root int)",
            "ALTER TABLE child ADD CONSTRAINT loose FOREIGN KEY (root) REFERENCES root ON DELETE SET NULL NOT ENFORCED",
        ],
        "child refers to root by loose, which cannot be followed: it is not enforced",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_moved_is_refused(engine: sa.Engine, case: str) -> None:
    statements, reason = REFUSED[case]
    sql(engine, *statements)
    before = contents(engine, with_ours=True)
    report = delete(engine, "root")
    assert report.status == "refused"
    assert reason in (report.message or "")
    assert contents(engine, with_ours=True) == before


def test_keys_that_only_the_application_knows_are_followed_with_a_warning(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE parents (id int PRIMARY KEY, at timestamptz)",
        "CREATE TABLE children (parent int)",
        f"INSERT INTO parents VALUES (1, '{OLD}'), (2, '{YOUNG}')",
        "INSERT INTO children VALUES (1), (1), (2), (NULL), (77)",
    )

    def undeclared(catalog: Catalog) -> tuple[ForeignKey, ...]:
        parent, child = catalog.find("parents"), catalog.find("children")
        assert parent is not None
        assert child is not None
        return (ForeignKey("k", child.oid, ("parent",), parent.oid, ("id",), "no action", declared=False),)

    before = contents(engine)
    report = delete(engine, old_rows("parents", undeclared=undeclared))
    assert (report.status, report.deleted) == ("succeeded", {"parents": 1, "children": 2})
    late = "a row that is written while its parent is deleted remains as an orphan"
    assert report.warnings == (
        f"children.parent is not declared as a key to parents: {late}",
        "children (parent) has no index: each row of parents that is deleted costs a scan of it",
    )
    assert came_back(undo(engine)) == report.deleted
    assert contents(engine) == before


INDEXES = {
    "CREATE INDEX ON child (b, a, c)": True,
    "CREATE INDEX ON child (a, b)": True,
    "CREATE UNIQUE INDEX ON child (b, a) INCLUDE (c)": True,
    "CREATE INDEX ON child (c, a, b)": False,
    "CREATE INDEX ON child (a)": False,
    "CREATE INDEX ON child (a, b) WHERE c > 0": False,
    "CREATE INDEX ON child (a, (b + 0))": False,
    "CREATE INDEX ON child USING brin (a, b)": False,
}


@pytest.mark.parametrize("index", INDEXES)
def test_a_key_without_an_index_is_warned_about(engine: sa.Engine, index: str) -> None:
    sql(
        engine,
        "CREATE TABLE parent (x int, y int, at timestamptz, PRIMARY KEY (x, y))",
        "CREATE TABLE child (a int, b int, c int, FOREIGN KEY (a, b) REFERENCES parent)",
        index,
    )
    warning = "child (a, b) has no index: each row of parent that is deleted costs a scan of it"
    assert delete(engine, "parent").warnings == (() if INDEXES[index] else (warning,))


def test_keys_across_schemas_that_are_not_in_the_search_path(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE SCHEMA app",
        "CREATE SCHEMA other",
        "CREATE TABLE app.items (id int PRIMARY KEY, at timestamptz)",
        "CREATE TABLE other.items (id int PRIMARY KEY, item int REFERENCES app.items ON DELETE CASCADE)",
        "CREATE TABLE items (id int PRIMARY KEY, item int REFERENCES other.items ON DELETE CASCADE)",
        f"INSERT INTO app.items VALUES (1, '{OLD}'), (2, '{YOUNG}')",
        "INSERT INTO other.items VALUES (1, 1), (2, 2)",
        "INSERT INTO items VALUES (1, 1), (2, 2)",
    )
    before = contents(engine)
    report = delete(engine, "app.items")
    assert report.deleted == {"app.items": 1, "other.items": 1, "items": 1}
    assert [candidate.item for candidate in report.sample] == ["app.items/1"]
    assert came_back(undo(engine)) == report.deleted
    assert contents(engine) == before


def test_triggers_that_count_are_right_before_and_after(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE TABLE boxes (id int PRIMARY KEY, at timestamptz, size int NOT NULL DEFAULT 0)",
        "CREATE TABLE things (id int PRIMARY KEY, box int NOT NULL REFERENCES boxes)",
        "CREATE FUNCTION count_things() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE boxes SET size = size + CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END"
        " WHERE id = coalesce(NEW.box, OLD.box); RETURN NULL; END $$",
        "CREATE TRIGGER counting AFTER INSERT OR DELETE ON things FOR EACH ROW EXECUTE FUNCTION count_things()",
        f"INSERT INTO boxes VALUES (1, '{OLD}'), (2, '{OLD}')",
        "INSERT INTO things SELECT n, 1 + n % 2 FROM generate_series(1, 10) n",
    )
    before = contents(engine)
    assert delete(engine, "boxes").deleted == {"boxes": 2, "things": 10}
    assert came_back(undo(engine)) == {"boxes": 2, "things": 10}
    assert contents(engine) == before
    assert column(engine, "SELECT size FROM boxes") == [5, 5]
