"""The public surface as plain values: definitions, command line, settings, and the shape of what `--json` prints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from housekeeping_pipelines import errors
from housekeeping_pipelines.cli import launch
from housekeeping_pipelines.cli.app import app
from housekeeping_pipelines.execution.report import Ending, Report, Status
from housekeeping_pipelines.settings import Settings

if TYPE_CHECKING:
    import dagster as dg


# The in-process executor takes the steps that are ready by this tag.
_PRIORITY = "dagster/priority"


def definitions(defs: dg.Definitions) -> dict[str, Any]:
    """Jobs with the configuration of their ops, schedules, sensors, assets and resources."""
    repository = defs.get_repository_def()
    jobs = sorted((job for job in repository.get_all_jobs() if not job.name.startswith("__")), key=lambda job: job.name)
    assets = {key.to_user_string(): repository.asset_graph.get(key) for key in defs.resolve_all_asset_keys()}
    return {
        "jobs": {
            job.name: {
                "description": job.description,
                "tags": dict(sorted(job.tags.items())),
                "executor": job.executor_def.name,
                "resources": sorted(job.required_resource_keys),
                "ops": {
                    node.name: {
                        "description": node.definition.description,
                        "tags": dict(sorted(node.tags.items())),
                        "resources": sorted(getattr(node.definition, "required_resource_keys", ())),
                        "config": _field(node.definition.config_field),
                    }
                    for node in sorted(job.nodes, key=lambda node: (-int(node.tags.get(_PRIORITY, 0)), node.name))
                },
            }
            for job in jobs
        },
        "schedules": {
            s.name: {
                "ticks": [s.cron_schedule, s.execution_timezone, s.default_status.value, s.job_name],
                "description": s.description,
            }
            for s in sorted(repository.schedule_defs, key=lambda s: s.name)
        },
        "sensors": {
            s.name: {
                "looks": [s.minimum_interval_seconds, s.default_status.value, s.job_name],
                "description": s.description,
            }
            for s in sorted(repository.sensor_defs, key=lambda s: s.name)
        },
        "assets": {
            name: {"group": node.group_name, "description": node.description} for name, node in sorted(assets.items())
        },
        "resources": {
            name: _field(resource.config_field)
            for name, resource in sorted(repository.get_top_level_resources().items())
        },
    }


def tasks() -> list[str]:
    """The tasks by their op's names, those of several steps too."""
    from housekeeping_pipelines.definitions import REGISTRY

    return [*REGISTRY.tasks, *REGISTRY.chains]


def _field(field: Any) -> Any:
    kind = field.config_type
    fields = getattr(kind, "fields", None)
    found: dict[str, Any] = {"required": field.is_required, "description": field.description}
    if field.default_provided:
        found["default"] = field.default_value
    found["type"] = {name: _field(each) for name, each in sorted(fields.items())} if fields else _type(kind)
    return found


def _type(kind: Any) -> str:
    if enum_values := getattr(kind, "enum_values", None):
        return f"one of {', '.join(sorted(value.config_value for value in enum_values))}"
    inner = getattr(kind, "inner_type", None) or getattr(kind, "scalar_type", None)
    return f"{kind.kind.value} of {_type(inner)}" if inner is not None else str(kind.given_name or kind.kind.value)


def bounds() -> dict[str, Any]:
    """What each task's configuration accepts, as JSON schema says it, descriptions apart."""
    from housekeeping_pipelines.definitions import REGISTRY

    return {name: split(task.config.model_json_schema())[0] for name, task in sorted(REGISTRY.tasks.items())}


def split(value: Any) -> tuple[Any, Any]:
    """A value without its descriptions, and the descriptions where they stand; None where there is none."""
    if not isinstance(value, dict):
        return value, None
    bare: dict[str, Any] = {}
    prose: dict[str, Any] = {}
    for name, each in value.items():
        if name == "description" and not isinstance(each, dict):
            prose[name] = each
            continue
        bare[name], said = split(each)
        if said:
            prose[name] = said
    return bare, prose or None


def commands() -> dict[str, Any]:
    """Each command's parameters: their spelling, type, default and bounds."""
    return dict(_commands(typer.main.get_command(app), "housekeeping"))


def _commands(command: Any, path: str) -> Any:
    yield (
        path,
        {
            name: {
                "spelled": [*param.opts, *param.secondary_opts],
                "kind": param.param_type_name,
                "type": param.type_descriptor.annotation.__name__,
                "bounds": [getattr(param, "min", None), getattr(param, "max", None)],
                "required": param.required,
                "default": param.default,
                "flag": getattr(param, "is_flag", False),
                "repeated": getattr(param, "multiple", False) or param.nargs != 1,
            }
            for param in sorted(command.params, key=lambda param: str(param.name))
            if (name := param.name) not in ("help", "install_completion", "show_completion")
        },
    )
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(child, f"{path} {name}")


def settings() -> dict[str, Any]:
    """Each variable with its type, bounds and default, as JSON schema says them, and its description."""
    found = {}
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        found[name.upper()] = {
            "default": sorted(default) if isinstance(default, frozenset) else str(default),
            "bounds": sorted(str(each) for each in field.metadata if type(each).__name__ in ("Ge", "Le", "Gt", "Lt")),
            "description": field.description,
        }
    return found


def exit_codes() -> dict[str, Any]:
    """By the class of an error, and by a report's status."""
    kinds = [errors.HousekeepingError, *_subclasses(errors.HousekeepingError)]
    named = {kind.__name__: kind.exit_code for kind in kinds if kind.__module__ == errors.__name__}
    statuses: tuple[Status, ...] = ("succeeded", "skipped", "partial", "refused", "failed")
    return {
        "errors": dict(sorted(named.items())),
        "statuses": {status: _exit_code(status) for status in statuses},
    }


def _exit_code(status: Status) -> int:
    report = Report.minimal("task", "run", Ending(status), datetime(2026, 1, 1, tzinfo=UTC))
    return launch.Outcome("run", {"task": report}).exit_code


def _subclasses(kind: type[Any]) -> list[Any]:
    return [each for child in kind.__subclasses__() for each in (child, *_subclasses(child))]


def shape(value: Any) -> Any:
    """A JSON value with its scalars replaced by their types, and lists by what their first element is like."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__
