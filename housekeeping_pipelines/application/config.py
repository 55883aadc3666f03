"""`housekeeping.yaml`: the mapping to a user's own tables, and a user's own retention rules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from housekeeping_pipelines.application import strict_yaml, tables
from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from housekeeping_pipelines.settings import Settings

# PostgreSQL cuts a longer name to NAMEDATALEN - 1 bytes, and it would then name something else.
MAX_IDENTIFIER_BYTES = 63


def _identifier(value: str) -> str:
    if "\x00" in value or any(len(part.encode()) > MAX_IDENTIFIER_BYTES for part in value.split(".")):
        raise ValueError(f"{value[:80]!r} cannot be the name of anything in PostgreSQL")
    return value


Identifier = Annotated[str, StringConstraints(min_length=1, max_length=127)]
STORES = ("uploads", "media", "bucket")
TaskName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,79}$")]


class _Section(BaseModel):
    # Strict: true is no number of days, and 1 is no yes.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TableMapping(_Section):
    """How one of the platform's tables is named in the live database; `null` for a column that it lacks."""

    name: Identifier | None = Field(None, description="table, or schema.table")
    columns: dict[str, Identifier | None] = Field(default_factory=dict)
    null_conversation: Literal["orphan", "kept"] | None = Field(
        None, description="of chat_messages: what a message is whose conversation_id is null"
    )


class RetentionRule(_Section):
    """Deletes the rows of any table whose `age_column` is older than `older_than_days`."""

    table: Identifier = Field(description="table, or schema.table")
    age_column: Identifier
    older_than_days: int = Field(ge=1, le=36500)
    where: dict[Identifier, str | int | float | bool | None] = Field(default_factory=dict)
    batch_size: int = Field(5000, ge=1, le=10_000)
    allow_large_deletion: bool = Field(False, description="allow a run to delete more than half of the table")
    name: TaskName | None = Field(None, description="the task's name; delete_old_<table> by default")

    @property
    def task(self) -> str:
        """The name of the rule's op."""
        return self.name or "delete_old_" + re.sub(r"\W+", "_", self.table.lower(), flags=re.ASCII).strip("_")


class InactiveUsers(_Section):
    """What cleanup_inactive_users must know about the user's own tables."""

    account_tables: list[Identifier] = Field(
        default_factory=list,
        description="tables whose rows belong to the account itself (its e-mail addresses, its groups) and go "
        "with it; a row in any other table that refers to the account keeps it",
    )
    ignored_columns: list[Identifier] = Field(
        default_factory=list,
        description="columns without a key, as table.column, whose names look as if they held accounts, and which"
        " mean no ownership: those of an audit log",
    )


class DailyHousekeeping(_Section):
    """What daily_housekeeping_job does."""

    leave_out: list[TaskName] = Field(default_factory=list, description="tasks that the job does not do")


class FileReference(_Section):
    """A column of any table whose values name files of a store, beside the columns that the tasks know."""

    table: Identifier = Field(description="table or view, or schema.table")
    column: Identifier
    json_path: str | None = Field(None, description="what selects the names in a JSON document, as SQL/JSON path")
    transform: Literal["path", "slug", "exact"] = Field(
        "path",
        description="path: a path or an address; slug: AnythingLLM's name before its slug; exact: the name itself",
    )
    template: str | None = Field(None, description="the name, with {} in place of the value")

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, value: str | None) -> str | None:
        if value is not None and value.count("{}") != 1:
            raise ValueError(f"{value!r} has no {{}}, or several, in the place of the value")
        return value


