"""The wheel works outside of the checkout, and Dagster's newer command inside of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.specifiers import SpecifierSet

from housekeeping_pipelines import migrations

if TYPE_CHECKING:
    from housekeeping_pipelines_tests.support import Installation

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, in a folder of its own."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = target.glob("*.whl")
    site = target / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_a_wheel_carries_what_it_needs_and_no_tests(unpacked: Path) -> None:
    package = unpacked / "housekeeping_pipelines"
    for name in ("py.typed", "dagster.yaml", "workspace.yaml", "migrations/versions/0002_files.py"):
        assert (package / name).is_file(), name
    assert not (unpacked / "housekeeping_pipelines_tests").exists()
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    assert "License-Expression: Apache-2.0" in metadata.read_text()


def test_an_installed_wheel_works_outside_of_the_checkout(unpacked: Path, installation: Installation) -> None:
    command = ("-c", "from housekeeping_pipelines.cli import main; main()")
    done = installation.python(*command, "init", PYTHONPATH=str(unpacked))
    assert done.returncode == 0, done.stderr
    home = installation.directory / ".housekeeping" / "dagster"
    assert not (home / "dagster.yaml").is_symlink()
    where = "import housekeeping_pipelines; print(housekeeping_pipelines.__file__)"
    assert installation.python("-c", where, PYTHONPATH=str(unpacked)).stdout.startswith(str(unpacked))
    migrated = installation.python(*command, "migrate", "--json", PYTHONPATH=str(unpacked))
    assert json.loads(migrated.stdout)["version"] == migrations.HEAD
    listed = installation.python("-m", "dagster", "run", "list", PYTHONPATH=str(unpacked))
    assert listed.returncode == 0, listed.stderr


def test_every_pinned_version_takes_the_oldest_python_that_is_promised() -> None:
    pinned = {line.split("==")[0] for line in (CHECKOUT / "constraints.txt").read_text().splitlines()}
    refusing = [
        f"{name} {distribution.version}"
        for name in sorted(pinned)
        for distribution in distributions(name=name)
        if "3.11.0" not in SpecifierSet(distribution.metadata["Requires-Python"] or "")
    ]
    assert refusing == []


def test_dg_loads_the_project_from_its_root() -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "COLUMNS": "200"}
    dg = Path(sys.executable).with_name("dg")
    for arguments in (["check", "defs"], ["list", "defs"]):
        done = subprocess.run([dg, *arguments], cwd=CHECKOUT, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "daily_housekeeping_job" in done.stdout


def test_the_newest_migration_is_the_known_one() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory.from_config(migrations.alembic_config()).get_heads() == [migrations.HEAD]


def test_versions_are_pinned_without_any_address() -> None:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)] == []
