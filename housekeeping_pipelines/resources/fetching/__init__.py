"""Fetches addresses that users supply, with a guard against server-side request forgery (SSRF).

A user-supplied address could name the database, a router or the cloud's metadata service. A name is therefore resolved
once, when a connection is opened; all of its addresses must be public or allowed; and the connection goes to the
address that was checked, for redirects and for client libraries too. Proxies of the environment are not used: a proxy
would resolve names itself.

    FetchError
    ├── FetchRefused   the address may not be fetched
    └── FetchFailed    the fetch did not succeed
"""

from __future__ import annotations

from housekeeping_pipelines.resources.fetching.errors import FetchError, FetchFailed, FetchRefused
from housekeeping_pipelines.resources.fetching.fetcher import Fetcher
from housekeeping_pipelines.resources.fetching.policy import FetchPolicy, Response
from housekeeping_pipelines.resources.retry_after import retry_after

__all__ = ["FetchError", "FetchFailed", "FetchPolicy", "FetchRefused", "Fetcher", "Response", "retry_after"]
