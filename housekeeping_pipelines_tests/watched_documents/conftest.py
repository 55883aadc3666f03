"""What the tests of every source begin with: a web server, and who may fetch from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.resources.fetching import Fetcher, FetchPolicy
from housekeeping_pipelines_tests.web_server import WebServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture(scope="module")
def fetcher() -> Iterator[Fetcher]:
    opened = Fetcher(FetchPolicy(frozenset({"127.0.0.1"}), timeout_seconds=5.0))
    yield opened
    opened.close()
