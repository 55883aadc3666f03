"""A file that is replaced is the old one or the new one, whole, and nothing is left beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.atomic_files import drafted, replace_file, replace_with_link

if TYPE_CHECKING:
    from pathlib import Path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_draft_is_beside_the_file_until_it_is_put_in_place(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    file.chmod(0o640)
    with drafted(file, b"new") as put_in_place:
        assert (file.read_text(), len(names(tmp_path))) == ("old", 2)
        put_in_place()
        assert file.read_text() == "new"
    assert (names(tmp_path), file.stat().st_mode & 0o777) == (["a.txt"], 0o640)


def test_a_draft_that_is_not_put_in_place_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError), drafted(file, b"new"):
        raise RuntimeError("given up")
    assert (names(tmp_path), file.read_text()) == (["a.txt"], "old")


def test_a_named_draft_replaces_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / ".a.part").write_text("half of a te")
    with drafted(tmp_path / "a.txt", b"new", draft=".a.part") as put_in_place:
        put_in_place()
    assert (names(tmp_path), (tmp_path / "a.txt").read_text()) == (["a.txt"], "new")


def test_a_file_may_be_named_by_an_open_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "a.txt").chmod(0o600)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        replace_file("a.txt", b"new", folder=folder, keep_mode=False)
    finally:
        os.close(folder)
    assert (tmp_path / "a.txt").read_text() == "new"
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 != 0o600
    assert names(tmp_path) == ["a.txt"]


def test_what_cannot_be_replaced_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError):
        replace_file(tmp_path / "folder", b"new")
    with pytest.raises(OSError):
        replace_with_link(tmp_path / "folder", tmp_path / "elsewhere")
    assert names(tmp_path) == ["folder"]


def test_a_link_takes_the_place_of_a_file_or_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("there")
    (tmp_path / "a.txt").write_text("old")
    for name in ("a.txt", "b.txt"):
        replace_with_link(tmp_path / name, tmp_path / "target")
        assert (tmp_path / name).read_text() == "there"
    assert names(tmp_path) == ["a.txt", "b.txt", "target"]
