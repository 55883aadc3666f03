from __future__ import annotations

from typing import TYPE_CHECKING

from housekeeping_pipelines.execution.progress import SECONDS_BETWEEN_LINES, LogObserver

if TYPE_CHECKING:
    import pytest


def test_a_long_run_says_how_far_it_is_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    seconds = 0.0
    observer = LogObserver(lambda: seconds)
    with caplog.at_level("INFO"):
        observer.on_start("delete_old", "items", 10_000, dry_run=False)
        for done in range(100, 10_001, 100):
            seconds += SECONDS_BETWEEN_LINES / 10
            observer.on_progress("delete_old", done, 10_000, done * 5)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "delete_old: takes 10,000 from items"
    assert lines[1] == "delete_old: 1,000 of 10,000 done, 5,000 rows, 33 a second; 9,000 left, about 270 s"
    assert len(lines) == 11
