"""A page on loopback that changes while the demo watches it, so that a sync can be shown without configuration."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_PAGE = """<!doctype html><html><head><title>Visiting us</title></head><body><article><h1>Visiting us</h1>
<h2>Opening hours</h2><p>The office opens at {opens} on weekdays and closes at five. On Saturdays somebody is there
until noon; on Sundays and holidays nobody is.</p>
<h2>How to get here</h2><p>The tram stops at the harbour, three minutes from the door. There is a place for bicycles in
the yard behind the lighthouse.</p>
<h2>Questions</h2><p>Write to the front desk, and somebody answers within a day.</p></article></body></html>
"""


@dataclass
class SampleSite:
    """Serves one page while its `with` block runs; its version is its ETag."""

    opens: str = "nine"
    _http: ThreadingHTTPServer = field(init=False)

    def __post_init__(self) -> None:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                etag = f'"{site.opens}"'
                same = self.headers.get("If-None-Match") == etag
                body = b"" if same else _PAGE.format(opens=site.opens).encode()
                self.send_response_only(304 if same else 200)
                self.send_header("ETag", etag)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def host(self) -> str:
        """As FETCH_ALLOWED_HOSTS names it."""
        return f"127.0.0.1:{self._http.server_address[1]}"

    @property
    def reference(self) -> str:
        """The reference under which the page is watched."""
        return f"link://http://{self.host}/visiting-us"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
