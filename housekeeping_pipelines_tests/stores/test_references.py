"""Which names the values of a column mean, and how PostgreSQL finds most of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.stores.columns import shape_of, shapes
from housekeeping_pipelines.stores.in_use import in_use
from housekeeping_pipelines.stores.references import ReferenceSource, Root, naming, reference_keys
from housekeeping_pipelines.stores.slugs import names_on_disk, slug
from housekeeping_pipelines_tests.deletion.support import sql
from housekeeping_pipelines_tests.orphans.support import source

if TYPE_CHECKING:
    from housekeeping_pipelines.postgres.catalog import Table

MEDIA = naming(Root(Path("/srv/media")))


def fill(engine: sa.Engine, kind: str, *values: str | None) -> None:
    sql(engine, "DROP TABLE IF EXISTS files", f"CREATE TABLE files (path {kind})")
    with engine.begin() as connection:
        for value in values:
            connection.execute(sa.text(f"INSERT INTO files VALUES (CAST(:value AS {kind}))"), {"value": value})


def keys(engine: sa.Engine, *sources: ReferenceSource) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        columns = reference_keys(sources).subquery().c
        return [tuple(row) for row in connection.execute(sa.select(columns.key, columns.value, columns.certain))]


def used(engine: sa.Engine, names: list[str], *sources: ReferenceSource, stored: set[str] | None = None) -> set[str]:
    with engine.connect() as connection:
        found = in_use(connection, sources, names)
    return found.decide(lambda asked: set(asked) & (set(names) if stored is None else stored))


def files(engine: sa.Engine) -> Table:
    with engine.connect() as connection:
        found = Catalog(connection).find("files")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("value", "key", "certain"),
    [
        ("a/b.jpg", "a/b.jpg", False),
        ("/srv/media/a/b.jpg", "a/b.jpg", True),
        ("/app/media/a.jpg", "app/media/a.jpg", False),
        ("2026-01-01T10:00:00.jpg", "2026-01-01T10:00:00.jpg", False),
    ],
)
def test_a_plain_value_is_its_key(engine: sa.Engine, value: str, key: str, certain: bool) -> None:
    fill(engine, "text", value)
    found = keys(engine, source(engine, "files", "path", naming=MEDIA))
    assert found == [(key, None if key == value else value, certain)]


@pytest.mark.parametrize(
    "value",
    [
        "./a.jpg", "a//b.jpg", "a/../b.jpg", "a/.hidden/b.jpg", "media/a.jpg", "a b.jpg", " a.jpg", "a%20b.jpg",
        "a\\b.jpg", "C:a.jpg", "file:/a.jpg", "http://host/a.jpg", "a.jpg?b", "é.jpg", "a+b.jpg", '["a.jpg"]', "a/",
        "/srv/media/../a.jpg", "/srv/media//a.jpg",
    ],
)  # fmt: skip
def test_any_other_value_has_to_be_read(engine: sa.Engine, value: str) -> None:
    fill(engine, "text", value)
    [(key, found, _)] = keys(engine, source(engine, "files", "path", naming=MEDIA))
    assert (key, found) == (None, value)


def test_nothing_names_nothing(engine: sa.Engine) -> None:
    fill(engine, "text", None, "")
    assert keys(engine, source(engine, "files", "path")) == []
    with pytest.raises(ValueError, match="no reference source"):
        reference_keys([])


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", ["a/1.jpg"]),
        ("varchar(20)", ["a/1.jpg"]),
        ("char(20)", ["a/1.jpg"]),
        ("name", ["a/1.jpg"]),
        ("text[]", ['{"a/1.jpg",NULL}']),
        ("varchar[]", ["{{a/1.jpg,b}}"]),
        ("jsonb", ['{"files": ["a/1.jpg"]}', '"b"']),
        ("json", ['["a/1.jpg"]']),
        ("jsonb[]", ['{"\\"a/1.jpg\\""}']),
    ],
)
def test_a_column_of_any_type_that_can_hold_names(engine: sa.Engine, kind: str, values: list[str]) -> None:
    fill(engine, kind, *values)
    with engine.connect() as connection:
        shape = shape_of(connection, files(engine), "path")
    assert used(engine, ["a/1.jpg", "c.jpg"], source(engine, "files", "path", shape=shape)) == {"a/1.jpg"}


def test_domains_and_enumerations_hold_names_and_other_types_do_not(engine: sa.Engine) -> None:
    sql(
        engine,
        "CREATE DOMAIN a_path AS text CHECK (value <> '')",
        "CREATE DOMAIN paths AS a_path[]",
        "CREATE TYPE picture AS ENUM ('a.jpg', 'b.jpg')",
        "CREATE TABLE files (a a_path, b paths, c picture, d uuid, e bytea, f int, g timestamptz, h xml, i oid)",
    )
    with engine.connect() as connection:
        assert shapes(connection, files(engine)) == {"a": "text", "b": "array", "c": "text", "d": "text"}
        with pytest.raises(ConfigurationError, match=r"files.e is bytea, which cannot be read as the name of a file"):
            shape_of(connection, files(engine), "e")


def test_a_path_in_json_and_a_template(engine: sa.Engine) -> None:
    fill(engine, "text", '{"files": [{"path": "a.jpg", "by": "b.jpg"}, {"path": "sub/c.jpg"}]}')
    by_path = source(engine, "files", "path", json_path="$.files[*].path")
    assert used(engine, ["a.jpg", "b.jpg", "sub/c.jpg"], by_path) == {"a.jpg", "sub/c.jpg"}
    fill(engine, "text", "42", "a b")
    by_template = source(engine, "files", "path", template="clips/{}.mp4")
    assert used(engine, ["clips/42.mp4", "clips/a b.mp4", "42"], by_template) == {"clips/42.mp4", "clips/a b.mp4"}


def test_a_path_from_another_root_means_its_longest_suffix_that_is_stored(engine: sa.Engine) -> None:
    fill(engine, "text", "/app/media/cam/1.jpg", "/app/media/cam/front door.jpg")
    paths = source(engine, "files", "path", naming=MEDIA)
    assert used(engine, ["cam/1.jpg"], paths) == {"cam/1.jpg"}
    assert used(engine, ["cam/1.jpg", "1.jpg"], paths) == {"cam/1.jpg"}
    assert used(engine, ["1.jpg"], paths) == {"1.jpg"}
    # The longer name is another file of the store, which is what the value means.
    assert used(engine, ["1.jpg"], paths, stored={"1.jpg", "cam/1.jpg"}) == set()
    assert used(engine, ["front door.jpg"], paths) == {"front door.jpg"}
    assert used(engine, ["front door.jpg"], paths, stored={"front door.jpg", "cam/front door.jpg"}) == set()


def test_a_declared_root_of_another_system(engine: sa.Engine) -> None:
    fill(engine, "text", r"C:\Cams\yard\1.jpg", "/data/yard/2.jpg", "/data/1.jpg")
    rooted = naming(Root(Path("/srv/media"), others=["c:\\cams\\", "/data"]))
    paths = source(engine, "files", "path", naming=rooted)
    assert used(engine, ["yard/1.jpg", "yard/2.jpg", "1.jpg", "2.jpg"], paths) == {"yard/1.jpg", "yard/2.jpg", "1.jpg"}


# What slugify 1.6.9 answered.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My file (1).pdf-123.json", "My-file-(1).pdf-123.json"),
        ("  a -- b –  c.txt ", "a-b-c.txt"),
        ("100% & more.txt", "100percent-and-more.txt"),
        ("cost $5 | <b>.txt", "cost-dollar5-or-lessbgreater.txt"),
        ("Ärger Straße.pdf", "Arger-Strasse.pdf"),
        ("e\u0301te\u0301.txt", "ete.txt"),
        ("Ελλάδα ψ.txt", "Ellada-ps.txt"),
        ("Щука ь.txt", "Shuka-.txt"),
        ("漢字元.txt", "yuan.txt"),
        ("a\tb\nc\u00a0d\u2003e.txt", "a-b-c-d-e.txt"),
        ("a/b\\c[d]{e}#f?.txt", "abcdef.txt"),
        ("₣100.txt", "french-franc100.txt"),
        ("😀.txt", ".txt"),
    ],
)
def test_slugify_is_what_the_package_makes_of_it(engine: sa.Engine, name: str, expected: str) -> None:
    assert slug(name) == expected
    fill(engine, "text", name)
    slugged = source(engine, "files", "path", transform="slug")
    assert used(engine, [name, expected, "other"], slugged) == {name, expected}


def test_the_collector_sanitizes_before_or_after() -> None:
    assert names_on_disk('say "hi": 5*.txt') == {'say "hi": 5*.txt', 'say-"hi":-5*.txt', "say-hi-5.txt"}
    assert {"its-a.txt", "it's-a.txt"} <= names_on_disk("it’s a.txt")
    assert {"alessb.txt", "ab.txt"} <= names_on_disk("a<b.txt")


def test_a_name_that_is_its_own_slug_is_found_by_its_key(engine: sa.Engine) -> None:
    fill(engine, "text", "report-2026.pdf", "two--dashes.pdf")
    slugged = source(engine, "files", "path", transform="slug")
    assert set(keys(engine, slugged)) == {("report-2026.pdf", None, True), (None, "two--dashes.pdf", False)}
    assert used(engine, ["report-2026.pdf", "two-dashes.pdf"], slugged) == {"report-2026.pdf", "two-dashes.pdf"}
