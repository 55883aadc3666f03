"""`make mutants`: a line for each decision, and exit code 1 if a test suite does not notice one."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from housekeeping_pipelines_tests.mutants.decisions import MUTANTS
from housekeeping_pipelines_tests.mutants.running import copy_project, is_caught


def main() -> int:
    """Try those whose description contains an argument, or all."""
    wanted = [each for each in MUTANTS if not sys.argv[1:] or any(word in each.keeps for word in sys.argv[1:])]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="housekeeping-mutants-") as folder:
        # Root's server runs as another account.
        Path(folder).chmod(0o755)
        copy_project(Path(folder))
        for mutant in wanted:
            started = time.monotonic()
            caught = is_caught(mutant, Path(folder))
            missed += not caught
            verdict = "caught" if caught else "NOT NOTICED"
            sys.stdout.write(f"{verdict:<12} {mutant.keeps} ({mutant.file}, {time.monotonic() - started:.0f} s)\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(wanted) - missed} of {len(wanted)} caught\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
