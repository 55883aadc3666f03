"""The tables and columns that each task needs, and the privileges on them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.application import tables
from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.capabilities import assemble
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.checking import Surroundings
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines_tests.documented.reading import NOWHERE, ROOT, named, table_of, text_of

if TYPE_CHECKING:
    import sqlalchemy as sa

REGISTRY = assemble(load_settings(NOWHERE, environ={}), HousekeepingConfig())
CAPABILITIES = REGISTRY.capabilities


def needs() -> dict[str, tuple[list[str], str]]:
    """Tables and required columns of each task, "the same" being those of the row before."""
    found: dict[str, tuple[list[str], str]] = {}
    before = ""
    for row in table_of("docs/mapping.md", "task", "tables"):
        before = before if row["required columns"] == "the same" else row["required columns"]
        if row["required columns"].startswith("as for conversations"):
            before = found["delete_old_conversations"][1]
        found[named(row["task"])[0]] = named(row["tables"]), before
    return found


def test_each_task_needs_the_documented_tables() -> None:
    code = {name: sorted(task.tables) for name, task in REGISTRY.tasks.items() if task.tables}
    assert {name: sorted(given) for name, (given, _) in needs().items()} == code


# `cleanup_inactive_users` needs one of the two.
ALTERNATIVES = {"users.email_verified_at"}


def columns_of(task: str) -> set[str]:
    """The required columns of a task, with the names of their tables."""
    given, cell = needs()[task]
    found: set[str] = set()
    # "of the queue `id`, ..., of its runs `id`" go on without the table.
    parts = re.split(r"; of (?:the|its) \w+ ", cell)
    for table, part in zip(given, parts, strict=False):
        found |= {name if "." in name else f"{table}.{name}" for name in named(part)}
    return found


@pytest.mark.parametrize("task", needs())
def test_required_columns_exist_and_are_not_optional(task: str) -> None:
    for column in columns_of(task) - ALTERNATIVES:
        table, _, name = column.partition(".")
        assert name in tables.metadata.tables[table].columns, column
        assert name not in tables.OPTIONAL_COLUMNS.get(table, {}), column


def test_every_column_is_documented_as_required_or_optional() -> None:
    optional = {name for row in table_of("docs/mapping.md", "column", "without it") for name in named(row["column"])}
    assert optional == {f"{table}.{name}" for table, columns in tables.OPTIONAL_COLUMNS.items() for name in columns}
    required = {column for task in needs() for column in columns_of(task)}
    required |= set(re.findall(r"`(workspaces\.\w+)`", text_of("docs/mapping.md")))
    every = {f"{table.name}.{column.name}" for table in tables.metadata.sorted_tables for column in table.columns}
    assert required | optional == every


def test_the_required_columns_are_enough(engine: sa.Engine) -> None:
    """With everything else mapped to null, `housekeeping check` finds each task that it tests able to run."""
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
    tested = 0
    for task, (given, _) in needs().items():
        mapping = {
            name: {
                "columns": {
                    column.name: None
                    for column in tables.metadata.tables[name].columns
                    if f"{name}.{column.name}" not in columns_of(task)
                }
            }
            for name in given
        }
        with engine.connect() as connection:
            surroundings = Surroundings(
                load_settings(NOWHERE, environ={}),
                HousekeepingConfig.model_validate({"tables": mapping}),
                connection,
                datetime.now(UTC),
                has_schema=False,
            )
            (capability,) = [each for each in CAPABILITIES if task in {one.name for one in each.tasks}]
            for check in capability.checks:
                try:
                    found = [each for each in check(surroundings) if each.name == f"task {task}"]
                except HousekeepingError:
                    found = []
                for each in found:
                    tested += 1
                    assert each.status == "ok", (task, each)
    assert tested >= 7


def test_every_table_has_its_privileges() -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    role = text.partition("### The database role\n")[2].partition("\n### ")[0]
    assert [name for name in tables.metadata.tables if not re.search(rf"\b{name}\b", role)] == []
