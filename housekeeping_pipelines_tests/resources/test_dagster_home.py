"""DAGSTER_HOME and the one line of `.env` that names it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dotenv import dotenv_values

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.resources.dagster_home import dagster_home, write_env_file
from housekeeping_pipelines.settings import Settings, load_settings
from housekeeping_pipelines_tests.support import Installation, make_platform

if TYPE_CHECKING:
    import sqlalchemy as sa


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(tmp_path, {})


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package that carries its own dagster.yaml."""
    package = tmp_path / "site-packages" / "housekeeping_pipelines"
    package.mkdir(parents=True)
    (package / "dagster.yaml").write_text("nux: {enabled: false}\n")
    return package


class TestDagsterHome:
    def test_checkout_is_linked_so_that_edits_count(self, settings: Settings) -> None:
        home = dagster_home(settings)
        assert home == settings.housekeeping_home / "dagster"
        checkout = Path(__file__).parents[2] / "dagster.yaml"
        assert (home / "dagster.yaml").is_symlink()
        assert (home / "dagster.yaml").samefile(checkout)
        assert dagster_home(settings) == home
        assert [path.name for path in home.iterdir()] == ["dagster.yaml"]

    def test_checkout_that_moved_is_linked_anew(self, settings: Settings, tmp_path: Path) -> None:
        file = dagster_home(settings) / "dagster.yaml"
        file.unlink()
        file.symlink_to(tmp_path / "moved" / "dagster.yaml")
        dagster_home(settings)
        assert file.exists()

    def test_wheel_is_copied_and_upgraded(self, settings: Settings, wheel: Path) -> None:
        file = dagster_home(settings, wheel) / "dagster.yaml"
        assert file.read_text().endswith("nux: {enabled: false}\n")
        (wheel / "dagster.yaml").write_text("nux: {enabled: true}\n")
        dagster_home(settings, wheel)
        assert file.read_text().endswith("nux: {enabled: true}\n")

    def test_what_somebody_edited_or_linked_stays(self, settings: Settings, wheel: Path, tmp_path: Path) -> None:
        file = dagster_home(settings, wheel) / "dagster.yaml"
        edited = file.read_text() + "# mine\n"
        file.write_text(edited)
        (wheel / "dagster.yaml").write_text("nux: {enabled: true}\n")
        dagster_home(settings, wheel)
        dagster_home(settings)
        assert file.read_text() == edited
        file.unlink()
        (tmp_path / "mine.yaml").write_text("nux: {}\n")
        file.symlink_to(tmp_path / "mine.yaml")
        dagster_home(settings, wheel)
        dagster_home(settings)
        assert file.readlink() == tmp_path / "mine.yaml"

    def test_home_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / ".housekeeping").touch()
        with pytest.raises(ConfigurationError, match="Not a directory"):
            dagster_home(load_settings(tmp_path, {}))


class TestEnvFile:
    def test_new_file_is_read_back_as_it_was_meant(self, tmp_path: Path) -> None:
        home = tmp_path / "it's a\\b é$x #1"
        home.mkdir()
        assert write_env_file(tmp_path, home) == home
        assert dotenv_values(tmp_path / ".env") == {"DAGSTER_HOME": str(home)}
        assert sorted(path.name for path in tmp_path.iterdir()) == [".env", home.name]

    @pytest.mark.parametrize(
        "others",
        [
            b"",
            b"A=1",
            b"A=1\r\n# DAGSTER_HOME=/no\r\n\r\nB='two\nDAGSTER_HOME=/lines'\n",
            b"\xef\xbb\xbfA=1\n",
            b"# caf\xe9 \xff\nA=\xc3\xa0\n",
        ],
    )
    def test_other_lines_stay_byte_for_byte(self, tmp_path: Path, others: bytes) -> None:
        file = tmp_path / ".env"
        file.write_bytes(others)
        file.chmod(0o600)
        home = (tmp_path / "home").absolute()
        write_env_file(tmp_path, home)
        line = f"DAGSTER_HOME='{home}'\n".encode()
        assert file.read_bytes() in (others + line, others + b"\n" + line)
        assert file.stat().st_mode & 0o777 == 0o600

    def test_line_whose_folder_is_gone_is_replaced_in_its_place(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        home = tmp_path / "home"
        file.write_bytes(b"A=1\n\nexport DAGSTER_HOME = '/no/such/folder' # old\r\nB=DAGSTER_HOME='/no/such/folder'\n")
        assert write_env_file(tmp_path, home) == home
        assert file.read_bytes() == (f"A=1\n\nDAGSTER_HOME='{home}'\r\nB=DAGSTER_HOME='/no/such/folder'\n".encode())

    def test_line_of_the_user_stays(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        theirs = tmp_path / "theirs à"
        theirs.mkdir()
        file.write_text(f"DAGSTER_HOME=/no/such/folder\nDAGSTER_HOME={theirs}\n", encoding="utf-8")
        before = file.stat()
        assert write_env_file(tmp_path, tmp_path / "ours") == theirs
        assert file.stat().st_ino == before.st_ino

    def test_link_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real").write_text("A=1\n")
        (tmp_path / ".env").symlink_to("real")
        write_env_file(tmp_path, tmp_path)
        assert (tmp_path / ".env").is_symlink()
        assert (tmp_path / "real").read_text().startswith("A=1\nDAGSTER_HOME=")


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_what_is_executed_is_closed_to_other_accounts_under_any_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        home = dagster_home(load_settings(tmp_path, {}))
    finally:
        os.umask(before)
    for path in (home.parent, home, home / "dagster.yaml"):
        assert not path.stat().st_mode & 0o022, path
    # What an earlier version left open is not used.
    home.chmod(0o777)
    with pytest.raises(ConfigurationError, match="any account may write") as caught:
        dagster_home(load_settings(tmp_path, {}))
    assert caught.value.hint == f"chmod o-w {home}"


def test_a_run_leaves_nothing_in_dagsters_home(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    installation.json("run", "delete_old_conversations")
    home = installation.directory / ".housekeeping" / "dagster"
    assert [path.name for path in home.rglob("*")] == ["dagster.yaml"]
