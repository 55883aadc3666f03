from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.settings import OVERRIDES_VARIABLE, Settings, installation_folder, load_settings, reveal
from housekeeping_pipelines_tests.mounts import needs_root

if TYPE_CHECKING:
    from pathlib import Path


def line(settings: Settings, variable: str) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    found = next(line for line in settings.lines if line.variable == variable)
    return found.value, found.origin, found.shadows


def test_everything_has_a_working_default(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {})
    assert settings.database_url is None
    assert settings.housekeeping_home == tmp_path / ".housekeeping"
    assert settings.trash_retention_days == 7
    assert {line.origin for line in settings.lines} == {"default"}
    assert all(line.description for line in settings.lines)


def test_a_line_of_dotenv_outranks_an_exported_variable_and_says_so(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TRASH_RETENTION_DAYS=3\n")
    settings = load_settings(tmp_path, {"TRASH_RETENTION_DAYS": "9", "TIME_ZONE": "Europe/Paris"})
    assert settings.trash_retention_days == 3
    assert line(settings, "TRASH_RETENTION_DAYS") == ("3", ".env", (("environment", "9"),))
    assert line(settings, "TIME_ZONE") == ("Europe/Paris", "environment", ())


def test_an_empty_line_of_dotenv_hides_the_exported_variable_as_in_dagster(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DRY_RUN=\n")
    settings = load_settings(tmp_path, {"DRY_RUN": "true"})
    assert settings.dry_run is False
    assert line(settings, "DRY_RUN") == ("false", "default", (("environment", "true"),))


@pytest.mark.parametrize(
    "marker", [".housekeeping/", "housekeeping.yaml", ".env: export DATABASE_URL=postgresql://a/b", ".env: DRY_RUN=1"]
)
def test_an_installation_is_found_from_the_folders_below_it(tmp_path: Path, marker: str) -> None:
    below = tmp_path / "shop" / "a" / "b"
    below.mkdir(parents=True)
    name, _, content = marker.partition(": ")
    if name.endswith("/"):
        (tmp_path / "shop" / name).mkdir()
    else:
        (tmp_path / "shop" / name).write_text(f"# first\n{content}\n")
    # That of another program is passed over.
    (below / ".env").write_text("SECRET=1\nMY_DRY_RUN=2\n")
    assert installation_folder(below) == tmp_path / "shop"
    assert installation_folder(tmp_path) == tmp_path


@needs_root
def test_what_another_user_put_into_a_folder_above_is_no_installation(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql://theirs/d\n")
    assert installation_folder(tmp_path / "below") == tmp_path
    os.chown(tmp_path / ".env", 1234, 1234)
    assert installation_folder(tmp_path / "below") == tmp_path / "below"


def test_the_nearest_installation_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".housekeeping").mkdir()
    (tmp_path / "inner" / ".housekeeping").mkdir(parents=True)
    (tmp_path / "inner" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "inner" / "below")
    settings = load_settings(environ={})
    assert (settings.directory, settings.housekeeping_home) == (tmp_path / "inner", tmp_path / "inner/.housekeeping")


def test_what_stops_or_keeps_something_travels_with_a_run_that_is_queued(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {}).travelling == {}
    # What does not stop anything undoes no stop elsewhere, and an address is that of who does the run.
    free = {"DRY_RUN": "false", "STORAGE_CLEANUP_ENABLED": "true", "DATABASE_URL": "postgresql://h/d"}
    assert load_settings(tmp_path, free).travelling == {}
    given = {
        "DRY_RUN": "true", "HOUSEKEEPING_PAUSED": "1", "STORAGE_CLEANUP_ENABLED": "no", "TRASH_RETENTION_DAYS": "0",
        "CONVERSATION_RETENTION_DAYS": "90", "STORAGE_TRASH_PREFIX": "", "TRUST_MTIME": "false",
    }  # fmt: skip
    sent = load_settings(tmp_path, given).travelling
    assert sent == {
        "DRY_RUN": "true", "HOUSEKEEPING_PAUSED": "true", "STORAGE_CLEANUP_ENABLED": "false",
        "TRASH_RETENTION_DAYS": "0", "CONVERSATION_RETENTION_DAYS": "90", "STORAGE_TRASH_PREFIX": "",
        "TRUST_MTIME": "false",
    }  # fmt: skip
    (tmp_path / ".env").write_text("CONVERSATION_RETENTION_DAYS=1\nDRY_RUN=false\n")
    there = load_settings(tmp_path, {}, overrides=sent)
    assert (there.dry_run, there.housekeeping_paused, there.storage_cleanup_enabled) == (True, True, False)
    assert (there.conversation_retention_days, there.trash_retention_days) == (90, 0)
    assert there.travelling == sent


def test_what_the_command_line_sets_outranks_both(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DAILY_HOUSEKEEPING_CRON=1 1 * * *\n")
    environ = {OVERRIDES_VARIABLE: '{"DAILY_HOUSEKEEPING_CRON": "2 2 * * *"}', "DAILY_HOUSEKEEPING_CRON": "3 3 * * *"}
    settings = load_settings(tmp_path, environ)
    assert line(settings, "DAILY_HOUSEKEEPING_CRON") == (
        "2 2 * * *",
        "command line",
        ((".env", "1 1 * * *"), ("environment", "3 3 * * *")),
    )


@pytest.mark.parametrize(
    ("variable", "value", "accepted"),
    [
        ("TIME_ZONE", "Middle/Earth", "IANA time zone"),
        ("TIME_ZONE", "../../etc/passwd", "IANA time zone"),
        ("DRY_RUN", "perhaps", "true or false"),
        ("TRASH_RETENTION_DAYS", "-1", "greater than or equal to 0"),
        ("CONVERSATION_RETENTION_DAYS", "0", "greater than or equal to 1"),
        ("CONVERSATION_RETENTION_DAYS", "soon", "a whole number"),
        ("UNVERIFIED_USER_RETENTION_DAYS", "99999999", "less than or equal to 36500"),
        ("DAILY_HOUSEKEEPING_CRON", "every night", "five fields"),
        ("DAILY_HOUSEKEEPING_CRON", "0 2 * * * *", "five fields"),
        ("DAILY_HOUSEKEEPING_CRON", "61 2 * * *", "five fields"),
        ("LOG_LEVEL", "loud", "'DEBUG'"),
        ("DATABASE_URL", "mysql://localhost/x", "postgresql://"),
        ("DATABASE_URL", "postgresql://localhost", "postgresql://"),
        ("DAGSTER_PG_URL", "nonsense", "postgresql://"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_accepted(tmp_path: Path, variable: str, value: str, accepted: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(tmp_path, {variable: value})
    assert caught.value.message.startswith(f"{variable} is ")
    assert accepted in caught.value.message
    assert caught.value.hint == f"check {variable}, which comes from the environment"
    if not variable.endswith("_URL"):
        assert value in caught.value.message.lower() or value in caught.value.message


@pytest.mark.parametrize(
    "url",
    ["postgres://anna:s3cr3t@db/x", "postgresql://db/x?password=s3cr3t", "postgresql+psycopg2://anna:s3cr3t@db/x"],
)
def test_a_password_is_never_shown(tmp_path: Path, url: str) -> None:
    settings = load_settings(tmp_path, {"DATABASE_URL": url})
    assert settings.database_url is not None
    assert settings.database_url.drivername == "postgresql"
    assert "s3cr3t" not in repr(settings.lines)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(tmp_path, {"DATABASE_URL": "mysql://anna:s3cr3t@db/x"})
    assert "s3cr3t" not in str(caught.value.to_dict())


def test_a_secret_is_shown_nowhere_and_handed_to_its_client_whole(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GITHUB_TOKEN=s3cr3t\n")
    settings = load_settings(tmp_path, {"GITHUB_TOKEN": "s3cr3t too"})
    assert line(settings, "GITHUB_TOKEN") == ("***", ".env", (("environment", "***"),))
    assert "s3cr3t" not in repr(settings)
    assert reveal(settings.github_token) == "s3cr3t"
    assert reveal(settings.gitlab_token) is None
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secret == {name for name in Settings.model_fields if name.endswith(("_key", "_token"))}


def test_the_example_names_every_setting() -> None:
    from pathlib import Path

    text = (Path(__file__).parents[1] / ".env.example").read_text()
    missing = [name for name in Settings.model_fields if f"# {name.upper()}=" not in text]
    assert missing == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("DATABASE_URL=postgresql://u@h/t\n".encode("utf-16"), ".env is not UTF-8"),
        (b"TIME_ZONE=UTC\n# caf\xe9\n", ".env is not UTF-8"),
        (b"TIME_ZONE=UTC\nDATABASE_URL: postgresql://u:secret@h/t\n", ".env, line 2 does not set a variable"),
        (b"DATABASE_URL postgresql://u:secret@h/t\n", ".env, line 1 does not set a variable"),
        (b'TIME_ZONE="UTC\n', ".env, line 1 does not set a variable"),
    ],
)
def test_a_line_of_env_that_is_not_understood_is_an_error(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(tmp_path, {})
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


def test_env_takes_what_python_dotenv_takes(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(
        b"\xef\xbb\xbfexport TIME_ZONE='Europe/Berlin'\r\n\r\n# a comment\r\nLOG_LEVEL=DEBUG # so\r\nDRY_RUN = true\r\n"
    )
    settings = load_settings(tmp_path, {})
    assert (str(settings.time_zone), settings.log_level, settings.dry_run) == ("Europe/Berlin", "DEBUG", True)
