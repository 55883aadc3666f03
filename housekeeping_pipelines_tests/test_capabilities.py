"""Capabilities hand themselves over: the one of docs/contributing.md is everywhere as soon as it is installed."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from housekeeping_pipelines.application.config import HousekeepingConfig, load_config
from housekeeping_pipelines.capabilities import BUILT_IN, assemble
from housekeeping_pipelines.cli.commands.tasks import HousekeepingTask
from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.tasks.capability import GROUP
from housekeeping_pipelines_tests.deletion.support import sql
from housekeeping_pipelines_tests.support import make_platform

if TYPE_CHECKING:
    import subprocess

    import sqlalchemy as sa

    from housekeeping_pipelines_tests.support import Installation

ROOT = Path(__file__).resolve().parents[1]
TASK = "delete_expired_invitations"


def install_example(site: Path) -> None:
    """What the document shows, as an installer would put it there."""
    text = (ROOT / "docs/contributing.md").read_text()
    blocks = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    project = tomllib.loads(blocks["pyproject.toml"])["project"]
    about = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (site / "invitations.py").write_text(blocks["invitations.py"])
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [f"{name} = {value}" for name, value in project["entry-points"][GROUP].items()]
    (about / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *points, ""]))


def test_a_capability_of_one_file_is_everywhere(engine: sa.Engine, installation: Installation, tmp_path: Path) -> None:
    make_platform(engine)
    sql(
        engine,
        "CREATE TABLE invitations (id int PRIMARY KEY, expires_at timestamptz)",
        "INSERT INTO invitations SELECT i, now() - i * interval '20 days' FROM generate_series(1, 4) i",
    )
    install_example(tmp_path / "site")
    environ = {"PYTHONPATH": str(tmp_path / "site")}

    def python(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = installation.python(*arguments, **environ, **more)
        assert done.returncode == 0, done.stderr
        return done

    def housekeeping(*arguments: str) -> Any:
        done = python("-c", "from housekeeping_pipelines.cli import main; main()", *arguments, "--json")
        return json.loads(done.stdout)

    assert housekeeping("run", TASK, "--dry-run")["would_delete"] == {"invitations": 3}
    report = housekeeping("run", TASK, "--config", '{"older_than_days": 50}')
    assert (report["deleted"], report["status"]) == ({"invitations": 2}, "succeeded")
    assert housekeeping("undo", report["run_id"])["restored"] == {"invitations": 2}
    checks = {check["name"]: check for check in housekeeping("check")["checks"]}
    assert checks[f"task {TASK}"]["status"] == "ok"
    ticks = {job["id"]: job["trigger"] for job in housekeeping("scheduler-info")["jobs"]}
    assert ticks[f"{TASK}_schedule"] == "cron[hour='2', minute='15']"
    home = housekeeping("init")["dagster_home"]
    launch = ("-m", "dagster", "job", "launch", "-m", "housekeeping_pipelines.definitions", "-j", f"{TASK}_job")
    python(*launch, DAGSTER_HOME=home)
    assert f"{TASK}_job" in python("-m", "dagster", "run", "list", DAGSTER_HOME=home).stdout
    tables = "import sys; sys.path.insert(0, sys.argv[1]); import generate; print(generate.generated()[generate.TASKS])"
    document = python("-c", tables, str(ROOT / "docs")).stdout
    assert f"| `{TASK}` | Delete invitations that expired long ago. | `{TASK}_schedule` (`15 2 * * *`) |" in document


def test_the_code_location_names_what_a_package_got_wrong(installation: Installation, tmp_path: Path) -> None:
    install_example(tmp_path / "site")
    (tmp_path / "site/invitations.py").write_text("import no_such_module\n")
    command = ("-c", "from housekeeping_pipelines.cli import main; main()", "run", "purge_trash")
    done = installation.python(*command, PYTHONPATH=str(tmp_path / "site"))
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "the capability invitations (invitations:capability) cannot be loaded: ModuleNotFoundError" in done.stderr
    assert "fix or uninstall the package that it is from" in done.stderr


@pytest.mark.parametrize("name", ["delete_old_conversations", "cleanup_files", "daily_housekeeping"])
def test_a_rule_that_takes_the_name_of_a_task_is_refused(tmp_path: Path, name: str) -> None:
    settings = load_settings(tmp_path, {})
    settings.housekeeping_config.write_text(
        f"retention: [{{table: t, age_column: a, older_than_days: 1, name: {name}}}]"
    )
    with pytest.raises(ConfigurationError) as caught:
        assemble(settings, load_config(settings))
    assert caught.value.message == (
        f"housekeeping.yaml: retention: two tasks would be named {name}; give the rule a `name` of its own"
    )
    assert caught.value.hint == f"check {settings.housekeeping_config}"


def test_the_check_says_so_and_goes_on(engine: sa.Engine, installation: Installation) -> None:
    rule = "retention: [{table: conversations, age_column: created_at, older_than_days: 1}]"
    (installation.directory / "housekeeping.yaml").write_text(rule)
    checks = {check["name"]: check for check in installation.json("check")["checks"]}
    assert "two tasks would be named delete_old_conversations" in checks["housekeeping.yaml"]["message"]
    assert checks["database"]["status"] == "ok"


def test_the_command_offers_the_short_names_of_the_daily_tasks(tmp_path: Path) -> None:
    registry = assemble(load_settings(tmp_path, {}), HousekeepingConfig())
    daily = [task.short_name for task in registry.chains["daily_housekeeping"].tasks]
    assert [each.value for each in HousekeepingTask] == ["all", *daily]


def test_every_capability_hands_something_over(tmp_path: Path) -> None:
    made = [make(load_settings(tmp_path, {}), HousekeepingConfig()) for make in BUILT_IN]
    assert all(capability.tasks for capability in made)
    folders = {path.parent.name for path in (ROOT / "housekeeping_pipelines").glob("*/definitions.py")}
    assert {make.__module__.split(".")[-2] for make in BUILT_IN} == folders


def test_a_task_can_be_left_out_of_the_daily_job() -> None:
    def daily(*names: str) -> list[str]:
        config = HousekeepingConfig.model_validate({"daily_housekeeping": {"leave_out": list(names)}})
        registry = assemble(load_settings(environ={}), config)
        assert set(names) <= registry.tasks.keys()
        return [task.name for task in registry.chains["daily_housekeeping"].tasks]

    assert daily() == [
        "delete_old_conversations",
        "cleanup_orphaned_messages",
        "cleanup_inactive_users",
        "generate_statistics",
    ]
    assert daily("cleanup_inactive_users") == [name for name in daily() if name != "cleanup_inactive_users"]
    with pytest.raises(ConfigurationError, match="purge_trash is not a task of daily_housekeeping_job"):
        daily("purge_trash")
    with pytest.raises(ConfigurationError, match="leaves no task"):
        daily(*daily())
