from __future__ import annotations

import pytest

from housekeeping_pipelines.tasks.scheduler_status import trigger_text


@pytest.mark.parametrize(
    ("cron", "text"),
    [
        ("0 2 * * *", "cron[hour='2', minute='0']"),
        ("0 3 * * 0", "cron[day_of_week='sun', hour='3', minute='0']"),
        ("0 */6 * * *", "interval[0:06:00:00]"),
        ("30 4 1 * *", "cron[day='1', hour='4', minute='30']"),
        ("*/5 * * * *", "cron[minute='*/5']"),
        ("0 */5 * * *", "cron[hour='*/5', minute='0']"),
    ],
)
def test_triggers_are_written_as_the_replaced_system_wrote_them(cron: str, text: str) -> None:
    assert trigger_text(cron) == text
