"""What the documents say, and the constants of the code by their names."""

from __future__ import annotations

import ast
import importlib
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import annotated_types

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "housekeeping_pipelines"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# The folder of an installation that is described and never used.
NOWHERE = Path(tempfile.gettempdir(), "housekeeping-documented")

NUMBER_WORDS = {"half": 0.5, "half a": 0.5, "a": 1, "an": 1, "two": 2, "three": 3, "four": 4, "five": 5}


def text_of(document: str) -> str:
    """A document as one line, so that a phrase is found wherever it is wrapped."""
    return " ".join((ROOT / document).read_text(encoding="utf-8").split())


def table_of(document: str, *header: str) -> list[dict[str, str]]:
    """The rows of the one table whose header begins so, by the names of their columns."""
    found = []
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("| ") or not lines[number + 1].startswith("|---"):
            continue
        names = _cells(line)
        if tuple(names[: len(header)]) != header:
            continue
        rows = []
        for row in lines[number + 2 :]:
            if not row.startswith("|"):
                break
            rows.append(dict(zip(names, _cells(row), strict=True)))
        found.append(rows)
    (rows,) = found
    return rows


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def named(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


@cache
def constant(name: str, package: str = "") -> Any:
    """A constant of the project, whichever module it is in; `package` where several have the name."""
    found = []
    for path in sorted((PACKAGE / package).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(each.id == name for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)):
                found.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    (module,) = found
    return getattr(importlib.import_module(module), name)


def bounds(metadata: Iterable[Any]) -> str | None:
    """The numbers that a field accepts, as the documents say it; None where none is bounded."""
    given = list(metadata)
    least = next((each.ge for each in given if isinstance(each, annotated_types.Ge)), None)
    above = next((each.gt for each in given if isinstance(each, annotated_types.Gt)), None)
    most = next((each.le for each in given if isinstance(each, annotated_types.Le)), None)
    if least is not None:
        return f"{least} or more" if most is None else f"{least} to {most}"
    if above is not None:
        return f"more than {above}" if most is None else f"more than {above}, up to {most}"
    assert most is None
    return None
