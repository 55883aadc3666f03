"""Exit codes, the JSON of each command, and how many items a list of a report has."""

from __future__ import annotations

import json
import re
import signal
from datetime import UTC, datetime
from typing import Any

import pytest

from housekeeping_pipelines.cli import launch
from housekeeping_pipelines.cli.app import INTERRUPTED
from housekeeping_pipelines.execution.report import Report
from housekeeping_pipelines_tests.documented.reading import ROOT, constant, named, table_of, text_of
from housekeeping_pipelines_tests.surface import describing


def test_every_exit_code_is_documented() -> None:
    said = {int(row["code"]) for row in table_of("README.md", "code")}
    codes = describing.exit_codes()
    signals = {INTERRUPTED, 128 + signal.SIGTERM}
    assert said == {*codes["errors"].values(), *codes["statuses"].values(), *signals}
    statuses = {named(row["status"])[0]: row["exit code"] for row in table_of("docs/reports.md", "status")}
    assert {name: int(code.split(",")[0]) for name, code in statuses.items()} == codes["statuses"]
    order = re.search(r"that of the worst task: (\d) before (\d) before (\d) before (\d)\.", text_of("docs/reports.md"))
    assert order
    status = {code: name for name, code in codes["statuses"].items()}
    for at, worse in enumerate(order.groups()):
        for better in order.groups()[at:]:
            reports = {each: _report(int(each), status) for each in (better, worse)}
            assert launch.Outcome("", reports).exit_code == int(worse)


def _report(code: int, status: dict[int, Any]) -> Report:
    error = "ConfigurationError" if code == 2 else None
    return Report(
        task="a",
        run_id="r",
        dry_run=False,
        started_at=datetime.now(UTC),
        duration_seconds=0.0,
        status=status.get(code, "failed"),
        error_type=error,
    )


# The document of a command, by what the surface's record calls it; those of the table that no record has are not here.
SHAPES = {
    "run ... --queue": "run --queue",
    "scheduled-cleanup": "scheduled-cleanup, off",
    "watch list": "watch list",
    "cleanup-files --stats": "cleanup-files --stats",
    "test-cleanup": "test-cleanup",
    "undo RUN": "undo RUN_ID",
    "trash list": "trash list",
    "hold add": "hold add",
    "hold list": "hold list",
    "hold remove": "hold remove 1",
    "pause": "resume",
    "scheduler-info": "scheduler-info",
    "check": "check",
    "migrate": "migrate",
    "init": "init",
}


def test_the_json_of_each_command_has_the_documented_keys() -> None:
    recorded = json.loads((ROOT / "housekeeping_pipelines_tests/surface/json.json").read_text(encoding="utf-8"))
    rows = {
        named(row["command"])[0] if named(row["command"]) else row["command"]: named(row["document"])
        for row in table_of("docs/reports.md", "command", "document")
        if "the task's report" not in row["document"]
    }
    for command, record in SHAPES.items():
        _check_shape(_shape(rows[command][0]), recorded[record]["prints"], command)
    _check_shape(_shape(rows["test-cleanup"][2]), recorded["test-cleanup --create-test-data"]["prints"], "test data")
    _check_shape(
        _shape(rows["any command that ends in an error"][0]), recorded["run no_such_task"]["prints"], "any error"
    )


def _shape(text: str) -> Any:
    """`{a, b: [{c}], d: "text"}` as nested dicts and lists."""
    text = re.sub(r'(\w+)(?=[,}])(?!")', r"\1: null", re.sub(r'"[^"]*"', "null", text))
    text = re.sub(r"null: null", "null", text)
    return json.loads(re.sub(r"(\w+):", r'"\1":', text))


def _check_shape(said: Any, recorded: Any, where: str) -> None:
    if isinstance(said, dict):
        assert isinstance(recorded, dict), where
        assert sorted(said) == sorted(recorded), where
        for name, each in said.items():
            _check_shape(each, recorded[name], f"{where}.{name}")
    elif isinstance(said, list) and recorded:
        _check_shape(said[0], recorded[0], where)


# How many a list of a report has at most.
LISTS = {
    "failed_count": "MAX_FAILED",
    "sample": "MAX_SAMPLE",
    "conflicts": "MAX_CONFLICTS",
    "failed_deletions": "MAX_FAILED",
    "missing_files": "MAX_MISSING_SAMPLE",
    "largest": "LARGEST",
    "in_error": "MAX_FAILED",
    "diffs": "MAX_DIFFS",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_a_report_has_the_documented_length(name: str) -> None:
    said = re.search(rf"`{name}` (?:\||\()[^|]*?up to (\d+)\b", text_of("docs/reports.md"))
    assert said
    assert int(said[1]) == constant(LISTS[name])


def test_missing_vectors_are_listed_as_documented() -> None:
    said = re.search(r"`missing_count`, and up to (\d+) ids in `missing`", text_of("docs/reports.md"))
    assert said
    assert int(said[1]) == constant("MAX_MISSING_SAMPLE")
