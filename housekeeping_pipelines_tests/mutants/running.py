"""Change one line of a copy of the project, and run the tests that should notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "housekeeping_pipelines"
TESTS = "housekeeping_pipelines_tests"

# pytest's exit code for tests that ran and failed; any other says that they did not run.
TESTS_FAILED = 1


@dataclass(frozen=True)
class Mutant:
    """One decision of the engine, and its opposite.

    Attributes:
        keeps: what the decision keeps, in a few words.
        file: below the package.
        code: stands in the file exactly once.
        becomes: what deletes instead.
        tests: below the tests, with `-k` expressions if need be: `orphans/test_cleanup.py -k held`.
    """

    keeps: str
    file: str
    code: str
    becomes: str
    tests: str


def occurrences(mutant: Mutant) -> int:
    """How often its code stands in its file; anything but 1 means that the mutant is out of date."""
    return (ROOT / PACKAGE / mutant.file).read_text(encoding="utf-8").count(mutant.code)


def copy_project(to: Path) -> None:
    """What the tests need, without what they leave behind."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in (PACKAGE, TESTS, "docs"):
        shutil.copytree(ROOT / name, to / name, ignore=ignored)
    for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml", "housekeeping.yaml", "README.md"):
        shutil.copy(ROOT / name, to / name)


def is_caught(mutant: Mutant, copy: Path) -> bool:
    """Whether its tests fail on a copy of the project with the decision turned round.

    Raises:
        RuntimeError: the tests did not run.
    """
    file = copy / PACKAGE / mutant.file
    original = file.read_text(encoding="utf-8")
    file.write_text(original.replace(mutant.code, mutant.becomes), encoding="utf-8")
    try:
        done = run_tests(mutant.tests, copy)
    finally:
        file.write_text(original, encoding="utf-8")
    if done.returncode not in (0, TESTS_FAILED):
        raise RuntimeError(f"the tests of {mutant.keeps!r} did not run: {done.stdout[-2000:]}")
    return done.returncode == TESTS_FAILED


def run_tests(tests: str, copy: Path) -> subprocess.CompletedProcess[str]:
    """Those of a copy, until the first that fails."""
    path, *options = tests.split(" ", 2)
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:xdist", str(Path(TESTS, path)), *options]
    # The copy comes before the project that is installed.
    environ = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environ, capture_output=True, text=True, check=False)
