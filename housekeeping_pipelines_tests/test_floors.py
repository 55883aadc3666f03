"""The floors of the packages: what the documents say of them is what import-linter checks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from docs import generate

ROOT = Path(__file__).resolve().parents[1]


def test_what_the_documents_take_from_the_code_is_what_it_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_package_of_the_floors_is_described_from_the_top() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    section = text.partition("## Floors")[2].partition("\n## ")[0]
    described = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert described == [name for row in generate.floors() for name in row]


def test_every_package_has_its_place_on_the_floors() -> None:
    package = ROOT / "housekeeping_pipelines"
    found = {path.parent.name for path in package.glob("*/__init__.py")} | {path.stem for path in package.glob("*.py")}
    assert found - {"__init__"} == {name for row in generate.floors() for name in row}
