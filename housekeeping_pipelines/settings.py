"""Every environment variable, typed and documented, read once.

A line in `.env` outranks an exported variable, as in Dagster's own commands, so that a task behaves the same
however it is started. An empty value means the default. An option of the command line reaches the processes
that the command starts through `HOUSEKEEPING_OVERRIDES` (JSON), which outranks both.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from housekeeping_pipelines.address_forms import read_address
from housekeeping_pipelines.env_file import read_env_file
from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

# For these an empty value has a meaning of its own.
_EMPTY_ALLOWED = frozenset({"storage_trash_prefix"})

OVERRIDES_VARIABLE = "HOUSEKEEPING_OVERRIDES"

# What says which data goes and for how long it can come back: where it is set, it holds for the runs that are queued,
# too, whichever process does them.
_TRAVELLING = (
    "trash_retention_days", "storage_trash_prefix", "trust_mtime", "conversation_retention_days",
    "unverified_user_retention_days", "cleanup_interval_hours", "orphan_cleanup_age_threshold_hours",
    "max_storage_size_mb",
)  # fmt: skip
# What stops something: with the value that does. The other value undoes no stop of the process that does the run.
_STOPPING = {"dry_run": True, "housekeeping_paused": True, "storage_cleanup_enabled": False}

Origin = Literal["command line", ".env", "environment", "default"]


def _time_zone(value: object) -> object:
    try:
        return ZoneInfo(str(value))
    except (ValueError, OSError, LookupError):
        raise ValueError("accepted: a name of the IANA time zone database, such as Europe/Berlin") from None


def _postgres_url(value: object) -> object:
    return read_address(str(value))


def check_cron(value: object) -> str:
    """A cron expression of five fields, as Dagster's own schedules accept it.

    Raises:
        ValueError: it is not a cron expression.
    """
    from dagster._utils.schedules import is_valid_cron_schedule

    text = " ".join(str(value).split())
    if len(text.split()) != 5 or not is_valid_cron_schedule(text):
        raise ValueError("accepted: a cron expression of five fields, such as 0 2 * * *")
    return text


def _http_url(value: object) -> object:
    text = str(value).strip().rstrip("/")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("accepted: an address such as https://PROJECT.supabase.co")
    return text


def _folder_name_or_nothing(value: object) -> object:
    text = str(value).strip("/")
    if text and any(part in ("", ".", "..") for part in text.split("/")):
        raise ValueError("accepted: the name of a folder in the bucket, such as trash")
    return text


def _hosts(value: object) -> object:
    found = frozenset(part.strip().lower() for part in str(value).split(",") if part.strip())
    if wrong := [each for each in sorted(found) if "://" in each or "@" in each or " " in each]:
        raise ValueError(f"accepted: hosts, addresses and networks separated by commas, not {wrong[0]!r}")
    return found


def _languages(value: object) -> object:
    found = tuple(part.strip() for part in str(value).split(",") if part.strip())
    if any(not re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", each) for each in found):
        raise ValueError("accepted: language codes separated by commas, such as en,de")
    return found


# Marks the text of an address, in which a password may stand.
_ADDRESS = object()

PostgresUrl = Annotated[sa.URL, BeforeValidator(_postgres_url)]
HttpUrl = Annotated[str, BeforeValidator(_http_url), _ADDRESS]
Cron = Annotated[str, BeforeValidator(check_cron)]
# Ages and periods beyond a century are typing errors, and overflow PostgreSQL's and Python's clocks.
Days = Annotated[int, Field(ge=1, le=36500)]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class _Layer(PydanticBaseSettingsSource):
    """The variables of one origin."""

    def __init__(self, origin: Origin, variables: Mapping[str, str]) -> None:
        super().__init__(Settings)
        self.origin = origin
        self.variables = variables

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self.variables.get(field_name.upper()), field_name, False

    def __call__(self) -> dict[str, Any]:
        return {name: self.variables[name.upper()] for name in Settings.model_fields if name.upper() in self.variables}


class Settings(BaseSettings):
    """The settings of one process; every field is an environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", validate_default=False)

    database_url: PostgresUrl | None = Field(
        None, description="the platform's database; unset: an embedded PostgreSQL under HOUSEKEEPING_HOME"
    )
    dagster_pg_url: PostgresUrl | None = Field(
        None, description="Dagster's own database; unset: the database dagster on the same server"
    )
    housekeeping_home: Path = Field(
        Path(".housekeeping"), description="the folder for everything that this project writes to disk"
    )
    housekeeping_config: Path = Field(
        Path("housekeeping.yaml"), description="the mapping to your tables and your own retention rules"
    )
    time_zone: Annotated[ZoneInfo, BeforeValidator(_time_zone)] = Field(
        ZoneInfo("UTC"), description="the time zone of every schedule"
    )
    dry_run: bool = Field(
        False, description="true makes every run a dry run: it selects and reports, and deletes nothing"
    )
    housekeeping_paused: bool = Field(
        False, description="true stops every deleting run; outranks `housekeeping resume`"
    )
    trash_retention_days: Annotated[int, Field(ge=0, le=36500)] = Field(
        7, description="days for which a deletion can be undone; 0: deletions are permanent at once"
    )
    log_level: Annotated[LogLevel, BeforeValidator(lambda value: str(value).upper())] = Field(
        "INFO", description="DEBUG, INFO, WARNING, ERROR or CRITICAL"
    )
    log_file: Path | None = Field(None, description="a file to append the log to; unset: standard error")
    conversation_retention_days: Days = Field(
        30, description="age in days at which delete_old_conversations deletes a conversation"
    )
    unverified_user_retention_days: Days = Field(
        7, description="age in days at which cleanup_inactive_users deletes an account"
    )
    direct_uploads_path: Path | None = Field(
        None, description="the folder of direct uploads; unset: uploads under HOUSEKEEPING_HOME"
    )
    media_path: Path | None = Field(
        None, description="the folder of detections' pictures and events' clips; unset: media under HOUSEKEEPING_HOME"
    )
    trust_mtime: bool = Field(
        False,
        description="true: the age of a file is the time that programs set when they copy it, not when it came",
    )
    supabase_url: HttpUrl | None = Field(
        None, description="the Supabase project; unset: the folder bucket under HOUSEKEEPING_HOME is used instead"
    )
    supabase_key: SecretStr | None = Field(
        None, description="its service key, with permission to list, move and remove"
    )
    supabase_bucket: str = Field("documents", description="the bucket of the upload sessions' documents")
    supabase_concurrency: Annotated[int, Field(ge=1, le=64)] = Field(4, description="concurrent requests to the bucket")
    storage_trash_prefix: Annotated[str, BeforeValidator(_folder_name_or_nothing)] = Field(
        "housekeeping-trash",
        description="the folder in the bucket that keeps removed objects; set to nothing, removal from it is final",
    )
    cleanup_interval_hours: Annotated[int, Field(ge=1, le=8760)] = Field(
        1,
        description="hours unused until cleanup_files deletes an upload session, and hours between its runs",
    )
    auto_cleanup_enabled: bool = Field(True, description="false stops scheduled runs of cleanup_files, not manual ones")
    storage_cleanup_enabled: bool = Field(
        True,
        description="false: nothing is removed from the bucket, nor from its trash, and the rows that own files stay",
    )
    max_storage_size_mb: Annotated[int, Field(ge=1)] = Field(
        1000, description="the bucket's quota in MB (of 1024 * 1024 bytes); runs warn from 80 %"
    )
    orphan_cleanup_enabled: bool = Field(True, description="false stops scheduled runs of orphan_cleanup")
    orphan_cleanup_scan_interval_hours: Annotated[int, Field(ge=1, le=168)] = Field(
        24, description="hours between scheduled runs of orphan_cleanup"
    )
    orphan_cleanup_age_threshold_hours: Annotated[int, Field(ge=1, le=720)] = Field(
        24, description="age in hours at which orphan_cleanup removes a file"
    )
    cleanup_orphan_documents_cron: Cron = Field("0 2 * * *", description="when cleanup_orphan_documents_job runs")
    cleanup_orphan_objects_cron: Cron = Field("30 3 * * *", description="when cleanup_orphan_objects_job runs")
    drain_file_outbox_interval_seconds: Annotated[int, Field(ge=10, le=86400)] = Field(
        60, description="how often drain_file_outbox_sensor looks for files that are due for removal"
    )
    documents_path: Path | None = Field(
        None, description="the folder below which documents.docpath lies; unset: documents under HOUSEKEEPING_HOME"
    )
    watch_interval_hours: Annotated[int, Field(ge=1, le=8760)] = Field(
        168, description="hours after which a watched document is fetched again, unless it has its own interval"
    )
    watch_concurrency: Annotated[int, Field(ge=1, le=64)] = Field(
        16, description="watched documents that are fetched concurrently"
    )
    fetch_per_host: Annotated[int, Field(ge=1, le=64)] = Field(4, description="concurrent requests to one host")
    fetch_interval_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        0, description="the minimum time between two requests to one host"
    )
    fetch_allowed_hosts: Annotated[frozenset[str], BeforeValidator(_hosts)] = Field(
        frozenset(),
        description="hosts, addresses and networks that may be fetched although not public, separated by commas",
    )
    collector_url: HttpUrl | None = Field(
        None, description="a collector that fetches documents; unset: the built-in sources do"
    )
    github_token: SecretStr | None = Field(
        None, description="a token for private repositories, and for a higher rate limit"
    )
    gitlab_url: HttpUrl = Field("https://gitlab.com", description="the GitLab that GITLAB_TOKEN is for")
    gitlab_token: SecretStr | None = Field(None, description="a token with permission to read repositories")
    confluence_url: HttpUrl | None = Field(None, description="the Confluence that CONFLUENCE_TOKEN is for")
    confluence_username: str | None = Field(None, description="the account of a cloud token; unset: a server's token")
    confluence_token: SecretStr | None = Field(
        None, description="an API token (cloud) or a personal access token (server)"
    )
    drupalwiki_url: HttpUrl | None = Field(None, description="the DrupalWiki that DRUPALWIKI_TOKEN is for")
    drupalwiki_token: SecretStr | None = Field(None, description="its REST API's token")
    youtube_languages: Annotated[tuple[str, ...], BeforeValidator(_languages)] = Field(
        ("en",), description="languages of transcripts, preferred first, separated by commas"
    )
    vector_store_url: Annotated[str, _ADDRESS] | None = Field(
        None,
        description="pgvector in another database (postgresql://), lancedb:///FOLDER or qdrant://HOST:PORT; unset:"
        " pgvector in the platform's database",
    )
    vector_store_api_key: SecretStr | None = Field(None, description="Qdrant's key")
    embedding_base_url: HttpUrl | None = Field(
        None, description="an OpenAI-compatible server of embeddings; unset: an offline, lexical embedder"
    )
    embedding_api_key: SecretStr | None = Field(None, description="its key")
    embedding_model: str | None = Field(None, description="its model")
    sync_watched_documents_interval_seconds: Annotated[int, Field(ge=5, le=86400)] = Field(
        300, description="how often watched_documents_sensor looks for documents that are due"
    )
    cleanup_orphan_vectors_cron: Cron = Field("0 4 * * *", description="when cleanup_orphan_vectors_job runs")
    daily_housekeeping_cron: Cron = Field("0 2 * * *", description="when daily_housekeeping_job runs")
    weekly_cleanup_cron: Cron = Field("0 3 * * 0", description="when weekly_cleanup_job runs")
    generate_statistics_cron: Cron = Field("0 */6 * * *", description="when generate_statistics_job runs")
    purge_trash_cron: Cron = Field("30 4 * * *", description="when purge_trash_job runs")
    test_housekeeping_cron: Cron = Field(
        "*/5 * * * *",
        description="when test_housekeeping_schedule, off by default, runs daily_housekeeping_job",
    )

    _layers: tuple[_Layer, ...] = PrivateAttr()
    _directory: Path = PrivateAttr()

    def __init__(self, directory: Path, layers: tuple[_Layer, ...]) -> None:
        """
        Args:
            layers: where variables come from; an earlier one outranks a later one.
        """
        super().__init__(_build_sources=(layers, {}))
        self._directory = directory
        self._layers = layers

    @model_validator(mode="before")
    @classmethod
    def _use_default_for_empty(cls, given: dict[str, Any]) -> dict[str, Any]:
        # Not earlier: an empty line in .env still hides the exported variable, since Dagster exports the empty value.
        return {name: value for name, value in given.items() if value != "" or name in _EMPTY_ALLOWED}

    @property
    def directory(self) -> Path:
        """The folder that `.env` was looked for in and that relative paths start from."""
        return self._directory

    @property
    def travelling(self) -> dict[str, str]:
        """The variables that go with a run which is handed to another process, as `load_settings` takes them back."""
        given = {name: getattr(self, name) for name in _TRAVELLING if self.origin(name) != "default"}
        given |= {name: value for name, value in _STOPPING.items() if getattr(self, name) is value}
        return {name.upper(): _as_variable(value) for name, value in given.items()}

    @cached_property
    def lines(self) -> tuple[SettingLine, ...]:
        """Every setting with its value (secrets masked), its origin and what it shadows."""
        return tuple(self._line(name) for name in type(self).model_fields)

    def origin(self, name: str) -> Origin:
        """Where a setting's value comes from."""
        return next(line.origin for line in self.lines if line.variable == name.upper())

    def _line(self, name: str) -> SettingLine:
        variable = name.upper()
        given = [(layer.origin, layer.variables[variable]) for layer in self._layers if variable in layer.variables]
        is_given = given and (given[0][1] != "" or name in _EMPTY_ALLOWED)
        origin: Origin = given[0][0] if is_given else "default"
        shadows = tuple(
            (layer, _mask(name, value)) for layer, value in given[1:] if value != "" and value != given[0][1]
        )
        description = type(self).model_fields[name].description or ""
        return SettingLine(variable, _mask(name, getattr(self, name)), origin, shadows, description)


