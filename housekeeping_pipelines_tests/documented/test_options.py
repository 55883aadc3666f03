"""The options of each task and the fields of a rule: who takes them, their defaults and bounds."""

from __future__ import annotations

import re
import typing
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_core import PydanticUndefined

from housekeeping_pipelines.application.config import HousekeepingConfig, RetentionRule
from housekeeping_pipelines.capabilities import assemble
from housekeeping_pipelines.settings import Settings, load_settings
from housekeeping_pipelines.tasks.config import GIGABYTE
from housekeeping_pipelines_tests.documented.reading import NOWHERE, bounds, named, table_of, text_of

if TYPE_CHECKING:
    from housekeeping_pipelines.tasks.jobs import Task

OWN_RULES = "your own rules"


# A rule whose values are none of the defaults.
RULE = RetentionRule.model_validate(
    {"table": "t", "age_column": "c", "older_than_days": 41, "batch_size": 43, "allow_large_deletion": True}
)


@cache
def tasks() -> dict[str, Task]:
    """Every task by its name, a rule among them by what the documents call it."""
    found = assemble(
        load_settings(NOWHERE, environ={}),
        HousekeepingConfig(retention=[RULE]),
    ).tasks
    return {OWN_RULES if name == RULE.task else name: task for name, task in found.items()}


def task_groups() -> dict[str, set[str]]:
    """What `docs/reports.md` calls several tasks by one name."""
    said = re.search(
        r"\*retention tasks\* are (.*?); \*file tasks\* are (.*?); \*deleting tasks\* are both of these, (.*?)\.",
        text_of("docs/reports.md"),
    )
    assert said
    retention, files, others = ({*named(part), *([OWN_RULES] if OWN_RULES in part else [])} for part in said.groups())
    return {"retention tasks": retention, "file tasks": files, "deleting tasks": retention | files | others}


def tasks_in(cell: str) -> set[str]:
    """The tasks that a cell names."""
    groups = task_groups()
    if cell.startswith("all but"):
        left_out = set(named(cell))
        return {name for name, task in tasks().items() if "dry_run" in task.config.model_fields} | (
            set(tasks()) - left_out
        )
    found: set[str] = set()
    for part in re.split(r", | and ", cell):
        found |= groups.get(part) or {OWN_RULES if part == OWN_RULES else named(part)[0]}
    return found


def cell_for(cell: str, task: str) -> str:
    """What `VALUE; OTHER for \\`a\\`, \\`b\\`` says of one task."""
    general, *exceptions = cell.split("; ")
    for exception in exceptions:
        value, _, of = exception.partition(" for ")
        if task in tasks_in(of):
            return value
    return general


OPTIONS = {named(row["option"])[0]: row for row in table_of("docs/reports.md", "option")}


def test_every_option_is_documented_for_the_tasks_that_take_it() -> None:
    taken: dict[str, set[str]] = {}
    for name, task in tasks().items():
        for option in task.config.model_fields:
            taken.setdefault(option, set()).add(name)
    assert {option: tasks_in(row["tasks"]) for option, row in OPTIONS.items()} == taken


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_has_the_documented_default_and_bounds(option: str) -> None:
    for name, task in tasks().items():
        info = task.config.model_fields.get(option)
        if info is None:
            continue
        default, accepted = (cell_for(OPTIONS[option][column], name) for column in ("default", "accepted"))
        _check_default(default, info, task, f"{name} {option}")
        numbers = bounds(info.metadata)
        kind = info.annotation
        choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
        expected = "true, false" if kind is bool else ", ".join(choices) or numbers or "text"
        assert accepted == expected, (name, option)


def _check_default(said: str, info: Any, task: Task, where: str) -> None:
    if said == "the rule's":
        (option,) = (name for name, field in task.config.model_fields.items() if field is info)
        assert info.default == getattr(RULE, option), where
    elif said == "required":
        assert info.default is PydanticUndefined, where
    elif said == "none":
        assert info.default is None, where
    elif variables := named(said):
        assert info.default is None, where
        assert variables[0].lower() in Settings.model_fields, where
        assert variables[0] in (info.description or ""), where
    elif info.default is None:
        # It is filled in by the class that makes limits of it.
        assert task.config().limits().max_bytes == float(said) * GIGABYTE, where  # type: ignore[attr-defined]
    elif isinstance(info.default, bool):
        assert said == str(info.default).lower(), where
    elif isinstance(info.default, str):
        assert said == info.default, where
    else:
        assert float(said) == info.default, where


def test_one_task_is_dry_unless_told() -> None:
    dry = {name: info.default for name, task in tasks().items() if (info := task.config.model_fields.get("dry_run"))}
    (media,) = [tasks()[name] for name, default in dry.items() if default]
    assert f"the schedule of `{media.name}` sets it to false" in OPTIONS["dry_run"]["meaning"]


def test_a_rule_accepts_what_is_documented() -> None:
    rows = {named(row["field"])[0]: row["meaning"] for row in table_of("docs/mapping.md", "field")}
    assert sorted(rows) == sorted(RetentionRule.model_fields)
    for name, info in RetentionRule.model_fields.items():
        assert ("required" in rows[name]) == info.is_required(), name
        if (numbers := bounds(info.metadata)) is not None:
            assert numbers in rows[name], name
        if isinstance(info.default, bool | int):
            value = str(info.default)
            default = f"`{value.lower()}`" if isinstance(info.default, bool) else value
            assert f"{default} by default" in rows[name], name
    longest = re.search(r"up to (\d+) lower-case letters, digits and `_`", rows["name"])
    assert longest
    name = "a" + int(longest[1]) * "_"
    rule = {"table": "t", "age_column": "c", "older_than_days": 1}
    assert RetentionRule.model_validate(rule | {"name": name}).task == name
    with pytest.raises(ValueError, match="name"):
        RetentionRule.model_validate(rule | {"name": name + "_"})
    assert re.search(r"`delete_old_<table>` by default", rows["name"])
    assert RetentionRule.model_validate(rule).task == "delete_old_t"
