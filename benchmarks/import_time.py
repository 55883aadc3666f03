"""What importing the code location adds to `import dagster`, and which packages it goes to.

    python benchmarks/import_time.py [--rounds 15]

Each round is a fresh interpreter in an empty folder, with DATABASE_URL set as in production, that imports dagster
first and `housekeeping_pipelines.definitions` then. A package's share is the time of its own modules, as
`-X importtime` tells it, in one more interpreter; what it tells is slower than the truth by a tenth or so.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

TARGET_SECONDS = 0.5
SHOWN = 12

_TIMED = """
import time
start = time.perf_counter()
import dagster
between = time.perf_counter()
import housekeeping_pipelines.definitions
print(between - start, time.perf_counter() - between)
"""
_MARK = "the code location starts"
_TRACED = f"""
import sys
import dagster
print({_MARK!r}, file=sys.stderr)
import housekeeping_pipelines.definitions
"""


def run(*arguments: str, folder: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name.startswith(("LC_", "LANG", "PATH", "HOME"))
    }
    environment |= {"DATABASE_URL": "postgresql://user:password@localhost/platform", "HOUSEKEEPING_HOME": folder}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)


def shares(trace: str) -> tuple[dict[str, float], set[str]]:
    """Seconds by package of what was imported after the mark, and the names of all modules that were."""
    found: dict[str, float] = {}
    modules = set()
    for line in trace.partition(_MARK)[2].splitlines():
        if line.startswith("import time:"):
            own, _, name = line.removeprefix("import time:").split("|")
            name = name.strip()
            modules.add(name)
            package = name.partition(".")[0]
            found[package] = found.get(package, 0.0) + float(own) / 1e6
    return found, modules


def main() -> None:
    parser = argparse.ArgumentParser(description="What importing the code location adds to `import dagster`.")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        run("-c", _TIMED, folder=folder)
        times = [[float(t) for t in run("-c", _TIMED, folder=folder).stdout.split()] for _ in range(rounds)]
        found, modules = shares(run("-X", "importtime", "-c", _TRACED, folder=folder).stderr)
    dagster, added = ([one[place] for one in times] for place in (0, 1))
    for name, values in (("import dagster", dagster), ("the code location adds", added)):
        print(f"{name:<26}{statistics.median(values):>7.3f} s   {min(values):.3f}..{max(values):.3f}")
    print(f"{'  to reach':<26}{TARGET_SECONDS:>7.3f} s\n")
    for name, seconds in sorted(found.items(), key=lambda entry: -entry[1])[:SHOWN]:
        number = sum(module.partition(".")[0] == name for module in modules)
        print(f"{name:<26}{seconds:>7.3f} s   {number} modules")


if __name__ == "__main__":
    main()