def _as_variable(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_OUR_LINE = re.compile(
    rb"^\s*(?:export\s+)?(?:DAGSTER_HOME|%s)\s*=" % "|".join(Settings.model_fields).upper().encode(), re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class SettingLine:
    """One setting as `housekeeping check` shows it."""

    variable: str
    value: str
    origin: Origin
    shadows: tuple[tuple[Origin, str], ...]
    description: str


def installation_folder(start: Path) -> Path:
    """The nearest folder, from `start` upwards, that has an installation; `start` itself if none has.

    Those have one that have `housekeeping.yaml`, the folder `.housekeeping`, or a `.env` with a variable of ours: a
    `.env` of another program is passed over, and so is, above the current folder, what another user put there.
    """
    return next((folder for folder in (start, *start.parents) if _has_installation(folder)), start)


def _has_installation(folder: Path) -> bool:
    env_file = folder / ".env"
    try:
        if any(_is_trusted(folder / name) for name in ("housekeeping.yaml", ".housekeeping")):
            return True
        return _is_trusted(env_file) and bool(_OUR_LINE.search(env_file.read_bytes()))
    except OSError:
        # What cannot be read is an error only if it is the current folder's.
        return False


def _is_trusted(path: Path) -> bool:
    return path.exists() and (sys.platform == "win32" or path.stat().st_uid in (0, os.geteuid()))


def load_settings(
    directory: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of this process.

    Args:
        directory: where `.env` is looked for and relative paths start; by default the installation's folder, which is
            the current one or one above it.
        environ: the exported variables; `os.environ` by default.
        overrides: variables that outrank all others.

    Raises:
        ConfigurationError: a value is not accepted; the text names the variable, the value and what is.
    """
    directory = (directory or installation_folder(Path.cwd())).absolute()
    exported = dict(os.environ if environ is None else environ)
    dotenv = read_env_file(directory / ".env")
    given = {**json.loads(exported.get(OVERRIDES_VARIABLE) or "{}"), **(overrides or {})}
    # A Dagster process has exported its .env already, so the same value may be in both.
    layers = (_Layer("command line", given), _Layer(".env", dotenv), _Layer("environment", exported))
    try:
        settings = Settings(directory, layers)
    except ValidationError as error:
        raise ConfigurationError(_explain(error), hint=_where(error, layers)) from None
    paths = {name: (directory / value.expanduser()).absolute() for name, value in settings if isinstance(value, Path)}
    return settings.model_copy(update=paths)


def reveal(secret: SecretStr | None) -> str | None:
    """A secret's text, for the client that needs it; None if it is not set."""
    return None if secret is None else secret.get_secret_value()


def _explain(error: ValidationError) -> str:
    return "; ".join(f"{_variable(e)} is {_mask(_field(e), e['input'])!r}: {_accepted(e)}" for e in error.errors())


def _where(error: ValidationError, layers: tuple[_Layer, ...]) -> str:
    variable = _variable(error.errors()[0])
    origin = next(layer.origin for layer in layers if variable in layer.variables)
    return f"check {variable}, which comes from {'the ' if origin != '.env' else ''}{origin}"


def _field(error: Any) -> str:
    return str(error["loc"][0])


def _variable(error: Any) -> str:
    return _field(error).upper()


def _accepted(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "int_parsing":
        return "accepted: a whole number"
    if error["type"] in ("bool_parsing", "bool_type"):
        return "accepted: true or false"
    return message if message.startswith("accepted") else "accepted: " + message.removeprefix("Input should be ")


def _mask(name: str, value: object) -> str:
    """A value, accepted or as it was given, as it may be shown: a secret and the password in an address are not."""
    kinds = _kinds(Settings.model_fields[name])
    if value is None:
        return ""
    if SecretStr in kinds:
        return "***"
    if (_ADDRESS in kinds or sa.URL in kinds) and not isinstance(value, sa.URL):
        try:
            value = sa.make_url(str(value))
        except (sa.exc.ArgumentError, ValueError):
            return "***"
    if isinstance(value, sa.URL):
        # A password may also stand in the query, where libpq accepts it.
        query = {key: "***" if "password" in key else item for key, item in value.query.items()}
        return value.set(query=query).render_as_string(hide_password=True)
    if isinstance(value, (frozenset, tuple)):
        return ",".join(sorted(value) if isinstance(value, frozenset) else value)
    return _as_variable(value)


def _kinds(field: FieldInfo) -> list[object]:
    """The types that a field is made of, and how they are annotated."""
    kinds: list[object] = [field.annotation, *field.metadata]
    for kind in kinds:
        kinds += get_args(kind)
    return kinds
