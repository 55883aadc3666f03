"""When schedules and sensors tick, and which setting drives each."""

from __future__ import annotations

import re
import runpy
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from housekeeping_pipelines.cli.commands.dagster_processes import SYNC_INTERVAL_SECONDS
from housekeeping_pipelines.settings import Settings
from housekeeping_pipelines_tests.documented.reading import ROOT, bounds, named, table_of, text_of

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Tick:
    """When a schedule or a sensor ticks."""

    cron: str | None
    seconds: int | None
    running: bool

    def in_words(self) -> str:
        """As the table of README.md says it."""
        off = "" if self.running else ", off"
        if self.seconds is not None:
            return f"checks every {_period(self.seconds // 60, 'minute')}{off}"
        minute, hour, _, _, weekday = str(self.cron).split()
        if minute.startswith("*/"):
            return f"every {_period(int(minute[2:]), 'minute')}{off}"
        if hour == "*":
            return f"hourly{off}"
        if hour.startswith("*/"):
            return f"every {_period(int(hour[2:]), 'hour')}{off}"
        day = {"*": "daily", "0": "on Sunday"}[weekday]
        return f"{int(hour):02}:{int(minute):02} {day}{off}"


def _period(number: int, unit: str) -> str:
    return unit if number == 1 else f"{number} {unit}s"


def ticks_of(definitions: Any) -> dict[str, Tick]:
    repository = definitions.get_repository_def()
    return {
        each.name: Tick(
            getattr(each, "cron_schedule", None),
            getattr(each, "minimum_interval_seconds", None),
            each.default_status.value == "RUNNING",
        )
        for each in (*repository.schedule_defs, *repository.sensor_defs)
    }


def ticks_with(monkeypatch: pytest.MonkeyPatch, directory: Path, **variables: str) -> dict[str, Tick]:
    """The ticks of a code location that is loaded with these variables and no file."""
    with monkeypatch.context() as patch:
        patch.chdir(directory)
        for name in Settings.model_fields:
            patch.delenv(name.upper(), raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.delitem(sys.modules, "housekeeping_pipelines.definitions", raising=False)
        return ticks_of(runpy.run_module("housekeeping_pipelines.definitions")["defs"])


SCHEDULES = {named(row["schedule"])[0]: row for row in table_of("README.md", "schedule")}


def test_every_schedule_ticks_when_readme_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = {name: row["by default"] for name, row in SCHEDULES.items()}
    assert said == {name: tick.in_words() for name, tick in ticks_with(monkeypatch, tmp_path).items()}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_setting_beside_a_schedule_drives_it_alone(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (variable,) = named(SCHEDULES[name]["setting"])
    value = {"CRON": "17 5 * * 3", "HOURS": "12", "SECONDS": "777"}[variable.rpartition("_")[2]]
    before, after = ticks_with(monkeypatch, tmp_path), ticks_with(monkeypatch, tmp_path, **{variable: value})
    assert [each for each in before if before[each] != after[each]] == [name]


def test_a_period_that_does_not_divide_a_day_makes_a_sensor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = re.search(
        r"does not divide a day, such as (\d+) or (\d+), makes the schedule a sensor: `(\w+)` or `(\w+)`\.",
        text_of("README.md"),
    )
    assert said
    first, second, *sensors = said.groups()
    for hours in (first, second):
        changed = {"CLEANUP_INTERVAL_HOURS": hours, "ORPHAN_CLEANUP_SCAN_INTERVAL_HOURS": hours}
        after = ticks_with(monkeypatch, tmp_path, **changed)
        assert set(after) - set(SCHEDULES) == set(sensors)


def test_the_crontab_has_the_times_of_the_schedules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ticks = ticks_with(monkeypatch, tmp_path)
    lines = (ROOT / "docs/examples/crontab").read_text(encoding="utf-8").splitlines()
    found = {}
    for line in (line for line in lines if re.match(r"[\d*]", line)):
        *fields, command = line.split(maxsplit=5)
        found[command.split("housekeeping ", 1)[1].removesuffix(" > /dev/null")] = " ".join(fields)
    # Cron has no sensors: these two are by the README's own choice.
    assert found.pop("run drain_file_outbox") == "*/30 * * * *"
    assert found.pop("sync-watched-documents") == "*/5 * * * *"
    schedule = {
        "run-housekeeping": "daily_housekeeping",
        "run weekly_cleanup": "weekly_cleanup",
        "run-housekeeping --task stats": "generate_statistics",
        "run purge_trash": "purge_trash",
        "scheduled-cleanup": "cleanup_files",
        "cleanup-orphan-documents": "cleanup_orphan_documents",
        "orphan-cleanup --apply": "orphan_cleanup",
        "cleanup-orphan-objects --apply": "cleanup_orphan_objects",
        "cleanup-orphan-vectors --apply": "cleanup_orphan_vectors",
    }
    assert found == {command: ticks[f"{name}_schedule"].cron for command, name in schedule.items()}


def test_the_interval_of_a_sync_is_the_setting_s() -> None:
    said = re.search(r"`--sync-interval` \((\d+) to (\d+) seconds\) replaces `(\w+)`", text_of("README.md"))
    assert said
    assert (int(said[1]), int(said[2])) == SYNC_INTERVAL_SECONDS
    assert bounds(Settings.model_fields[said[3].lower()].metadata) == f"{said[1]} to {said[2]}"
