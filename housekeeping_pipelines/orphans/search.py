"""What is looked for in a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta


@dataclass(frozen=True)
class Search:
    """What is looked for in a store.

    Attributes:
        store: its name.
        older_than: what was written since then is young.
        pattern: the extensions of what may go; None: all.
        recursive: False looks at the folder itself only.
        base_path: the folder of the store to which it is limited, absolute or relative to the store's.
    """

    store: str
    older_than: timedelta
    pattern: Collection[str] | None = None
    recursive: bool = True
    base_path: str | None = None
