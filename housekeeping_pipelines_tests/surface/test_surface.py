"""Nothing that is relied on from outside changes unseen: it is compared with the files beside this one.

`pytest housekeeping_pipelines_tests/surface --rewrite-surface` writes them again; the difference is part of the review.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from housekeeping_pipelines_tests.support import make_platform
from housekeeping_pipelines_tests.surface import describing

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from housekeeping_pipelines_tests.support import Installation

HERE = Path(__file__).parent


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Compare a value with its file, or write it there."""

    def compare(name: str, value: Any) -> None:
        file = HERE / name
        text = value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
        if request.config.getoption("--rewrite-surface"):
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8")

    return compare


def test_definitions(keep: Callable[[str, Any], None]) -> None:
    from housekeeping_pipelines.definitions import defs

    names, prose = describing.split(describing.definitions(defs))
    keep("definitions.json", names)
    keep("descriptions.json", prose)


def test_bounds(keep: Callable[[str, Any], None]) -> None:
    keep("bounds.json", describing.bounds())


def test_commands(keep: Callable[[str, Any], None]) -> None:
    keep("commands.json", describing.commands())


def test_settings(keep: Callable[[str, Any], None]) -> None:
    names, prose = describing.split(describing.settings())
    keep("settings.json", names)
    keep("settings_descriptions.json", prose)


def test_exit_codes(keep: Callable[[str, Any], None]) -> None:
    keep("exit_codes.json", describing.exit_codes())


def test_help(keep: Callable[[str, Any], None], installation: Installation) -> None:
    """The wording; what can be typed is in commands.json."""
    texts = []
    for path in describing.commands():
        done = installation.run(*path.split()[1:], "--help")
        assert done.returncode == 0, done.stderr
        texts.append(re.sub(r" +$", "", done.stdout, flags=re.MULTILINE).strip())
    keep("help.txt", "\n\n".join(texts) + "\n")


def test_json(keep: Callable[[str, Any], None], engine: sa.Engine, installation: Installation) -> None:
    make_platform(engine)
    until = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    found: dict[str, Any] = {}

    def note(*arguments: str, name: str | None = None, **environ: str) -> Any:
        done = installation.run(*arguments, "--json", **environ)
        document = json.loads(done.stdout)
        found[name or " ".join(arguments)] = {"exit": done.returncode, "prints": describing.shape(document)}
        return document

    note("migrate")
    note("init")
    note("hold", "add", "row:conversations/1", "--until", until, "--reason", "kept", name="hold add")
    note("hold", "list")
    note("pause", "--reason", "a look")
    note("run", "delete_old_conversations", name="run, paused")
    note("resume")
    note("run-housekeeping", "--dry-run")
    for task in sorted(describing.tasks()):
        if task != "undo":
            note("run", task, "--dry-run")
    note("orphan-cleanup")
    note("cleanup-files", "--stats")
    note("cleanup-files", "--dry-run")
    note("scheduled-cleanup", name="scheduled-cleanup, off", AUTO_CLEANUP_ENABLED="false")
    note("test-cleanup", "--create-test-data")
    note("test-cleanup")
    run_id = note("run-housekeeping")["run_id"]
    note("trash", "list")
    note("undo", run_id, name="undo RUN_ID")
    note("hold", "remove", "1")
    note("watch", "list")
    note("run", "purge_trash")
    note("scheduler-info")
    note("check")
    note("run", "delete_old_conversations", "--queue", name="run --queue")
    note("run", "no_such_task")
    note("run", "purge_trash", "--config", '{"no_such": 1}', name="run, unknown argument")
    note("run", "delete_old_conversations", "--config", '{"batch_size": 0}', name="run, out of bounds")
    note("undo", "00000000", name="undo, unknown")
    note("no-such-command")
    note("check", name="check, wrong setting", DRY_RUN="perhaps")
    # Who reads JSON does not rely on the order of its keys.
    keep("json.json", json.loads(json.dumps(found, sort_keys=True)))
