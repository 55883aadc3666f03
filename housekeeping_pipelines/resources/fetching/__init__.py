"""The one way that an address which somebody else wrote is ever connected to.

Whoever may name a page to fetch could name the database, a router or the cloud's metadata instead. So a name is
resolved once, when a connection is opened; every address that it has must be public, or be allowed; and what was
checked is what is connected to, for redirects and for client libraries too. Proxies of the environment are not used:
a proxy would resolve names itself.

    FetchError
    ├── FetchRefused   it may not be fetched
    └── FetchFailed    it could not be
"""

from __future__ import annotations

from housekeeping_pipelines.resources.fetching.errors import FetchError, FetchFailed, FetchRefused
from housekeeping_pipelines.resources.fetching.fetcher import Fetcher
from housekeeping_pipelines.resources.fetching.policy import FetchPolicy, Response
from housekeeping_pipelines.resources.retry_after import retry_after

__all__ = ["FetchError", "FetchFailed", "FetchPolicy", "FetchRefused", "Fetcher", "Response", "retry_after"]
