"""A Supabase bucket as a store, through the `supabase` client.

Behaviour of the server that is hidden from callers, measured with server 1.11.2 and client 2.34.1:

- A missing bucket, and one that the key cannot see, look like an empty one: the bucket itself is requested before a
  listing is trusted, and again before objects count as absent.
- A removal answers with the rows that it removed, and leaves out the others. A request that timed out may still remove
  objects, and one that failed may have removed some: names missing from the answer are looked up.
- Only the recursive listing by name is exact. The other one ignores case and stops at 1500.
- The client's `info` unquotes the name of an object; the listing takes it literally, and an object is the first
  one whose name begins with its own.
"""

from __future__ import annotations

import builtins
import mimetypes
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError, Unavailable
from housekeeping_pipelines.halving import in_halves
from housekeeping_pipelines.resources.object_storage import (
    Moves,
    ObjectExists,
    ObjectMissing,
    Removal,
    StorageRefused,
    StoredObject,
    Usage,
)
from housekeeping_pipelines.resources.object_storage.circuit import Circuit
from housekeeping_pipelines.resources.object_storage.supabase_names import (
    ascending,
    common_beginning,
    in_batches,
    is_sendable,
    url_path,
)
from housekeeping_pipelines.resources.object_storage.supabase_retry import RetryPolicy, call_with_retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from storage3 import SyncStorageClient
    from storage3.types import SearchV2Object

T = TypeVar("T")

# The server's limit for a page, whatever is requested.
_PAGE = 1000
# Up to so many names are looked up one by one, as a listing would cost as many requests.
_LOOKUP_THRESHOLD = 3
# How long the bucket is assumed to exist after a check.
_CHECKED_SECONDS = 60.0
# The budget of requests for finding the objects of a batch that cannot be removed.
_ISOLATION_REQUESTS = 64


