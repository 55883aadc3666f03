"""What is looked for in a store."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime, timedelta

    from housekeeping_pipelines.deletion.guards import SourceCount
    from housekeeping_pipelines.deletion.limits import Limits
    from housekeeping_pipelines.orphans.listing import Kind, Listable
    from housekeeping_pipelines.stores.references import ReferenceSource


@dataclass(frozen=True)
class Search:
    """What is looked for in a store.

    Attributes:
        store: the name of the store.
        older_than: the age floor; files written since then are too young.
        pattern: the extensions of files that may be deleted; None: all.
        recursive: False searches the folder itself only.
        base_path: the folder of the store to which the search is limited, absolute or relative to the store's.
    """

    store: str
    older_than: timedelta
    pattern: Collection[str] | None = None
    recursive: bool = True
    base_path: str | None = None

    def prefix(self, root: Path) -> str:
        """The prefix of the names to which the search is limited, in a store whose folder is `root`.

        Raises:
            ConfigurationError: `base_path` is not a folder within the store's.
        """
        if self.base_path is None:
            return ""
        inside = Path(os.path.normpath(root / self.base_path))
        if not inside.is_relative_to(root) or not inside.resolve().is_relative_to(root.resolve()):
            raise ConfigurationError(f"base_path {self.base_path!r} is not within {root}", hint="name a folder in it")
        if not inside.is_dir():
            raise ConfigurationError(
                f"base_path {self.base_path!r} is not a folder in {root}", hint="name an existing one"
            )
        name = inside.relative_to(root).as_posix()
        return "" if name == "." else f"{name}/"


class Kept(NamedTuple):
    """Of the names asked about, those that are kept although no reference source names them; no name is in two."""

    held: set[str]
    in_use: set[str]
    excluded: frozenset[str] = frozenset()


FindKept: TypeAlias = "Callable[[list[str]], Kept]"


@dataclass(frozen=True)
class Scan:
    """One search, with everything that it needs.

    Attributes:
        storage: what is listed.
        sources: every column that may refer to what is in it; at least one.
        floor: files that have been there since this time or later are young.
        kind: which names are listed, and which of them may be deleted.
        find_kept: tells which candidates must be kept for another reason.
        stored: tells which of some names the store has; needed where only a folder is listed.
        named_before: by the label of a source, when it last named files of the store.
        check_sources: refuses sources that name nothing.
        check_share: refuses too large a share of candidates.
        on_scanned: receives the number of files listed so far, at intervals.
    """

    storage: Listable
    sources: Sequence[ReferenceSource]
    floor: datetime
    limits: Limits
    kind: Kind
    find_kept: FindKept | None = None
    stored: Callable[[Collection[str]], set[str]] = lambda names: set()
    named_before: Mapping[str, datetime] = field(default_factory=dict)
    check_sources: Callable[[Sequence[SourceCount], str, Limits], None] = guards.check_sources
    check_share: Callable[[str, int, int, Limits], None] = guards.check_fraction
    on_scanned: Callable[[int], None] = lambda count: None
