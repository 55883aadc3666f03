"""Every setting: its name, default and bounds, and when a change of it takes effect."""

from __future__ import annotations

import re
import runpy
import sys
import typing
from typing import TYPE_CHECKING, Any

import pytest

from housekeeping_pipelines import settings as settings_module
from housekeeping_pipelines.settings import Settings, load_settings
from housekeeping_pipelines_tests.documented.reading import DOCUMENTS, ROOT, bounds, named, table_of, text_of

if TYPE_CHECKING:
    from pathlib import Path


def test_every_setting_accepts_what_is_documented() -> None:
    rows = {named(row["variable"])[0]: row for row in table_of("docs/settings.md", "variable")}
    assert list(rows) == [name.upper() for name in Settings.model_fields]
    for name, info in Settings.model_fields.items():
        cell = rows[name.upper()]["accepted"]
        kind = typing.get_args(info.annotation) if typing.get_origin(info.annotation) is typing.Literal else ()
        if (numbers := bounds(info.metadata)) is not None:
            assert cell == numbers, name
        elif info.annotation is bool:
            assert cell == "`true`, `false`", name
        elif kind:
            assert named(cell) == list(kind), name
        elif name.endswith("_cron"):
            assert cell == "cron, five fields", name
        else:
            assert not re.search(r"\d+ (to|or) ", cell), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_number_after_a_setting_is_its_default(document: Path) -> None:
    for variable, value in re.findall(r"`([A-Z_]+)` \((\d[\d.]*)\)", " ".join(document.read_text().split())):
        assert float(value) == Settings.model_fields[variable.lower()].default, variable


# Variables that are named and are not the project's own.
OTHERS_VARIABLES = {"DAGSTER_HOME"}

# It names constants of the code.
OF_THE_CODE = {"contributing.md"}


@pytest.mark.parametrize(
    "file",
    [
        *(document for document in DOCUMENTS if document.name not in OF_THE_CODE),
        *(ROOT / ".env.example", ROOT / "dagster.yaml"),
        *sorted((ROOT / "docs/examples").iterdir()),
    ],
    ids=lambda path: path.name,
)
def test_every_variable_that_is_named_exists(file: Path) -> None:
    found = set(re.findall(r"(?<![\w.$])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![\w:])", file.read_text(encoding="utf-8")))
    assert found - {name.upper() for name in Settings.model_fields} - OTHERS_VARIABLES == set()


def test_the_example_of_a_settings_file_is_accepted_and_has_the_defaults(tmp_path: Path) -> None:
    lines = re.findall(r"^# ([A-Z_]+=.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    (tmp_path / ".env").write_text("\n".join(lines), encoding="utf-8")
    given = load_settings(tmp_path, environ={})
    assert {line.split("=")[0] for line in lines} == {name.upper() for name in Settings.model_fields}
    for name, info in Settings.model_fields.items():
        if isinstance(info.default, int | float) or name.endswith("_cron"):
            assert getattr(given, name) == info.default, name


def test_what_shapes_the_definitions_is_documented(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is read when the code location is loaded is read again only when it is loaded again."""
    read: set[str] = set()

    class Recorded(Settings):
        def __getattribute__(self, name: str) -> Any:
            if name in Settings.model_fields:
                read.add(name)
            return super().__getattribute__(name)

    real = load_settings(tmp_path, environ={})
    recorded = Recorded.model_construct(**{name: getattr(real, name) for name in Settings.model_fields})
    read.clear()
    monkeypatch.setattr(settings_module, "load_settings", lambda *_, **__: recorded)
    monkeypatch.delitem(sys.modules, "housekeeping_pipelines.definitions", raising=False)
    runpy.run_module("housekeeping_pipelines.definitions")
    said = re.search(r"\*\*When a change takes effect\.\*\* (.*?) shape the definitions", text_of("docs/settings.md"))
    assert said
    assert "the cron expressions" in said[1]
    crons = {name.upper() for name in Settings.model_fields if name.endswith("_cron")}
    assert {*named(said[1]), *crons} == {name.upper() for name in read}
