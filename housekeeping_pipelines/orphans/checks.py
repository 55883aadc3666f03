"""Whether everything that refers to a store's files can be found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.execution.checking import Check
from housekeeping_pipelines.stores.folders import BUCKET, MEDIA, UPLOADS
from housekeeping_pipelines.stores.stores import Stores
from housekeeping_pipelines.stores.undeclared_columns import TextColumn, text_columns, undeclared_columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.execution.checking import Surroundings

_TASKS = {"cleanup_orphan_documents": UPLOADS, "orphan_cleanup": MEDIA, "cleanup_orphan_objects": BUCKET}


def check_orphans(surroundings: Surroundings) -> Iterator[Check]:
    """A line for each task on a store of files."""
    stores = Stores(surroundings.settings)
    columns_of_text: list[TextColumn] | None = None
    for task, name in _TASKS.items():
        try:
            uses = stores.uses(name)
            uses.check_not_sample(surroundings.connection)
            sources = uses.columns(surroundings.connection)
            # A session keeps what is in its folder, and has to be found for that.
            uses.referenced_by_sessions(surroundings.connection, [])
        except HousekeepingError as error:
            yield Check.disabled(task, error)
        else:
            columns = ", ".join(source.label for source in sources)
            yield Check(f"task {task}", "ok", f"takes files of {name} that no row names by {columns}")
            if columns_of_text is None:
                columns_of_text = text_columns(surroundings.connection, surroundings.platform.catalog)
            labels = [source.label for source in sources]
            yield from _look_for_others(surroundings, stores, name, labels, columns_of_text)


def _look_for_others(
    surroundings: Surroundings, stores: Stores, name: str, declared: list[str], columns: list[TextColumn]
) -> Iterator[Check]:
    """A line for each column that names files of the store and that is not declared."""
    try:
        found = undeclared_columns(surroundings.connection, columns, stores.uses(name), declared, stores[name].stored)
    except HousekeepingError:
        # The line of the store says it.
        return
    for each in found:
        yield Check(
            f"references of {name}",
            "warning",
            f"{each.table}.{each.column} is not declared, and {each.named} of {each.sampled} sampled values name files"
            f" of it, such as {each.example!r}",
            f"declare it under references.{name} in housekeeping.yaml: {{table: {each.table}, column: {each.column}}}",
        )
