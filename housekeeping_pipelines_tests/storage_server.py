"""A storage server on loopback that answers as Supabase Storage 1.11.2 was measured to, faults included.

It keeps one address space of buckets in memory. What it takes for a key is a JSON Web Token (HS256) whose `role` is
`service_role`, which may do everything; `reader`, which may not delete; or `anon`, which sees nothing.
"""

from __future__ import annotations

import base64
import bisect
import builtins
import hashlib
import hmac
import json
import socket
import struct
import threading
import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PREFIX = "/storage/v1/"
ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_/!-.*'() &$@=;:+,?")


class StorageFailure(Exception):
    """An error of the server's own: HTTP 400 for all but 500, and the status as text in the body."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"statusCode": str(status), "error": error, "message": message, "code": error}

    @property
    def http_status(self) -> int:
        return 500 if self.status == 500 else 400


@dataclass
class Row:
    """One object."""

    name: str
    content: bytes
    created_at: datetime
    updated_at: datetime
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    version: str = field(default_factory=lambda: str(uuid.uuid4()))
    # A row whose upload never ended has none.
    has_metadata: bool = True
    undeletable: bool = False
    file_gone: bool = False


@dataclass(frozen=True)
class Fault:
    """What happens instead of the answer, to the next `times` requests of one operation (any, if it is empty).

    Attributes:
        kind: `json` and `html` answer with `status`; `reset` breaks the connection before anything is done,
            `reset_after` when it is done; `late` does it when the client has gone, and answers nobody.
        body: of the answer, if it is not the usual one of this kind.
    """

    kind: str
    operation: str = ""
    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None


@dataclass(frozen=True)
class Request:
    """One request as it came in; `at` is in seconds of the monotonic clock."""

    operation: str
    at: float
    size: int
    body: Any


class StorageServer:
    """Runs while its `with` block does; `faults` is worked off from the left, an element a request that it fits."""

    def __init__(self, *buckets: str) -> None:
        self.secret = uuid.uuid4().hex
        self.buckets: dict[str, dict[str, Row]] = {bucket: {} for bucket in buckets or ("uploads",)}
        self.faults: deque[Fault] = deque()
        self.requests: list[Request] = []
        self.gone_late = threading.Event()
        self.before: dict[str, Callable[[], None]] = {}
        self.lock = threading.RLock()
        self._names: dict[str, tuple[int, list[str]]] = {}
        self._changes = 0
        self._port = 0
        self._http: _Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; on the same port as before if it had been stopped."""
        server = self

        class Bound(_Handler):
            storage = server

        self._http = _Server(("127.0.0.1", self._port), Bound)
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening and break every connection."""
        assert self._http is not None
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._http.connections):
            _reset(connection)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def key(self) -> str:
        return self.key_for("service_role")

    def key_for(self, role: str, *, secret: str | None = None, **claims: Any) -> str:
        """A signed token; with another secret, one that this server does not accept."""
        signed = f"{_token_part({'alg': 'HS256', 'typ': 'JWT'})}.{_token_part({'role': role, **claims})}"
        return f"{signed}.{_signature(signed, secret or self.secret)}"

    def put(
        self, names: Iterable[str], content: bytes = b"content", bucket: str = "uploads", **attributes: Any
    ) -> None:
        """Rows that are simply there, whatever their names."""
        with self.lock:
            for name in names:
                now = _now()
                row = Row(name, content, now, now)
                for attribute, value in attributes.items():
                    setattr(row, attribute, value)
                self.buckets[bucket][name] = row
            self.changed()

    def names(self, bucket: str = "uploads") -> list[str]:
        """Every name there is, in the order of its bytes."""
        with self.lock:
            if self._names.get(bucket, (-1, []))[0] != self._changes:
                self._names[bucket] = (self._changes, sorted(self.buckets[bucket]))
            return self._names[bucket][1]

    def changed(self) -> None:
        self._changes += 1

    def counts(self) -> Counter[str]:
        """How many requests came in, by operation."""
        return Counter(request.operation for request in self.requests)

    def fault_for(self, operation: str) -> Fault | None:
        with self.lock:
            if self.faults and self.faults[0].operation in ("", operation):
                return self.faults.popleft()
            return None

    def role(self, header: str | None) -> str:
        """The role that a request acts as."""
        if header is None:
            raise StorageFailure(400, "Error", "headers must have required property 'authorization'")
        signed, _, signature = header.removeprefix("Bearer ").rpartition(".")
        if signed.count(".") != 1:
            raise StorageFailure(403, "Unauthorized", "Invalid Compact JWS")
        if not hmac.compare_digest(signature, _signature(signed, self.secret)):
            raise StorageFailure(403, "Unauthorized", "signature verification failed")
        payload = signed.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if claims.get("exp", float("inf")) < time.time():
            raise StorageFailure(403, "Unauthorized", '"exp" claim timestamp check failed')
        role = claims["role"]
        if role not in ("service_role", "reader", "anon"):
            raise StorageFailure(500, "DatabaseError", f'role "{role}" does not exist')
        return str(role)


@dataclass
class _Operations:
    """What the server does for one role; every method returns what is answered as JSON."""

    server: StorageServer
    role: str

    def rows(self, bucket: str) -> dict[str, Row]:
        """What this role sees of a bucket, which is nothing if there is none."""
        return {} if self.role == "anon" else self.server.buckets.get(bucket, {})

    def existing(self, bucket: str) -> dict[str, Row]:
        if self.role == "anon" or bucket not in self.server.buckets:
            raise StorageFailure(404, "Bucket not found", "Bucket not found")
        return self.server.buckets[bucket]

    def get_bucket(self, bucket: str) -> dict[str, Any]:
        self.existing(bucket)
        now = _text(_now())
        return {
            "id": bucket,
            "name": bucket,
            "owner": "",
            "public": False,
            "type": "STANDARD",
            "file_size_limit": None,
            "allowed_mime_types": None,
            "created_at": now,
            "updated_at": now,
        }

    def list_v2(self, bucket: str, body: dict[str, Any]) -> dict[str, Any]:
        limit = _limit(body.get("limit", 1000), 1000)
        prefix = body.get("prefix", "")
        after = ""
        if cursor := body.get("cursor"):
            try:
                after = base64.b64decode(cursor, validate=True).decode()
            except ValueError:
                raise StorageFailure(400, "InvalidParameter", "Invalid Parameter cursor") from None
            if not after.startswith("l:"):
                raise StorageFailure(400, "InvalidParameter", "Invalid Parameter cursor")
            after = after[2:]
        rows = self.rows(bucket)
        names = self.server.names(bucket) if rows else []
        start = max(bisect.bisect_left(names, prefix), bisect.bisect_right(names, after) if after else 0)
        if body.get("with_delimiter"):
            return self._one_level(rows, names[start:], prefix, after, limit)
        found = []
        for name in names[start : start + limit + 1]:
            if not name.startswith(prefix):
                break
            found.append(name)
        return {
            "hasNext": len(found) > limit,
            "folders": [],
            "objects": [_entry(rows[name], name) | {"key": name} for name in found[:limit]],
            **({"nextCursor": _cursor(found[limit - 1])} if len(found) > limit else {}),
        }

    @staticmethod
    def _one_level(rows: dict[str, Row], names: list[str], prefix: str, after: str, limit: int) -> dict[str, Any]:
        entries: dict[str, Row | None] = {}
        for name in names:
            if not name.startswith(prefix):
                break
            head, slash, _ = name[len(prefix) :].partition("/")
            if slash and prefix + head + slash > after:
                entries[prefix + head + slash] = None
            elif not slash:
                entries[name] = rows[name]
        found = list(entries)
        page = found[:limit]
        return {
            "hasNext": len(found) > limit,
            "folders": [{"name": name, "key": name} for name in page if entries[name] is None],
            "objects": [_entry(row, name) | {"key": name} for name in page if (row := entries[name]) is not None],
            **({"nextCursor": _cursor(page[-1])} if len(found) > limit else {}),
        }

    def list(self, bucket: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """One level; at most 1500 entries, and names that differ in case only are one."""
        limit, offset = _limit(body.get("limit", 100), 1500), body.get("offset", 0)
        prefix = body.get("prefix", "")
        prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        entries: dict[str, dict[str, Any]] = {}
        for name, row in sorted(self.rows(bucket).items(), key=lambda item: item[0].lower()):
            if name.lower().startswith(prefix.lower() + body.get("search", "").lower()):
                head, slash, _ = name[len(prefix) :].partition("/")
                folder = {**dict.fromkeys(_entry(row, head)), "name": head}
                entries.setdefault(head.lower(), folder if slash else _entry(row, head))
        return list(entries.values())[offset : offset + limit]

    def remove(self, bucket: str, body: dict[str, Any]) -> builtins.list[dict[str, Any]]:
        names = body.get("prefixes") or []
        if not names:
            raise StorageFailure(400, "Error", "body/prefixes must NOT have fewer than 1 items")
        if any("\0" in name for name in names):
            raise StorageFailure(500, "DatabaseError", "invalid byte sequence for encoding")
        rows = {} if self.role == "reader" else self.rows(bucket)
        removed = []
        with self.server.lock:
            for start in range(0, len(names), 500):
                transaction = [rows[name] for name in dict.fromkeys(names[start : start + 500]) if name in rows]
                if any(row.undeletable for row in transaction):
                    for row in transaction:
                        row.file_gone = not row.undeletable
                    raise StorageFailure(500, "Internal", "Internal Server Error")
                for row in transaction:
                    del rows[row.name]
                    removed.append(_entry(row, row.name) | {"bucket_id": bucket, "version": row.version})
                self.server.changed()
        return removed

    def info(self, bucket: str, name: str) -> dict[str, Any]:
        row = self._row(bucket, name)
        return {"id": row.id, "name": name, "bucket_id": bucket, "size": len(row.content), "version": row.version}

    def move(self, body: dict[str, Any]) -> dict[str, Any]:
        bucket, source, target = body["bucketId"], body["sourceKey"], body["destinationKey"]
        with self.server.lock:
            _must_be_valid(target)
            row = self._row(bucket, source)
            rows = self._writable(bucket)
            if target in rows and target != source:
                raise StorageFailure(409, "Duplicate", "The resource already exists")
            if row.file_gone:
                raise StorageFailure(500, "Internal", "Internal Server Error")
            del rows[source]
            row.name, row.updated_at, row.version = target, _now(), str(uuid.uuid4())
            rows[target] = row
            self.server.changed()
        return {"message": "Successfully moved"}

    def copy(self, body: dict[str, Any]) -> dict[str, Any]:
        bucket, target = body["bucketId"], body["destinationKey"]
        with self.server.lock:
            _must_be_valid(target)
            row = self._row(bucket, body["sourceKey"])
            if target in self._writable(bucket):
                raise StorageFailure(409, "Duplicate", "The resource already exists")
            self.server.put([target], row.content, bucket)
        return {"Key": f"{bucket}/{target}", "Id": self.server.buckets[bucket][target].id}

    def upload(self, bucket: str, name: str, content: bytes, *, upsert: bool) -> dict[str, Any]:
        with self.server.lock:
            rows = self._writable(bucket)
            _must_be_valid(name)
            before = rows.get(name)
            if before is not None and not upsert:
                raise StorageFailure(409, "Duplicate", "The resource already exists")
            self.server.put([name], content, bucket)
            if before is not None:
                rows[name].id, rows[name].created_at = before.id, before.created_at
        return {"Key": f"{bucket}/{name}", "Id": rows[name].id}

    def download(self, bucket: str, name: str) -> bytes:
        row = self._row(bucket, name)
        if row.file_gone:
            raise StorageFailure(500, "Internal", "Internal Server Error")
        return row.content

    def _row(self, bucket: str, name: str) -> Row:
        rows = self.existing(bucket)
        if name not in rows:
            raise StorageFailure(404, "not_found", "Object not found")
        return rows[name]

    def _writable(self, bucket: str) -> dict[str, Row]:
        rows = self.existing(bucket)
        if self.role != "service_role":
            raise StorageFailure(403, "Unauthorized", "new row violates row-level security policy")
        return rows


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    storage: StorageServer
    protocol_version = "HTTP/1.1"
    # A small answer is one packet, at once.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(size)
        parts = [unquote(part) for part in self.path.split("?")[0].removeprefix(PREFIX).split("/")]
        operation = self._operation(parts)
        body = json.loads(content) if operation in _JSON and content else content
        self.storage.requests.append(Request(operation, time.monotonic(), size, body))
        if (hook := self.storage.before.get(operation)) is not None:
            hook()
        fault = self.storage.fault_for(operation)
        if fault is not None and fault.kind in ("json", "html", "reset"):
            self._fail(fault)
            return
        try:
            if operation in _JSON and size > 1024 * 1024:
                raise StorageFailure(413, "FastifyError", "Request body is too large")
            if fault is not None and fault.kind == "late":
                self._wait_until_the_client_has_gone()
            answer = self._answer(operation, parts, body)
        except StorageFailure as failure:
            self._send(failure.http_status, json.dumps(failure.body).encode())
            return
        if fault is not None:
            self.storage.gone_late.set()
            self._break()
            return
        if isinstance(answer, bytes):
            self._send(200, answer, "application/octet-stream")
        else:
            self._send(200, json.dumps(answer).encode())

    def _operation(self, parts: list[str]) -> str:
        match self.command, parts:
            case "GET", ["bucket", _]:
                return "get_bucket"
            case "POST", ["object", "list-v2", _]:
                return "list_v2"
            case "POST", ["object", "list", _]:
                return "list"
            case "POST", ["object", ("move" | "copy") as operation]:
                return operation
            case "DELETE", ["object", _]:
                return "remove"
            case "GET", ["object", "info", _, *_]:
                return "info"
            case (("POST" | "PUT"), ["object", _, _, *_]):
                return "upload"
            case "GET", ["object", _, _, *_]:
                return "download"
        return "unknown"

    def _answer(self, operation: str, parts: list[str], body: Any) -> Any:
        do = _Operations(self.storage, self.storage.role(self.headers.get("Authorization")))
        match operation:
            case "get_bucket":
                return do.get_bucket(parts[1])
            case "list_v2" | "list":
                return getattr(do, operation)(parts[2], body)
            case "move" | "copy":
                return getattr(do, operation)(body)
            case "remove":
                return do.remove(parts[1], body)
            case "info":
                return do.info(parts[2], "/".join(parts[3:]))
            case "upload":
                content = _form_file(self.headers["Content-Type"], body)
                upsert = self.command == "PUT" or self.headers.get("x-upsert") == "true"
                return do.upload(parts[1], "/".join(part for part in parts[2:] if part), content, upsert=upsert)
            case "download":
                return do.download(parts[1], "/".join(parts[2:]))
        raise StorageFailure(404, "Not Found", f"Route {self.command}:{self.path} not found")

    def _fail(self, fault: Fault) -> None:
        if fault.kind == "reset":
            self._break()
            return
        as_json = {"message": "API rate limit exceeded" if fault.status == 429 else "no upstream"}
        page = b"<html><body>\n<h1>Bad Gateway</h1>\n</body></html>"
        body = fault.body if fault.body is not None else json.dumps(as_json).encode() if fault.kind == "json" else page
        self._send(fault.status, body, "text/html" if fault.kind == "html" else "application/json", fault.headers)

    def _send(
        self, status: int, body: bytes, kind: str = "application/json", headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _break(self) -> None:
        self.close_connection = True
        _reset(self.connection)

    def _wait_until_the_client_has_gone(self) -> None:
        self.connection.settimeout(30)
        self.connection.recv(1, socket.MSG_PEEK)


_JSON = frozenset({"list_v2", "list", "move", "copy", "remove"})


def _reset(connection: socket.socket) -> None:
    """End a connection at once, as a killed process does."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _form_file(kind: str, body: bytes) -> bytes:
    """The part `file` of a multipart form."""
    boundary = b"--" + kind.partition("boundary=")[2].encode()
    for part in body.split(boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return content.removesuffix(b"\r\n")
    raise StorageFailure(400, "InvalidRequest", "there is no file")


def _must_be_valid(name: str) -> None:
    if not name or not set(name) <= ALLOWED:
        raise StorageFailure(400, "InvalidKey", f"Invalid key: {name}")


def _limit(limit: int, cap: int) -> int:
    if limit < 1:
        raise StorageFailure(400, "Error", "body/limit must be >= 1")
    if limit >= 2**31:
        raise StorageFailure(500, "DatabaseError", "value out of range for type integer")
    return min(limit, cap)


def _entry(row: Row, name: str) -> dict[str, Any]:
    size, changed = len(row.content), _text(row.updated_at)
    tag = f'"{hashlib.md5(row.content).hexdigest()}"'
    metadata = {
        "eTag": tag,
        "size": size,
        "mimetype": "text/plain",
        "cacheControl": "max-age=3600",
        "lastModified": changed,
        "contentLength": size,
        "httpStatusCode": 200,
    }
    return {
        "name": name,
        "id": row.id,
        "updated_at": changed,
        "created_at": _text(row.created_at),
        "last_accessed_at": _text(row.created_at),
        "metadata": metadata if row.has_metadata else None,
    }


def _cursor(name: str) -> str:
    return base64.b64encode(f"l:{name}".encode()).decode()


def _now() -> datetime:
    return datetime.now(UTC)


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _token_part(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def _signature(signed: str, secret: str) -> str:
    digest = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