class HousekeepingConfig(_Section):
    """The whole of `housekeeping.yaml`."""

    tables: dict[str, TableMapping] = Field(default_factory=dict)
    retention: list[RetentionRule] = Field(default_factory=list)
    inactive_users: InactiveUsers = Field(default_factory=InactiveUsers)
    daily_housekeeping: DailyHousekeeping = Field(default_factory=DailyHousekeeping)
    allowed_deletions: list[Identifier] = Field(
        default_factory=list, description="tables of which triggers may delete rows besides, which no undo restores"
    )
    without_undo: list[Identifier] = Field(
        default_factory=list, description="tables whose rows may be deleted although an undo could not bring them back"
    )
    references: dict[str, list[FileReference]] = Field(default_factory=dict)
    exclude: dict[str, list[str]] = Field(
        default_factory=dict, description="files that are left alone, in the patterns of .gitignore"
    )
    roots: dict[str, list[str]] = Field(
        default_factory=dict, description="absolute paths by which rows name the root of a store elsewhere"
    )

    @model_validator(mode="after")
    def _known_names(self) -> HousekeepingConfig:
        for table, mapping in self.tables.items():
            if table not in tables.metadata.tables:
                raise ValueError(f"tables: {table!r} is not one of {', '.join(sorted(tables.metadata.tables))}")
            if mapping.null_conversation is not None and table != "chat_messages":
                raise ValueError(f"tables.{table}: null_conversation is of chat_messages alone")
            known = tables.metadata.tables[table].columns
            for column in mapping.columns:
                if column not in known:
                    raise ValueError(f"tables.{table}: {column!r} is not one of {', '.join(known.keys())}")
        taken: set[str] = set()
        for rule in self.retention:
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,79}", rule.task):
                raise ValueError(f"retention: {rule.table!r} makes no task's name; give the rule a `name`")
            if rule.task in taken:
                raise ValueError(f"retention: two tasks would be named {rule.task}; give the rule a `name` of its own")
            taken.add(rule.task)
            if any(isinstance(value, str) and "\x00" in value for value in rule.where.values()):
                raise ValueError(f"retention: {rule.task}: no value in PostgreSQL has a NUL in it")
        for section, stores in (("references", self.references), ("exclude", self.exclude), ("roots", self.roots)):
            for store in stores:
                if store not in STORES:
                    raise ValueError(f"{section}: {store!r} is not one of {', '.join(STORES)}")
        for store, roots in self.roots.items():
            for root in roots:
                if not re.match(r"/.|[A-Za-z]:[/\\]|\\\\", root):
                    raise ValueError(f"roots.{store}: {root!r} is not an absolute path")
        for name in self._identifiers():
            _identifier(name)
        return self

    def _identifiers(self) -> list[str]:
        names = [name for mapping in self.tables.values() for name in (mapping.name, *mapping.columns.values())]
        names += [name for rule in self.retention for name in (rule.table, rule.age_column, *rule.where)]
        names += [name for each in self.references.values() for one in each for name in (one.table, one.column)]
        names += [*self.allowed_deletions, *self.without_undo]
        names += [*self.inactive_users.account_tables, *self.inactive_users.ignored_columns]
        return [name for name in names if name is not None]


def load_config(settings: Settings) -> HousekeepingConfig:
    """The configuration in the file that HOUSEKEEPING_CONFIG names; see `read_config`."""
    return read_config(settings.housekeeping_config)


def read_config(path: Path) -> HousekeepingConfig:
    """Read a file; one that does not exist counts as empty.

    Raises:
        ConfigurationError: it is not valid YAML, or not of this form; the text names the place.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = strict_yaml.read(text, as_text=_is_compared)
    except FileNotFoundError:
        return HousekeepingConfig()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path.name} is not UTF-8", hint=f"save {path} as UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"{path.name} cannot be read: {error.strerror}", hint=f"check {path}") from None
    except strict_yaml.YamlError as error:
        raise ConfigurationError(f"{path.name}, {error}", hint=f"check {path}") from None
    if document.content is None:
        return HousekeepingConfig()
    try:
        return HousekeepingConfig.model_validate(document.content)
    except ValidationError as error:
        problems = "; ".join(_problem(document, found) for found in error.errors())
        raise ConfigurationError(f"{path.name}, {problems}", hint=f"check {path}") from None


def _is_compared(path: strict_yaml.Path) -> bool:
    """Whether a scalar is a value that rows are compared with: PostgreSQL reads it as the column's type."""
    return len(path) == 4 and path[0] == "retention" and path[2] == "where"


def _problem(document: strict_yaml.Document, error: ErrorDetails) -> str:
    where, message = error["loc"], error["msg"].removeprefix("Value error, ")
    name = ".".join(str(part) for part in where)
    return f"{document.place(where)}: {name}{': ' if name else ''}{message}"
