"""The command as somebody types it: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import dagster as dg
import pytest
import sqlalchemy as sa

from housekeeping_pipelines.cli import launch
from housekeeping_pipelines.definitions import defs
from housekeeping_pipelines.postgres.locks import is_locked
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines.tasks.reporting import read_reports
from housekeeping_pipelines.tasks.resources import SETTINGS_TAG
from housekeeping_pipelines_tests.support import (
    MESSAGES_EACH,
    OLD_CONVERSATIONS,
    ORPHANED_MESSAGES,
    UNUSED_ACCOUNTS,
    Installation,
    make_platform,
    rows,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

    from housekeeping_pipelines.postgres.embedded import EmbeddedServer


def test_a_day_of_housekeeping_and_its_undo(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    before = rows(engine)
    result = installation.json("run-housekeeping")
    assert {key: result[key] for key in ("dry_run", "status", "deleted_conversations", "cleaned_messages")} == {
        "dry_run": False,
        "status": "succeeded",
        "deleted_conversations": OLD_CONVERSATIONS,
        "cleaned_messages": ORPHANED_MESSAGES,
    }
    assert result["deleted_users"] == UNUSED_ACCOUNTS
    assert result["stats"] == {
        "total_users": 5,
        "total_conversations": 20 - OLD_CONVERSATIONS,
        "total_messages": (20 - OLD_CONVERSATIONS) * MESSAGES_EACH,
        "recent_conversations_24h": 0,
        "recent_messages_24h": 0,
    }
    assert [report["task"] for report in result["reports"]] == [
        "delete_old_conversations",
        "cleanup_orphaned_messages",
        "cleanup_inactive_users",
        "generate_statistics",
    ]
    trash = installation.json("trash", "list")["runs"]
    assert {run["run_id"] for run in trash} == {result["run_id"]}
    assert sum(run["rows"] for run in trash) == sum(before.values()) - sum(rows(engine).values())
    undone = installation.json("undo", result["run_id"][:8])
    assert undone["run_id"] == result["run_id"]
    assert undone["conflicts"] == []
    assert rows(engine) == before
    assert installation.json("trash", "list")["runs"] == []


def test_a_dry_run_names_everything_and_changes_nothing(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    before = rows(engine)
    done = installation.run("run", "delete_old_conversations", "--dry-run")
    assert done.returncode == 0
    named = [line for line in done.stdout.splitlines() if line.startswith("would delete conversations/")]
    assert len(named) == OLD_CONVERSATIONS
    assert rows(engine) == before
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert f"would delete         {OLD_CONVERSATIONS}  conversations" in done.stdout


def test_one_task_that_fails_is_named_and_does_not_stop_the_next(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    mapping = "tables: {chat_messages: {columns: {created_at: sent}}}\n"
    (installation.directory / "housekeeping.yaml").write_text(mapping)
    done = installation.run("run-housekeeping", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 2
    assert result["status"] == "partial"
    assert (result["deleted_conversations"], result["stats"]) == (None, None)
    assert result["deleted_users"] == UNUSED_ACCOUNTS
    failed = result["reports"][0]
    assert failed["status"] == "failed"
    assert failed["message"].startswith("chat_messages has no column sent")
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    "change",
    ["DROP TABLE chat_messages", "ALTER TABLE chat_messages DROP COLUMN created_at"],
    ids=["no such table", "no such column"],
)
def test_a_task_for_which_the_platform_has_no_tables_is_skipped(
    engine: sa.Engine, installation: Installation, change: str
) -> None:
    make_platform(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(change)
    done = installation.run("run-housekeeping", "--json")
    reports = {report["task"]: report for report in json.loads(done.stdout)["reports"]}
    assert done.returncode == 0
    skipped = ["delete_old_conversations", "cleanup_orphaned_messages", "generate_statistics"]
    assert [task for task, report in reports.items() if report["status"] == "skipped"] == skipped
    assert reports["cleanup_inactive_users"]["status"] == "succeeded"
    assert "chat_messages" in reports["delete_old_conversations"]["message"]
    # Who asks for it alone is told that the mapping is to be looked at.
    alone = installation.run("run", "delete_old_conversations")
    assert (alone.returncode, "skipped" in alone.stdout) == (2, True)
    queued = installation.run("check", "--json").stdout
    checks = {check["name"]: check for check in json.loads(queued)["checks"]}
    for task in skipped:
        assert checks[f"task {task}"]["message"].startswith("disabled: "), task


def test_holds_and_the_kill_switch(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    hold = installation.json("hold", "add", "row:conversations/1", "--until", "2999-01-01", "--reason", "court")
    assert (hold["subject"], hold["exists"]) == ("row:conversations/1", True)
    report = installation.json("run", "delete_old_conversations")
    assert report["deleted"]["conversations"] == OLD_CONVERSATIONS - 1
    assert report["skipped"]["held"] == 1
    assert [h["id"] for h in installation.json("hold", "list")["holds"]] == [hold["id"]]
    assert installation.json("hold", "remove", str(hold["id"]))["removed"] == hold["id"]
    assert installation.run("hold", "remove", str(hold["id"])).returncode == 2

    assert installation.json("pause", "--reason", "migration")["paused"] is True
    refused = installation.run("run", "delete_old_conversations")
    assert refused.returncode == 3
    assert "paused: migration" in refused.stdout
    assert installation.json("resume")["paused"] is False
    assert installation.json("run", "delete_old_conversations")["deleted"]["conversations"] == 1
    assert installation.run("run", "delete_old_conversations", HOUSEKEEPING_PAUSED="true").returncode == 3


@pytest.mark.parametrize(
    "command",
    [
        ("pause",), ("resume",), ("undo", "abc"), ("trash", "list"), ("hold", "list"), ("hold", "remove", "1"),
        ("hold", "add", "user:1", "--until", "2999-01-01", "--reason", "case"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_beside_an_installation_nothing_is_made_and_the_command_says_so(
    installation: Installation, tmp_path: Path, command: tuple[str, ...]
) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    environ = {name: value for name, value in installation.environ.items() if name != "DATABASE_URL"}
    done = Installation(beside, installation.command, environ).run(*command)
    assert done.returncode == 2
    assert f"there is no platform in {beside}/.housekeeping, and DATABASE_URL is unset" in " ".join(done.stderr.split())
    assert list(beside.iterdir()) == []


def test_commands_name_the_database_that_they_acted_on(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    run = installation.json("run", "delete_old_conversations")["run_id"]
    hold = ("hold", "add", "user:1", "--until", "2999-01-01", "--reason", "case")
    for command in (("pause",), ("resume",), ("trash", "list"), hold, ("hold", "list"), ("undo", run)):
        assert f"the database {engine.url.database} on " in installation.json(*command)["database"], command
        assert f"the database {engine.url.database}" in " ".join(installation.run(*command).stdout.split()), command


def test_an_installation_is_used_from_the_folders_below_it(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    home = installation.directory
    (home / ".env").write_text(f"DATABASE_URL='{installation.environ['DATABASE_URL']}'\n")
    below = home / "a" / "b"
    below.mkdir(parents=True)
    environ = {name: value for name, value in installation.environ.items() if name != "DATABASE_URL"}
    there = Installation(below, installation.command, environ)
    assert there.json("pause")["paused"] is True
    assert there.run("run", "delete_old_conversations").returncode == 3
    assert installation.run("run", "delete_old_conversations").returncode == 3
    assert list(below.iterdir()) == []


@pytest.mark.parametrize("resource", ["database", "stores", "vectors", "sources"])
def test_a_run_cannot_be_given_another_database_or_store(resource: str) -> None:
    """Nor can it be asked for one in vain."""
    job = defs.resolve_job_def("delete_old_conversations_job")
    config = {"resources": {resource: {"config": {"variable": "OTHER_URL"}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match="variable"):
        dg.validate_run_config(job, config)


@pytest.mark.parametrize(
    ("settings", "status", "left"),
    [
        ({"DRY_RUN": "true"}, "succeeded", 20),
        ({"HOUSEKEEPING_PAUSED": "true"}, "refused", 20),
        ({"CONVERSATION_RETENTION_DAYS": "150"}, "succeeded", 20),
        ({"TRASH_RETENTION_DAYS": "0"}, "succeeded", 14),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else str(each),
)
def test_the_settings_of_who_queued_a_run_hold_for_it(
    engine: sa.Engine,
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    status: str,
    left: int,
) -> None:
    make_platform(engine)
    monkeypatch.setenv("DATABASE_URL", installation.environ["DATABASE_URL"])
    monkeypatch.chdir(installation.directory)
    job = defs.resolve_job_def("delete_old_conversations_job")
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {SETTINGS_TAG: json.dumps(settings)}
        result = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
        report = read_reports(instance, result.run_id)["delete_old_conversations"]
    assert (report.status, rows(engine)["conversations"]) == (status, left)
    assert bool(report.for_good) == ("TRASH_RETENTION_DAYS" in settings)


def test_a_queued_run_has_the_settings_of_who_queued_it(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    settings = load_settings(installation.directory, {**installation.environ, "DRY_RUN": "true"})
    launch.queue(settings, "delete_old_conversations_job", {})
    (command,) = asked
    tags = json.loads(command[command.index("--tags") + 1])
    assert json.loads(tags[SETTINGS_TAG])["DRY_RUN"] == "true"


def test_a_second_scheduler_is_refused_as_long_as_the_first_lives(
    engine: sa.Engine, installation: Installation
) -> None:
    first = (
        "import os, sys, sqlalchemy as sa\n"
        "from housekeeping_pipelines.postgres.process_lock import hold\n"
        "hold(sa.make_url(sys.argv[1]), 'scheduler', setting='DATABASE_URL')\n"
        "os.execv(sys.executable, [sys.executable, '-c', 'print(1, flush=True); input()'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", first, engine.url.render_as_string(hide_password=False)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.read(2) == b"1\n"
    try:
        for command in (("run-scheduler",), ("dev", "--port", "1")):
            done = installation.run(*command)
            assert done.returncode == 3
            assert f"a scheduler is running on the database {engine.url.database} already" in done.stderr
            assert str(process.pid) in done.stderr
    finally:
        process.kill()
        process.communicate()
    with engine.connect() as connection:
        until(lambda: not is_locked(connection, "scheduler"), seconds=20)


@pytest.mark.parametrize("as_json", [False, True])
def test_an_output_that_no_one_reads_makes_no_success_a_failure(
    engine: sa.Engine, installation: Installation, as_json: bool
) -> None:
    """As in a pipe to `head`."""
    make_platform(engine)
    run_id = installation.json("run", "delete_old_conversations")["run_id"]
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from housekeeping_pipelines.cli import main; main()", "undo", run_id]
    done = subprocess.run(
        [*command, *(["--json"] if as_json else [])], cwd=installation.directory, env=installation.environment(),
        stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, "BrokenPipe" in done.stderr) == (0, False), done.stderr
    assert rows(engine)["conversations"] == 20


def test_an_output_that_is_not_unicode_makes_no_success_a_failure(
    engine: sa.Engine, installation: Installation
) -> None:
    make_platform(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE conversations SET title = 'Füße ☃'")
    command = "from housekeeping_pipelines.cli import main; main()"
    plain = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    hold = ("hold", "add", "row:conversations/1", "--until", "2999-01-01T01:00+02:00", "--reason", "Füße ☃")
    for arguments in (("run", "delete_old_conversations"), hold, ("hold", "list"), ("check",)):
        done = installation.python("-c", command, *arguments, **plain)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    # The moment is in the zone that it is said to be in.
    assert "2998-12-31 23:00 UTC" in installation.python("-c", command, *hold, **plain).stdout
    listed = json.loads(installation.python("-c", command, "hold", "list", "--json", **plain).stdout)
    assert {hold["reason"] for hold in listed["holds"]} == {"Füße ☃"}


def test_a_second_run_of_a_task_is_skipped_with_a_reason(engine: sa.Engine, installation: Installation) -> None:
    from housekeeping_pipelines.postgres.locks import task_lock

    make_platform(engine)
    with engine.connect() as connection, task_lock(connection, "delete_old_conversations") as taken:
        assert taken
        done = installation.run("run", "delete_old_conversations", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["status"], report["deleted"]) == (0, "skipped", {})
    assert report["message"] == "another run is doing this now"


def test_a_rule_of_ones_own_needs_no_code(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE audit_log (id int PRIMARY KEY, at timestamptz, severity text);"
            "INSERT INTO audit_log SELECT i, now() - interval '1 day' * i, "
            "CASE WHEN mod(i, 2) = 0 THEN 'info' ELSE 'error' END FROM generate_series(1, 40) i"
        )
    (installation.directory / "housekeeping.yaml").write_text(
        "retention:\n"
        "  - {table: audit_log, age_column: at, older_than_days: 20, where: {severity: info}, batch_size: 3}\n"
    )
    result = installation.json("run-housekeeping")
    assert [report["task"] for report in result["reports"]][3:] == ["delete_old_audit_log", "generate_statistics"]
    # Days 20, 22, ... 40: the row of the 20th day is by now a moment older than that.
    assert result["reports"][3]["deleted"] == {"audit_log": 11}


def test_check_shows_settings_and_components(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    (installation.directory / ".env").write_text("TRASH_RETENTION_DAYS=3\n")
    (installation.directory / "housekeeping.yaml").write_text(
        'tables: {conversations: {name: convesations}}\nretention: [{table: "x\\"; DROP TABLE users; --", '
        "age_column: a, older_than_days: 1, name: hostile}]\n"
    )
    before = rows(engine)
    document = installation.json("check", TRASH_RETENTION_DAYS="9")
    setting = next(line for line in document["settings"] if line["variable"] == "TRASH_RETENTION_DAYS")
    assert (setting["value"], setting["origin"]) == ("3", ".env")
    assert setting["shadows"] == [{"origin": "environment", "value": "9"}]
    checks = {check["name"]: check for check in document["checks"]}
    assert document["status"] == "failed"
    assert checks["database"]["status"] == "ok"
    assert checks["table conversations"]["status"] == "failed"
    assert "the nearest names are conversations" in checks["table conversations"]["message"]
    assert checks["task delete_old_conversations"]["message"].startswith("disabled: ")
    assert checks["task hostile"]["message"].startswith('disabled: there is no table x"; DROP TABLE users; --')
    assert checks["task cleanup_inactive_users"]["status"] == "ok"
    assert rows(engine) == before
    text = installation.run("check")
    assert text.returncode == 1
    assert "hides" not in text.stdout
    assert "Traceback" not in text.stdout + text.stderr


def test_the_log_goes_to_a_file_and_may_be_rotated(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    log = installation.directory / "logs" / "housekeeping.log"
    done = installation.run("run", "delete_old_conversations", "--json", LOG_FILE=str(log))
    assert done.stderr == ""
    text = log.read_text()
    assert "delete_old_conversations: starts" in text
    assert "delete_old_conversations: takes 6 from conversations with chat_messages" in text
    assert "delete_old_conversations: succeeded; deleted " in text
    installation.run("run", "cleanup_orphaned_messages", LOG_FILE=str(log), LOG_LEVEL="ERROR")
    assert log.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run", "nothing"), 2, "there is no task 'nothing'"),
        (("run", "delete_old_conversations", "--config", '{"older_than_days": 0}'), 2, "older_than_days is 0"),
        (("run", "delete_old_conversations", "--config", '{"older_than_days": -3}'), 2, "older_than_days is -3"),
        (("run", "delete_old_conversations", "--config", '{"max_rows": 0}'), 2, "max_rows is 0"),
        (("run", "delete_old_conversations", "--config", '{"colour": 1}'), 2, "takes no colour"),
        (("run", "delete_old_conversations", "--config", "{"), 2, "--config is not JSON"),
        (("run", "delete_old_conversations", "--config", "[]"), 2, "--config is not a JSON object"),
        (("run", "daily_housekeeping", "--config", '{"dry_run": true}'), 2, "daily_housekeeping has no task dry_run"),
        (("run-housekeeping", "--task", "everything"), 2, "'everything' is not one of"),
        (("run-scheduler", "--cleanup-schedule", "at night"), 2, "--cleanup-schedule is 'at night'"),
        (("run-scheduler", "--sync-interval", "0"), 2, "--sync-interval is 0"),
        (("run-scheduler", "--sync-interval", "soon"), 2, "Invalid value for '--sync-interval'"),
        (("undo", "no-such-run"), 2, "the trash has nothing of a run 'no-such-run'"),
        (("hold", "add", "cat:1", "--until", "2999-01-01", "--reason", "x"), 2, "'cat:1' is not a valid subject"),
        (
            ("hold", "add", "row:users/x", "--until", "2999-01-01", "--reason", "x"),
            2,
            "'x' is not a valid key of users",
        ),
        (("hold", "add", "row:nix/1", "--until", "2999-01-01", "--reason", "x"), 2, "there is no table nix"),
        (("hold", "add", "user:1", "--until", "2001-01-01", "--reason", "x"), 2, "is in the past"),
        (("hold", "add", "user:1", "--until", "some day", "--reason", "x"), 2, "--until is 'some day'"),
        (("nonsense",), 2, "No such command 'nonsense'"),
        (("demo",), 2, "DATABASE_URL names a database of yours"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    engine: sa.Engine, installation: Installation, arguments: tuple[str, ...], code: int, says: str
) -> None:
    make_platform(engine)
    before = rows(engine)
    done = installation.run(*arguments, "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, says in error["message"]) == (code, True), error
    assert "\n" not in error["message"]
    assert "Traceback" not in done.stderr
    assert rows(engine) == before


@pytest.mark.parametrize(
    ("environ", "code", "says"),
    [
        ({"DATABASE_URL": "postgresql://u:p@127.0.0.1:1/x"}, 1, "cannot be reached"),
        ({"DATABASE_URL": "mysql://u:p@127.0.0.1/x"}, 2, "DATABASE_URL is "),
        ({"PURGE_TRASH_CRON": "never"}, 2, "PURGE_TRASH_CRON is 'never'"),
        ({"HOUSEKEEPING_CONFIG": "broken.yaml"}, 2, "broken.yaml"),
        ({"LOG_FILE": "/proc/nowhere/log"}, 2, "LOG_FILE is "),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    installation: Installation, environ: dict[str, str], code: int, says: str
) -> None:
    (installation.directory / "broken.yaml").write_text("tables: {conversations: [}\n")
    done = installation.run("run", "delete_old_conversations", **environ)
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.fixture
def restricted(server: EmbeddedServer, engine: sa.Engine) -> sa.URL:
    """The address of `engine`'s database for somebody who may connect with a password, and do little else."""
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA housekeeping CASCADE")
        connection.exec_driver_sql(
            "DO $$ BEGIN CREATE ROLE somebody LOGIN PASSWORD 'right'; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
        connection.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO somebody")
    rules = server.data / "pg_hba.conf"
    first = "local all somebody scram-sha-256\n"
    if not rules.read_text().startswith(first):
        rules.write_text(first + rules.read_text())
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT pg_reload_conf()")
    url = engine.url.set(drivername="postgresql", username="somebody", password="right")
    until(lambda: asks_for_password(url), seconds=10)
    return url


def asks_for_password(url: sa.URL) -> bool:
    import psycopg

    try:
        psycopg.connect(url.set(password="wr0ng").render_as_string(hide_password=False)).close()
    except psycopg.OperationalError:
        return True
    return False


def test_a_wrong_password_and_a_missing_permission(
    engine: sa.Engine, installation: Installation, restricted: sa.URL
) -> None:
    make_platform(engine)
    wrong = restricted.set(password="wr0ng").render_as_string(hide_password=False)
    done = installation.run("run", "delete_old_conversations", DATABASE_URL=wrong)
    assert done.returncode == 2
    assert "does not accept user 'somebody' with this password" in done.stdout
    assert "wr0ng" not in done.stdout + done.stderr
    right = restricted.render_as_string(hide_password=False)
    done = installation.run("migrate", "--json", DATABASE_URL=right)
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 2
    assert error["message"].startswith("user 'somebody' may not create the schema housekeeping")
    assert "GRANT CREATE ON DATABASE" in error["hint"]
    assert rows(engine)["conversations"] == 20


def test_a_database_of_dagster_that_does_not_answer_is_one_line(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    wrong = "postgresql://a:s3cr3t@127.0.0.1:1/dagster"
    done = installation.run("run", "generate_statistics", "--json", DAGSTER_PG_URL=wrong)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["type"], done.stderr) == (1, "Unavailable", "")
    assert error["message"].startswith("the database at 127.0.0.1:1 cannot be reached")
    assert "DAGSTER_PG_URL" in error["hint"]
    checks = {check["name"]: check for check in installation.json("check", DAGSTER_PG_URL=wrong)["checks"]}
    assert (checks["Dagster's storage"]["message"], checks["Dagster's storage"]["hint"]) == (
        error["message"],
        error["hint"],
    )
    assert "s3cr3t" not in done.stdout


def test_all_that_is_kept_may_be_removed_and_is_made_again(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    assert installation.run("init").returncode == 0
    shutil.rmtree(installation.directory / ".housekeeping")
    assert installation.json("run-housekeeping", "--task", "stats")["status"] == "succeeded"


def test_scheduler_info_keeps_the_known_ids(installation: Installation) -> None:
    document = installation.json("scheduler-info", TIME_ZONE="Europe/Berlin")
    assert document["status"] == "stopped"
    assert document["total_jobs"] == len(document["jobs"]) == 12
    assert [(job["id"], job["name"], job["trigger"]) for job in document["jobs"][:3]] == [
        ("daily_housekeeping", "Daily Housekeeping Tasks", "cron[hour='2', minute='0']"),
        ("weekly_cleanup", "Weekly Conversation Cleanup", "cron[day_of_week='sun', hour='3', minute='0']"),
        ("statistics_generation", "Generate System Statistics", "interval[0:06:00:00]"),
    ]
    assert "T02:00:00+0" in document["jobs"][0]["next_run_time"]
    without = {job["name"] for job in document["jobs"] if job["next_run_time"] is None}
    assert without == {"test_housekeeping_schedule", "drain_file_outbox_sensor", "watched_documents_sensor"}


def test_run_scheduler_runs_the_daemon_with_the_given_cron_and_interval(
    engine: sa.Engine, installation: Installation
) -> None:
    assert installation.run("init").returncode == 0
    make_platform(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO workspaces (slug, name) VALUES ('one', 'One');"
            "INSERT INTO documents (doc_id, filename, docpath, workspace_id, watched, metadata)"
            """ VALUES ('a', 'a.json', 'a.json', 1, true, '{"chunkSource": "link://http://127.0.0.1/"}')"""
        )

    def dagster(*arguments: str) -> subprocess.CompletedProcess[str]:
        return installation.python("-m", "dagster", *arguments)

    command = "from housekeeping_pipelines.cli import main; main()"
    with (installation.directory / "out.log").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", command, "run-scheduler", "--cleanup-schedule", "* * * * *", "--sync-interval", "5"],
            cwd=installation.directory,
            env=installation.environment(DRY_RUN="true", LOG_FILE="daemon.log"),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            # The defaults are once a day and every five minutes: runs within minutes are of what is given.
            wanted = {"daily_housekeeping_job", "sync_watched_documents_job"}
            until(lambda: wanted <= set(re.findall(r"\w+_job", dagster("run", "list").stdout)), seconds=150)
            document = installation.json("scheduler-info")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    assert document["status"] == "running"
    log = (installation.directory / "daemon.log").read_text()
    assert "Evaluating schedule `daily_housekeeping_schedule`" in log
    assert "delete_old_conversations: starts, dry run" in log
    # Once a run: the daemon and the run write into the same file.
    starts = re.findall(r"daily_housekeeping_job - (\S+) - .*delete_old_conversations: starts", log)
    assert len(starts) == log.count("delete_old_conversations: starts") == len(set(starts))


def test_init_lets_dagsters_own_commands_work(installation: Installation, tmp_path: Path) -> None:
    home = installation.json("init")["dagster_home"]
    assert home == str(installation.directory / ".housekeeping" / "dagster")
    listed = installation.python("-m", "dagster", "run", "list")
    assert listed.returncode == 0, listed.stderr


def test_a_missing_privilege_is_found_before_anything_goes(
    engine: sa.Engine, installation: Installation, restricted: sa.URL
) -> None:
    make_platform(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f'GRANT CREATE ON DATABASE "{engine.url.database}" TO somebody;'
            "GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO somebody"
        )
    before = rows(engine)
    right = restricted.render_as_string(hide_password=False)
    done = installation.run("run", "delete_old_conversations", DATABASE_URL=right)
    assert done.returncode == 3
    assert "user 'somebody' lacks INSERT on conversations" in done.stdout
    assert rows(engine) == before
    checks = {check["name"]: check for check in installation.json("check", DATABASE_URL=right)["checks"]}
    assert checks["task delete_old_conversations"]["status"] == "failed"
    assert "GRANT INSERT ON" in checks["task delete_old_conversations"]["hint"]


def test_dry_run_in_the_environment_makes_every_run_dry(engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    run_id = installation.json("run", "delete_old_conversations")["run_id"]
    before = rows(engine)
    assert installation.json("run", "generate_statistics", DRY_RUN="true")["dry_run"] is True
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM housekeeping.statistics_snapshots")) == 0
    done = installation.run("undo", run_id, DRY_RUN="true")
    assert done.returncode == 3
    assert "nothing is restored while DRY_RUN is true" in done.stdout
    assert rows(engine) == before
