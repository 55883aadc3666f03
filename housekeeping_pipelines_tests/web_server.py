"""A web server on loopback whose answers are scripted: a path to an answer, or to what makes one or writes bytes."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    import ssl
    from email.message import Message


@dataclass(frozen=True)
class Asked:
    """A request as it came in; `headers` are of any case."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What is answered; a length is added, and nothing else."""

    body: bytes | str = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> Answer:
        return cls(json.dumps(value), status, {"Content-Type": "application/json", **headers})

    @classmethod
    def to(cls, location: str, status: int = 302) -> Answer:
        return cls(b"elsewhere", status, {"Location": location})

    @classmethod
    def html(cls, body: str, **headers: str) -> Answer:
        return cls(body, 200, {"Content-Type": "text/html; charset=utf-8", **headers})


@dataclass(frozen=True)
class Raw:
    """What is written to the connection, which is closed then."""

    write: Callable[[Callable[[bytes], None]], None]


Route = Answer | Raw | Callable[[Asked], Answer | Raw]


class WebServer:
    """Runs while its `with` block does; what has no route is answered by 404."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.routes: dict[str, Route] = {}
        self.requests: deque[Asked] = deque()
        self.stopping = threading.Event()
        server = self

        class Bound(_Handler):
            web = server

        self._http = _Server(("127.0.0.1", 0), Bound)
        if tls is not None:
            # The handshake is the handler's thread's, so that a client that refuses it stops nobody.
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._http.server_address[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def paths(self) -> list[str]:
        """What was asked for so far, in order."""
        return [asked.path for asked in self.requests]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Threads end with their connections.
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of a test."""


class _Handler(BaseHTTPRequestHandler):
    web: WebServer
    protocol_version = "HTTP/1.1"
    # Headers and body are written one after the other; the second would wait for the first to be acknowledged.
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        asked = Asked(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query)),
            self.headers,
            self.rfile.read(length) if length else b"",
        )
        self.web.requests.append(asked)
        route = self.web.routes.get(parts.path, Answer(b"nothing here", 404))
        answer = route(asked) if callable(route) else route
        if isinstance(answer, Raw):
            self.close_connection = True
            with suppress(OSError):
                answer.write(self._write)
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        content = answer.body.encode() if isinstance(answer.body, str) else answer.body
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and answer.status not in (204, 304):
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815

    def _write(self, data: bytes) -> None:
        if self.web.stopping.is_set():
            raise OSError("the server stops")
        self.connection.sendall(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
