"""Retries are told to our log, and never to standard output, where `--json` prints its document."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from housekeeping_pipelines.retries import retry_context

if TYPE_CHECKING:
    import pytest


def test_a_retry_is_in_the_log_alone(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    tried = 0
    with caplog.at_level(logging.INFO, "housekeeping_pipelines"):
        for attempt in retry_context(on=ValueError, attempts=3, wait_initial=0.001, wait_jitter=0):
            with attempt:
                tried += 1
                if tried < 2:
                    raise ValueError("a secret of the statement")
    assert tried == 2
    assert capfd.readouterr() == ("", "")
    assert "after ValueError" in caplog.text
    assert "secret" not in caplog.text