class SupabaseBucket:
    """One bucket. It is thread-safe; `close` it, or use it in a `with` block."""

    def __init__(
        self,
        url: str,
        key: str,
        bucket: str,
        *,
        trash_prefix: str | None = None,
        concurrency: int = 4,
        timeout_seconds: float = 20.0,
        retry: RetryPolicy | None = None,
        circuit: Circuit | None = None,
    ) -> None:
        """Opens no connection yet.

        Args:
            url: of the project, as Supabase shows it: `https://PROJECT.supabase.co`.
            trash_prefix: a folder that is listed only if a prefix names it.
            concurrency: concurrent requests while many objects are removed.
            timeout_seconds: for each request; 20 is the client's own default.
            circuit: shares with other processes that storage is down.

        Raises:
            ConfigurationError: the address, the key or the bucket's name is malformed.
        """
        self._address = _address(url)
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigurationError(
                "the key of storage is empty or has characters that no key has", hint="check SUPABASE_KEY"
            )
        if not bucket or "/" in bucket:
            raise ConfigurationError(f"{bucket!r} is not the name of a bucket", hint="check SUPABASE_BUCKET")
        self._url = url
        self._key = key
        self._bucket = bucket
        self._hidden = f"{trash_prefix}/" if trash_prefix else None
        self._concurrency = max(1, concurrency)
        self._timeout_seconds = timeout_seconds
        self._retry = retry or RetryPolicy()
        self._circuit = circuit or Circuit(f"storage at {self._address}")
        self._checked_at = float("-inf")
        self._storage: SyncStorageClient | None = None
        self._opening = threading.Lock()

    @property
    def label(self) -> str:
        """`bucket` and its name."""
        return f"bucket {self._bucket}"

    def __enter__(self) -> SupabaseBucket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; later use opens new ones."""
        with self._opening:
            if self._storage is not None:
                self._storage.session.close()
            self._storage = None

    def check(self) -> None:
        """Request the bucket itself, one request.

        Raises:
            ConfigurationError: it does not exist, the key cannot see it, or the address is not that of storage.
        """
        self._call("see the bucket", lambda: self._client().get_bucket(self._bucket))
        self._checked_at = time.monotonic()

    def list(self, prefix: str = "", *, details: bool = True) -> Iterator[StoredObject]:
        """Every object whose name begins with `prefix`, in the order of the names' bytes, a thousand per request."""
        self.check()
        if is_sendable(prefix):
            hidden = None if prefix else self._hidden
            for page in self._pages(prefix):
                yield from (found for found in page if hidden is None or not found.name.startswith(hidden))

    def examine(self, names: Iterable[str]) -> Iterator[StoredObject]:
        """The current state of those that still exist, each once.

        Costs the pages under the names' common prefix, or two requests per name, whichever is less.
        """
        self._check_lately()
        lookahead: _Lookahead | None = None
        remaining = iter(ascending(names))
        while chunk := builtins.list(islice(remaining, _PAGE)):
            if len(chunk) <= _LOOKUP_THRESHOLD:
                for name in chunk:
                    if (found := self._first(name)) is not None:
                        yield found
                continue
            if lookahead is None or not (
                chunk[0].startswith(lookahead.prefix) and chunk[-1].startswith(lookahead.prefix)
            ):
                prefix = common_beginning(chunk[0], chunk[-1])
                lookahead = _Lookahead(prefix, self._pages(prefix))
            yield from self._match_listing(chunk, lookahead)

    def stat(self, name: str) -> StoredObject | None:
        """The current state of one object, one request; None if it does not exist."""
        self._check_lately()
        return self._first(name)

    def remove(self, names: Sequence[str]) -> Removal:
        """Remove objects permanently, 500 per request, with concurrent requests.

        Names whose requests storage stops answering are in `failed`, with `unavailable` set; the error is raised only
        if the outcome of every name is unknown.

        Raises:
            Unavailable, ConfigurationError, StorageRefused: the outcome of every name is unknown.
        """
        # A name that cannot be sent cannot have been stored.
        sendable = [name for name in dict.fromkeys(names) if name and is_sendable(name)]
        absent = frozenset(names) - frozenset(sendable)
        batches = builtins.list(in_batches(sendable))
        if len(batches) > 1:
            with ThreadPoolExecutor(self._concurrency, thread_name_prefix="storage") as pool:
                outcomes = builtins.list(pool.map(self._outcome, batches))
        else:
            outcomes = [self._outcome(batch) for batch in batches]
        errors = [outcome for outcome in outcomes if isinstance(outcome, HousekeepingError)]
        known = [outcome for outcome in outcomes if isinstance(outcome, Removal)]
        if errors and not known:
            raise errors[0]
        failed = {name: reason for part in known for name, reason in part.failed.items()}
        for batch, outcome in zip(batches, outcomes, strict=True):
            if isinstance(outcome, HousekeepingError):
                failed.update(dict.fromkeys(batch, outcome.message))
        return Removal(
            removed=frozenset().union(*(part.removed for part in known)),
            absent=absent.union(*(part.absent for part in known)),
            failed=failed,
            unavailable=next((error for error in errors if isinstance(error, Unavailable)), None),
        )

    def volume_of(self, name: str) -> str:
        """Always empty: a bucket is one volume."""
        return ""

    def volumes_below(self) -> Sequence[str]:
        """Always none."""
        return ()

    def remove_empty_folders(self, folder: str) -> None:
        """Nothing to do: a folder exists only as the beginning of names."""

    def move(self, source: str, target: str) -> None:
        """Rename an object, one request; its modification time becomes now."""
        # The server would accept a target that the client could not address afterwards.
        url_path(target)
        if not source or not is_sendable(source):
            raise ObjectMissing(f"there is no object {source!a} in {self.label}")
        if source == target and self.stat(source) is not None:
            # The server reports success for this.
            raise ObjectExists(f"there is an object {target!a} in {self.label} already")
        attempted = False

        def once() -> None:
            nonlocal attempted
            if attempted and self._first(source) is None and self._first(target) is not None:
                # An earlier attempt succeeded, and its answer was lost.
                return
            attempted = True
            self._bucket_client().move(source, target)

        self._call_for_object(f"move {source!r} to {target!r}", once)

    def move_many(self, targets: Mapping[str, str]) -> Moves:
        """Rename objects with concurrent requests, and look at both places afterwards, whatever storage answered."""
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="storage") as pool:
            errors = dict(zip(targets, pool.map(self._attempt_move, targets, targets.values()), strict=True))
        if errors and all(isinstance(error, Unavailable) for error in errors.values()):
            return Moves(
                failed={name: error.one_line for name, error in errors.items() if error is not None},
                unavailable=next(error for error in errors.values() if isinstance(error, Unavailable)),
            )
        left = {found.name for found in self.examine(sorted(targets))}
        arrived = {found.name for found in self.examine(sorted(set(targets.values())))}
        moved: set[str] = set()
        absent: set[str] = set()
        taken: set[str] = set()
        failed: dict[str, str] = {}
        for name, target in targets.items():
            error = errors[name]
            if name in left and isinstance(error, ObjectExists):
                taken.add(name)
            elif name in left:
                failed[name] = "storage did not move it" if error is None else error.one_line
            elif isinstance(error, ObjectMissing):
                absent.add(name)
            elif target in arrived:
                moved.add(name)
            else:
                failed[name] = "storage moved it, and has it in neither place" if error is None else error.one_line
        unavailable = next((errors[name] for name in failed if isinstance(errors[name], Unavailable)), None)
        return Moves(
            frozenset(moved),
            frozenset(absent),
            frozenset(taken),
            failed,
            unavailable if isinstance(unavailable, Unavailable) else None,
        )

    def _attempt_move(self, source: str, target: str) -> HousekeepingError | None:
        try:
            self.move(source, target)
        except HousekeepingError as error:
            return error
        return None

    def upload(self, name: str, content: bytes) -> None:
        """Write an object, over what is there."""
        path = url_path(name)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        self._call_for_object(
            f"write {name!r}",
            lambda: self._bucket_client().upload(path, content, {"content-type": kind, "upsert": "true"}),
        )

    def download(self, name: str) -> bytes:
        """An object's content."""
        try:
            path = url_path(name)
        except StorageRefused:
            if self.stat(name) is None:
                raise ObjectMissing(f"there is no object {name!a} in {self.label}") from None
            raise
        content: bytes = self._call_for_object(f"read {name!r}", lambda: self._bucket_client().download(path))
        return content

    def usage(self, prefix: str = "") -> Usage:
        """The number and size of the objects under a prefix, from its listing."""
        objects = size = 0
        for found in self.list(prefix):
            objects += 1
            size += found.size or 0
        return Usage(objects, size)

    def _client(self) -> SyncStorageClient:
        with self._opening:
            if self._storage is None:
                # Importing it takes most of a second.
                import httpx
                from supabase import ClientOptions, create_client

                session = httpx.Client(
                    timeout=httpx.Timeout(self._timeout_seconds, pool=None),
                    limits=httpx.Limits(max_connections=self._concurrency + 1),
                    follow_redirects=True,
                )
                options = ClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=session)
                self._storage = create_client(self._url, self._key, options).storage
            return self._storage

    def _bucket_client(self) -> Any:
        return self._client().from_(self._bucket)

    def _call(self, action: str, request: Callable[[], T]) -> T:
        """Send a request, with retries, unless the circuit is open."""
        return self._circuit.call(lambda: self._call_with_retry(action, request, self._retry.attempts))

    def _call_for_object(self, action: str, request: Callable[[], T]) -> T:
        """The same for one object: an error of the server is a refusal if the server works otherwise."""
        from housekeeping_pipelines.resources.object_storage.supabase_errors import is_answer_of_server

        def classify() -> T | StorageRefused:
            try:
                return self._call_with_retry(action, request, self._retry.attempts)
            except Unavailable as error:
                if not is_answer_of_server(error.__cause__):
                    raise
                self._call_with_retry("see the bucket", lambda: self._client().get_bucket(self._bucket), 1)
                return StorageRefused(f"storage cannot {action}: the server fails on this object")

        answer = self._circuit.call(classify)
        if isinstance(answer, StorageRefused):
            raise answer
        return answer

    def _call_with_retry(self, action: str, request: Callable[[], T], attempts: int) -> T:
        from housekeeping_pipelines.resources.object_storage.supabase_errors import Context

        return call_with_retry(request, self._retry, attempts, Context(self._address, self._bucket, action))

    def _check_lately(self) -> None:
        if time.monotonic() - self._checked_at > _CHECKED_SECONDS:
            self.check()

    def _page(self, options: dict[str, Any]) -> Any:
        return self._call("list objects", lambda: self._bucket_client().list_v2(options))

    def _pages(self, prefix: str) -> Iterator[builtins.list[StoredObject]]:
        """The objects under a prefix, page by page; names strictly ascend.

        Raises:
            StorageRefused: they do not ascend, or a page has no next one: the listing is incomplete.
        """
        options: dict[str, Any] = {"prefix": prefix, "limit": _PAGE}
        last = ""
        while True:
            page = self._page(options)
            objects = [_stored(found) for found in page.objects]
            for found in objects:
                if not last < found.name or not found.name.startswith(prefix):
                    raise StorageRefused(f"storage at {self._address} lists its objects out of order")
                last = found.name
            yield objects
            if not page.hasNext:
                return
            if not page.nextCursor or page.nextCursor == options.get("cursor"):
                raise StorageRefused(f"storage at {self._address} ends its listing early, after {last!r}")
            options["cursor"] = page.nextCursor

    def _first(self, name: str) -> StoredObject | None:
        if not name or not is_sendable(name):
            return None
        page = self._page({"prefix": name, "limit": 1})
        found = [_stored(found) for found in page.objects if found.name == name]
        return found[0] if found else None

    def _match_listing(self, chunk: builtins.list[str], lookahead: _Lookahead) -> Iterator[StoredObject]:
        """Those of ascending names that are in a listing; after as many pages as names, each is looked up alone."""
        budget = lookahead.pages + len(chunk)
        for name in chunk:
            found = lookahead.find(name, budget)
            if found is None and lookahead.pages > budget:
                found = self._first(name)
            if found is not None:
                yield found

    def _outcome(self, names: builtins.list[str]) -> Removal | HousekeepingError:
        try:
            return self._remove_batch(names)
        except HousekeepingError as error:
            return error

    def _remove_batch(self, names: builtins.list[str]) -> Removal:
        """Remove the names of one request, and look up those that are missing from its answer."""
        budget = _RequestBudget(_ISOLATION_REQUESTS)
        removed: set[str] = set()
        rest: dict[str, str] = {}

        def attempt(part: builtins.list[str]) -> builtins.list[str]:
            left, failure = self._remove_once(part, removed, self._retry.attempts if part is names else 1)
            if failure is None or (len(left) > 1 and budget.spend(2)):
                return left
            rest.update(dict.fromkeys(left, failure.message))
            return []

        in_halves(names, attempt)
        return self._account(names, removed, rest)

    def _account(self, names: builtins.list[str], removed: set[str], reasons: dict[str, str]) -> Removal:
        unanswered = [name for name in names if name not in removed]
        present: set[str] = set()
        if unanswered:
            self.check()
            present = {found.name for found in self.examine(sorted(unanswered))}
        permission = "storage did not remove it: the key may lack the permission to delete"
        return Removal(
            removed=frozenset(removed),
            absent=frozenset(unanswered) - present,
            failed={name: reasons.get(name, permission) for name in unanswered if name in present},
        )

    def _remove_once(
        self, names: builtins.list[str], removed: set[str], attempts: int
    ) -> tuple[builtins.list[str], Unavailable | None]:
        """Remove names and add them to `removed`; returns those that storage fails to remove, and its answer."""
        from housekeeping_pipelines.resources.object_storage.supabase_errors import is_answer_of_server

        pending = names
        unsure = False

        def once() -> None:
            nonlocal pending, unsure
            if unsure:
                # An attempt with an unknown outcome may have removed some: only existing objects are requested again.
                pending = [found.name for found in self.examine(sorted(pending))]
            if pending:
                unsure = True
                removed.update(_names(self._bucket_client().remove(pending)).intersection(pending))

        def classify() -> Unavailable | None:
            try:
                self._call_with_retry(f"remove {_counted(pending)}", once, attempts)
            except Unavailable as error:
                if is_answer_of_server(error.__cause__):
                    return error
                raise
            return None

        failure = self._circuit.call(classify)
        if failure is None:
            return [], None
        # A server that is down cannot list either; if it can, one of the objects cannot be removed.
        return [found.name for found in self.examine(sorted(pending))], failure


