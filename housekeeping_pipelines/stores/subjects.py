"""Which files a person means who puts a hold on a name."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from housekeeping_pipelines.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from housekeeping_pipelines.deletion.store import Store


def held_names(store: Store, name: str) -> Sequence[str]:
    """The names in the store that a name means, or the folder that it means, which ends with a slash.

    Returns:
        no name if storage does not answer, so that what is there is unknown.

    Raises:
        ConfigurationError: the store has nothing of the name.
        StorageRefused: it cannot be asked.
    """
    try:
        if files := store.uses.meant([name], store.stored)[name]:
            return sorted(files)
        for folder in _folders(name):
            if next(iter(store.storage.list(folder, details=False)), None) is not None:
                return [folder]
    except Unavailable:
        return []
    raise ConfigurationError(
        f"there is no file or folder {name!r} in {store.storage.label}",
        hint="check the name: a hold is put on what is there",
    )


def _folders(name: str) -> Iterator[str]:
    yield f"{name.strip('/')}/"
    if (decoded := unquote(name)) != name:
        yield f"{decoded.strip('/')}/"
