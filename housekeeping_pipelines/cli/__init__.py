"""The `housekeeping` command.

Exit codes: 0 done, 1 failed or partial, 2 bad usage or configuration, 3 refused by a guard.
"""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Entry point: every error that a user can cause is one line, with its exit code."""
    from housekeeping_pipelines.cli.app import run

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What cannot be written in the output's encoding is no failure of what was done.
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))