class _RequestBudget:
    """The number of requests that may still be sent."""

    def __init__(self, requests: int) -> None:
        self._left = requests

    def spend(self, requests: int) -> bool:
        self._left -= requests
        return self._left >= 0


class _Lookahead:
    """A listing that is read only as far as needed."""

    def __init__(self, prefix: str, pages: Iterator[list[StoredObject]]) -> None:
        self.prefix = prefix
        self.pages = 0
        self._rest = pages
        self._page: deque[StoredObject] = deque()
        self._ended = False

    def find(self, name: str, budget: int) -> StoredObject | None:
        """The object with this name; None if the listing is past it, or more than `budget` pages have been read."""
        while True:
            while self._page and self._page[0].name < name:
                self._page.popleft()
            if self._page:
                return self._page[0] if self._page[0].name == name else None
            if self._ended or self.pages > budget:
                return None
            page = next(self._rest, None)
            self.pages += 1
            if page is None:
                self._ended = True
            else:
                self._page.extend(page)


def _address(url: str) -> str:
    """Host and port, for messages: an address may hold a password."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and not parts.query:
            return parts.hostname + (f":{parts.port}" if parts.port else "")
    except ValueError:
        pass
    raise ConfigurationError(
        "the address of storage is malformed", hint="set SUPABASE_URL to an address such as https://PROJECT.supabase.co"
    )


def _names(answer: object) -> set[str]:
    """The names in the answer to a removal; raises TypeError for anything else."""
    if not isinstance(answer, list) or not all(isinstance(row, dict) and "name" in row for row in answer):
        raise TypeError("the answer is not a list of rows")
    return {row["name"] for row in answer}


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} objects" if len(names) != 1 else repr(names[0])


def _stored(found: SearchV2Object) -> StoredObject:
    size = (found.metadata or {}).get("size")
    return StoredObject(found.name, None if size is None else int(size), found.updated_at.astimezone(UTC))
