"""Whether each store answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.checking import Check, Stopwatch
from housekeeping_pipelines.stores.folders import BUCKET, MEDIA, UPLOADS
from housekeeping_pipelines.stores.stores import Stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.settings import Settings


def check_stores(settings: Settings) -> Iterator[Check]:
    """A line for each."""
    stores = Stores(settings)
    configured = {
        UPLOADS: ("DIRECT_UPLOADS_PATH", settings.direct_uploads_path),
        MEDIA: ("MEDIA_PATH", settings.media_path),
        BUCKET: ("SUPABASE_URL", settings.supabase_url),
    }
    for name, (variable, given) in configured.items():
        watch = Stopwatch()
        try:
            storage = stores[name].storage
            storage.check()
        except HousekeepingError as error:
            yield Check.of(f"store {name}", error)
            continue
        latency = watch.latency_ms
        stands_in = f"; stands in while {variable} is unset" if given is None else ""
        kept = "" if stores[name].trash_prefix else "; removal from it is final"
        yield Check(f"store {name}", "ok", f"{storage.label}{stands_in}{kept}", latency_ms=latency)
