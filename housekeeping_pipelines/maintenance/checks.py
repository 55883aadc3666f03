"""Whether files wait in the outbox that storage does not let go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from housekeeping_pipelines.deletion.drain import stuck
from housekeeping_pipelines.execution.checking import Check
from housekeeping_pipelines.execution.report import MAX_FAILED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.execution.checking import Surroundings


def check_outbox(surroundings: Surroundings) -> Iterator[Check]:
    """A line if there are any."""
    if not surroundings.has_schema or not (left := stuck(surroundings.connection)):
        return
    count = f"{len(left)} or more files" if len(left) >= MAX_FAILED else f"{len(left)} of the files to be removed"
    text = f"{count} failed again and again, such as {left[0][0]}: {left[0][1]}"
    yield Check("outbox", "warning", text, "fix the storage, then run `housekeeping run drain_file_outbox`")
