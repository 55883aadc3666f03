"""The text on disk is the old one or the new one, whole, and never outside of its folder."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.watched_documents.texts import TextFileError, Texts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "documents"
    (made / "custom").mkdir(parents=True)
    (made / "custom" / "a.json").write_text(json.dumps({"pageContent": "old", "author": "A. Writer"}))
    return made


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_draft_is_beside_the_text_until_it_takes_its_place(folder: Path) -> None:
    texts = Texts(folder)
    (folder / "custom" / "a.json").chmod(0o640)
    with texts.draft("custom/a.json", "new – «text»", {"published": "today"}) as put_in_place:
        assert texts.read("custom/a.json") == "old"
        put_in_place()
        assert texts.read("custom/a.json") == "new – «text»"
    document = json.loads((folder / "custom" / "a.json").read_text())
    assert document == {"pageContent": "new – «text»", "author": "A. Writer", "published": "today"}
    assert (folder / "custom" / "a.json").stat().st_mode & 0o777 == 0o640
    assert files(folder) == ["custom/a.json"]


def test_a_draft_that_is_given_up_leaves_nothing(folder: Path) -> None:
    with pytest.raises(RuntimeError), Texts(folder).draft("custom/a.json", "new", {}):
        raise RuntimeError("the switch failed")
    assert Texts(folder).read("custom/a.json") == "old"
    assert files(folder) == ["custom/a.json"]


def test_what_a_killed_run_left_is_written_over(folder: Path) -> None:
    (folder / "custom" / ".a.json.part").write_text("half of a te")
    with Texts(folder).draft("custom/a.json", "new", {}) as put_in_place:
        put_in_place()
    assert Texts(folder).read("custom/a.json") == "new"
    assert files(folder) == ["custom/a.json"]


def test_a_folder_that_is_not_there_is_made(folder: Path) -> None:
    with Texts(folder).draft("far/away/b.json", "new", {}) as put_in_place:
        put_in_place()
    assert Texts(folder).read("far/away/b.json") == "new"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pageContent": 7}', "\xff"])
def test_a_file_that_is_no_document_has_no_text_and_is_replaced(folder: Path, content: str) -> None:
    (folder / "custom" / "a.json").write_bytes(content.encode("latin-1"))
    texts = Texts(folder)
    with suppress(TextFileError):
        assert texts.read("custom/a.json") is None
    with texts.draft("custom/a.json", "new", {}) as put_in_place:
        put_in_place()
    assert texts.read("custom/a.json") == "new"


@pytest.mark.parametrize(
    "docpath",
    [
        "../outside.json",
        "/etc/passwd",
        "custom/../../outside.json",
        "",
        ".",
        "a\0b",
        "link/b.json",
        "pointer.json",
        "custom/..",
    ],
)
def test_no_path_leads_out_of_the_folder(folder: Path, docpath: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "link").symlink_to(elsewhere)
    (elsewhere / "secret.json").write_text(json.dumps({"pageContent": "secret"}))
    (folder / "pointer.json").symlink_to(elsewhere / "secret.json")
    texts = Texts(folder)
    with pytest.raises(TextFileError, match="is not a path below DOCUMENTS_PATH"):
        texts.read(docpath)
    with pytest.raises(TextFileError), texts.draft(docpath, "new", {}):
        raise AssertionError("it was written")
    assert os.listdir(elsewhere) == ["secret.json"]  # noqa: PTH208 - the names alone
