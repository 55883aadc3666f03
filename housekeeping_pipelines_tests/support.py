"""A platform with rows whose ages are far from every boundary, and the command as a subprocess."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from housekeeping_pipelines.application import tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# What make_platform makes, and what a daily run takes of it.
OLD_CONVERSATIONS = 6
MESSAGES_EACH = 3
ORPHANED_MESSAGES = 4
UNUSED_ACCOUNTS = 2


def make_platform(engine: sa.Engine) -> None:
    """Twenty conversations, six of them old and one of these pinned besides; orphans; accounts never used."""
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
        connection.execute(
            sa.text(
                """
                INSERT INTO users (username, email, date_joined, email_verified_at, last_login)
                SELECT 'user' || i, 'user' || i || '@example.com', now() - interval '300 days', now(), now()
                FROM generate_series(1, 5) i;
                INSERT INTO users (username, email, date_joined)
                SELECT 'unused' || i, 'x', now() - interval '90 days' FROM generate_series(1, 2) i;
                INSERT INTO conversations (user_id, title, created_at, updated_at, pinned)
                SELECT 1 + mod(i, 5), 'talk ' || i, now() - interval '200 days',
                       now() - CASE WHEN i <= 7 THEN interval '100 days' ELSE interval '2 days' END, i = 7
                FROM generate_series(1, 20) i;
                INSERT INTO chat_messages (conversation_id, role, content, created_at)
                SELECT c.id, 'user', 'text', c.updated_at FROM conversations c, generate_series(1, 3);
                INSERT INTO chat_messages (conversation_id, role, content, created_at)
                SELECT NULL, 'user', 'lost', now() - interval '3 days' FROM generate_series(1, 4);
                """
            )
        )


def rows(engine: sa.Engine) -> dict[str, int]:
    """Rows by table."""
    with engine.connect() as connection:
        return {
            name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for name, table in tables.metadata.tables.items()
        }


@dataclass(frozen=True)
class Installation:
    """A folder in which somebody works with the command, and nothing of this machine's environment but PATH."""

    directory: Path
    command: Path
    environ: dict[str, str] = field(default_factory=dict)

    def environment(self, **more: str) -> dict[str, str]:
        path = os.pathsep.join([str(self.command.parent), os.environ["PATH"]])
        # Tests give files the times that they need.
        given = {"PATH": path, "HOME": str(self.directory), "COLUMNS": "80", "TRUST_MTIME": "true"}
        return given | self.environ | more

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """`housekeeping` with these arguments."""
        return self._call(str(self.command), *arguments, **environ)

    def python(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """The interpreter of the tests."""
        return self._call(sys.executable, *arguments, **environ)

    def _call(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        env = self.environment(**environ)
        return subprocess.run(command, cwd=self.directory, env=env, capture_output=True, text=True, check=False)

    def json(self, *arguments: str, **environ: str) -> Any:
        """What the command prints with `--json`."""
        done = self.run(*arguments, "--json", **environ)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"no JSON: {done.stdout!r} {done.stderr!r}") from None


def until(condition: Callable[[], Any], *, seconds: float) -> Any:
    """What the condition gives as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.2)
