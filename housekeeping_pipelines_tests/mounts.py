"""File systems that a test mounts."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system or act as another user")


@contextlib.contextmanager
def mounted(folder: Path, options: str = "size=1m") -> Iterator[Path]:
    """A file system of its own, in memory."""
    yield from _mounted(folder, "-t", "tmpfs", "-o", f"mode=755,{options}", "none")


@contextlib.contextmanager
def mounted_again(folder: Path, there: Path) -> Iterator[Path]:
    """A folder that is there a second time, on the same device."""
    yield from _mounted(folder, "--bind", str(there))


def _mounted(folder: Path, *what: str) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", *what, str(folder)], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
