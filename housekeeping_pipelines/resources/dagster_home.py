"""DAGSTER_HOME, created under HOUSEKEEPING_HOME, so that Dagster's state stays out of the project's root.

The only source of Dagster's configuration is the project's dagster.yaml. In a checkout the home links to it, so
edits apply at once. A wheel contains a copy, and an upgrade replaces the copy in the home unless it was edited.
"""

from __future__ import annotations

import hashlib
import io
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dotenv.parser import parse_stream

import housekeeping_pipelines
from housekeeping_pipelines.atomic_files import is_open_to_others, make_folder, replace_file, replace_with_link
from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from housekeeping_pipelines.settings import Settings

_CONFIGURATION = "dagster.yaml"
_VARIABLE = "DAGSTER_HOME"
_SIGNATURE = b"# An upgrade of housekeeping-pipelines replaces this file unless it was edited: "


def dagster_home(settings: Settings, package: Path | None = None) -> Path:
    """The folder `<HOUSEKEEPING_HOME>/dagster` with a dagster.yaml in it, both created if absent.

    A dagster.yaml that a user wrote or edited there is kept.

    Args:
        settings: for HOUSEKEEPING_HOME.
        package: the folder of the package that contains dagster.yaml or lies beside it; this one by default.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    package = package or Path(housekeeping_pipelines.__file__).parent
    carried, beside = package / _CONFIGURATION, package.parent / _CONFIGURATION
    home = settings.housekeeping_home / "dagster"
    file = home / _CONFIGURATION
    try:
        make_folder(home)
        for folder in (home.parent, home):
            if is_open_to_others(folder):
                raise ConfigurationError(
                    f"any account may write to {folder}, and Dagster executes what a file in it says",
                    hint=f"chmod o-w {shlex.quote(str(folder))}",
                )
        if not _is_ours(file):
            return home
        if not carried.exists():
            replace_with_link(file, beside)
        elif not file.exists() or file.read_bytes() != _signed(carried.read_bytes()):
            replace_file(file, _signed(carried.read_bytes()))
    except OSError as error:
        raise _unwritable(error, home) from error
    return home


def workspace_file() -> Path:
    """The project's workspace.yaml, which names the code location to Dagster's processes."""
    package = Path(housekeeping_pipelines.__file__).parent
    carried = package / "workspace.yaml"
    return carried if carried.exists() else package.parent / "workspace.yaml"


def write_env_file(directory: Path, home: Path) -> Path:
    """Set DAGSTER_HOME to `home` in `directory/.env`, for Dagster's commands; returns its value afterwards.

    No other line is changed. A DAGSTER_HOME line that names an existing folder is the user's, and is kept.

    Raises:
        ConfigurationError: the file cannot be read or written.
    """
    # python-dotenv's `set_key` rewrites line ends and every line of this name, and fails at bytes that are not UTF-8.
    file = (directory / ".env").resolve()
    value = str(home.absolute()).replace("\\", "\\\\").replace("'", "\\'")
    line = f"{_VARIABLE}='{value}'"
    try:
        before = file.read_bytes().decode(errors="surrogateescape") if file.exists() else ""
        bindings = [*parse_stream(io.StringIO(before, newline=""))]
        ours = [index for index, binding in enumerate(bindings) if binding.key == _VARIABLE]
        if ours:
            # The last one counts. A parsed binding includes the empty lines around it.
            named, old = bindings[ours[-1]].value, bindings[ours[-1]].original.string
            if named and (directory / named).is_dir():
                return directory / named
            start = len(before) - sum(len(binding.original.string) for binding in bindings[ours[-1] :])
            after = before[:start] + old.replace(old.strip(), line) + before[start + len(old) :]
        else:
            gap = "" if before.endswith(("\n", "\r", "\ufeff")) or not before else "\n"
            after = f"{before}{gap}{line}\n"
        replace_file(file, after.encode(errors="surrogateescape"))
    except OSError as error:
        raise _unwritable(error, file) from error
    return home.absolute()


def _signed(content: bytes) -> bytes:
    return _SIGNATURE + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def _is_ours(file: Path) -> bool:
    """Whether it is absent, a broken link, or an unedited copy."""
    if not file.exists():
        return True
    content = file.read_bytes()
    return not file.is_symlink() and content == _signed(content.partition(b"\n")[2])


def _unwritable(error: OSError, place: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{error.filename or place}: {error.strerror}",
        hint="run this in a folder that this account can write, and set HOUSEKEEPING_HOME to one",
    )
