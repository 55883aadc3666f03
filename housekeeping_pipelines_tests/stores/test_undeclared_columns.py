"""Columns that name files of a store are found, whatever they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.stores.undeclared_columns import text_columns, undeclared_columns
from housekeeping_pipelines.stores.uses import PlatformUses
from housekeeping_pipelines_tests.deletion.support import sql

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import sqlalchemy as sa

STORED = {f"cam/{number}.jpg" for number in range(10)}


def find(engine: sa.Engine, folder: Path, *declared: str) -> list[str]:
    def stored(names: Collection[str]) -> set[str]:
        return STORED & set(names)

    with engine.connect() as connection:
        uses = PlatformUses("media", HousekeepingConfig(), folder)
        columns = text_columns(connection, Catalog(connection))
        found = undeclared_columns(connection, columns, uses, declared, stored)
    return [f"{each.table}.{each.column}: {each.named} of {each.sampled}" for each in found]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", "'cam/' || i || '.jpg'"),
        ("varchar(99)", "'/app/media/cam/' || i || '.jpg'"),
        ("text[]", "ARRAY['cam/' || i || '.jpg', 'cam/x.jpg']"),
        ("jsonb", "jsonb_build_object('files', jsonb_build_array('cam/' || i || '.jpg'))"),
        ("text", "'https://example.org/storage/media/cam/' || i || '.jpg?token=x'"),
    ],
)
def test_a_column_of_names(engine: sa.Engine, tmp_path: Path, kind: str, value: str) -> None:
    sql(
        engine,
        f"CREATE TABLE shots (id int PRIMARY KEY, word text, number int, shot {kind})",
        f"INSERT INTO shots SELECT i, 'a word', i, {value} FROM generate_series(0, 9) i",
    )
    (found,) = find(engine, tmp_path / "media")
    assert found.startswith("shots.shot: ")
    assert find(engine, tmp_path / "media", "shots.shot") == []


def test_words_other_names_and_empty_columns(engine: sa.Engine, tmp_path: Path) -> None:
    sql(
        engine,
        "CREATE TABLE shots (id int PRIMARY KEY, a text, b text, c text, d text)",
        "INSERT INTO shots SELECT i, 'see cam/1.jpg, ' || repeat('text ', 300), 'other/' || i || '.jpg', NULL, '0'"
        " FROM generate_series(0, 9) i",
    )
    assert find(engine, tmp_path / "media") == []


def test_a_few_names_among_many_others(engine: sa.Engine, tmp_path: Path) -> None:
    sql(
        engine,
        "CREATE TABLE links (id int PRIMARY KEY, link text)",
        "INSERT INTO links SELECT i, CASE WHEN i < 8 THEN 'cam/' || i || '.jpg' ELSE 'http://x.org/' || i END"
        " FROM generate_series(0, 19) i",
    )
    assert find(engine, tmp_path / "media") == ["links.link: 8 of 20"]
    sql(engine, "UPDATE links SET link = 'http://y.org/' || id WHERE id > 1")
    assert find(engine, tmp_path / "media") == []


def test_more_columns_than_fit_into_one_query(engine: sa.Engine, tmp_path: Path) -> None:
    columns = ", ".join(f"c{number} text" for number in range(120))
    sql(
        engine,
        f"CREATE TABLE wide (id int PRIMARY KEY, {columns})",
        "INSERT INTO wide (id, c7, c119) VALUES (1, 'cam/1.jpg', 'cam/2.jpg')",
    )
    assert find(engine, tmp_path / "media") == ["wide.c7: 1 of 1", "wide.c119: 1 of 1"]


def test_a_table_that_may_not_be_read_is_left_out(engine: sa.Engine, tmp_path: Path) -> None:
    from housekeeping_pipelines.postgres.engine import make_engine

    name = f"reader_{engine.url.database}"
    sql(
        engine,
        "CREATE TABLE shots (id int PRIMARY KEY, shot text)",
        "INSERT INTO shots VALUES (1, 'cam/1.jpg')",
        f"CREATE ROLE {name} LOGIN",
    )
    reader = make_engine(engine.url.set(username=name))
    try:
        assert find(reader, tmp_path / "media") == []
        sql(engine, f"GRANT SELECT ON shots TO {name}", "ALTER TABLE shots ENABLE ROW LEVEL SECURITY")
        assert find(reader, tmp_path / "media") == []
        sql(engine, "ALTER TABLE shots DISABLE ROW LEVEL SECURITY")
        assert find(reader, tmp_path / "media") == ["shots.shot: 1 of 1"]
    finally:
        reader.dispose()
        sql(engine, f"DROP OWNED BY {name}", f"DROP ROLE {name}")
