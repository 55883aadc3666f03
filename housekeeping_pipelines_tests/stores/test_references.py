"""What a row's value makes of a file's name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.stores.references import (
    ReferenceSource,
    Transform,
    exact,
    join_to_root,
    reference_keys,
    slugify,
)
from housekeeping_pipelines_tests.deletion.support import sql
from housekeeping_pipelines_tests.orphans.support import source


def keys(engine: sa.Engine, transform: Transform, *values: str | None, **more: object) -> set[str | None]:
    sql(engine, "DROP TABLE IF EXISTS files", "CREATE TABLE files (path text)")
    with engine.begin() as connection:
        table = sa.table("files", sa.column("path"))
        connection.execute(sa.insert(table), [{"path": value} for value in values])
    return read(engine, source(engine, "files", "path", transform=transform, **more))


def read(engine: sa.Engine, *sources: ReferenceSource) -> set[str | None]:
    with engine.connect() as connection:
        return set(connection.scalars(reference_keys(sources))) - {None}


def test_nothing_names_nothing(engine: sa.Engine) -> None:
    for transform in (exact, slugify, join_to_root(Path("/m"))):
        assert keys(engine, transform, None, "") == set()


def test_without_a_source_nothing_is_known() -> None:
    with pytest.raises(ValueError, match="no reference source"):
        reference_keys([])


# What slugify 1.6.9 answered.
@pytest.mark.parametrize(
    ("name", "slug"),
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
def test_slugify_is_what_the_package_makes_of_it(engine: sa.Engine, name: str, slug: str) -> None:
    assert {name, slug} <= keys(engine, slugify, name)


def test_slugify_also_yields_what_the_collector_sanitizes(engine: sa.Engine) -> None:
    assert {'say "hi": 5*.txt', 'say-"hi":-5*.txt', "say-hi-5.txt"} <= keys(engine, slugify, 'say "hi": 5*.txt')
    assert {"its-a.txt", "it's-a.txt"} <= keys(engine, slugify, "it’s a.txt")
    assert {"alessb.txt", "ab.txt"} <= keys(engine, slugify, "a<b.txt")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("./a//b.jpg", "a/b.jpg"),
        ("a/../b.jpg", "b.jpg"),
        ("a/b/../../c/./d.jpg", "c/d.jpg"),
        ("/srv/media/a.jpg", "a.jpg"),
        ("/srv//media/./x/../a.jpg", "a.jpg"),
        ("/srv/media/../media/a.jpg", "a.jpg"),
        ("../media/a.jpg", "a.jpg"),
        ("a/.hidden/b...jpg", "a/.hidden/b...jpg"),
        ("100%_\\.jpg", "100%_\\.jpg"),
        ("../a.jpg", None),
        ("a/../../media2/a.jpg", None),
        ("/srv/media2/a.jpg", None),
        ("/srv/media/../a.jpg", None),
        ("/etc/passwd", None),
        ("/../../srv/media/a.jpg", "a.jpg"),
        ("/srv/media", None),
        (".", None),
        ("..", None),
    ],
)
def test_join_to_root(engine: sa.Engine, path: str, key: str | None) -> None:
    assert keys(engine, join_to_root(Path("/srv/media")), path) == ({key} if key else set())


def test_join_to_root_accepts_the_real_path_of_a_linked_root(engine: sa.Engine, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "media"
    link.symlink_to(tmp_path / "disk")
    real = os.path.realpath(link)
    found = keys(engine, join_to_root(link), f"{link}/a.jpg", f"{real}/b.jpg", "c.jpg", "../disk/d.jpg", f"{real}/../e")
    assert found == {"a.jpg", "b.jpg", "c.jpg", "d.jpg"}
