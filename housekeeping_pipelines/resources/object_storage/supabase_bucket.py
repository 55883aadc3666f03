"""A Supabase bucket as a store, through the `supabase` client.

What the server does that a caller must not meet, measured with server 1.11.2 and client 2.34.1:

- A missing bucket, and a key that may not see it, look like an empty one: the bucket is asked for before a listing is
  believed, and again before objects are taken for gone.
- Removing answers the rows that it removed, and [] for whatever it did not; a request that ended in a time-out may
  still remove, and one that ended in an error may have removed: what was not answered is looked up.
- Only the recursive listing by name is exact. The other one mixes upper and lower case up and stops at 1500.
- Looking at one object through the client's `info` unquotes its name; the listing takes it as it is, and the first
  object whose name begins so is that object, if it is there.
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
from housekeeping_pipelines.resources.object_storage import (
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
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from storage3 import SyncStorageClient
    from storage3.types import SearchV2Object

T = TypeVar("T")

# The server's cap of a page, whatever is asked for.
_PAGE = 1000
# As many requests as looking each up, of which each finds one.
_LOOKUP_THRESHOLD = 3
# How long the bucket is taken to be there still.
_CHECKED_SECONDS = 60.0
# Requests spent to find the objects of one batch that cannot be removed.
_ISOLATION_REQUESTS = 64


class SupabaseBucket:
    """One bucket. It may be used by many threads; `close` it, or use it in a `with` block."""

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
        """Connects to nothing yet.

        Args:
            url: of the project, as Supabase shows it: `https://PROJECT.supabase.co`.
            trash_prefix: a folder whose objects are listed only where they are asked for.
            concurrency: requests at the same time, while many objects are removed.
            timeout_seconds: for each request; 20 is the client's own default.
            circuit: remembers beyond this process that storage is down.

        Raises:
            ConfigurationError: the address, the key or the bucket's name cannot be one.
        """
        self._address = _address(url)
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigurationError(
                "the key of storage is empty or has characters of no key", hint="mend SUPABASE_KEY"
            )
        if not bucket or "/" in bucket:
            raise ConfigurationError(f"{bucket!r} is not the name of a bucket", hint="mend SUPABASE_BUCKET")
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
        """Close the connections; it may still be used, and opens new ones then."""
        with self._opening:
            if self._storage is not None:
                self._storage.session.close()
            self._storage = None

    def check(self) -> None:
        """Ask for the bucket itself, one request.

        Raises:
            ConfigurationError: it is missing, or this key may not see it, or the address is not storage's.
        """
        self._call("see the bucket", lambda: self._client().get_bucket(self._bucket))
        self._checked_at = time.monotonic()

    def list(self, prefix: str = "", *, details: bool = True) -> Iterator[StoredObject]:
        """Every object whose name begins so, in the order of the names' bytes, a thousand a request."""
        self.check()
        if is_sendable(prefix):
            hidden = None if prefix else self._hidden
            for page in self._pages(prefix):
                yield from (found for found in page if hidden is None or not found.name.startswith(hidden))

    def examine(self, names: Iterable[str]) -> Iterator[StoredObject]:
        """The present state of those that are still there, each once.

        Costs the pages under the names' common prefix, or two requests a name where that is less.
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
        """The present state of one object, one request; None if it is not there."""
        self._check_lately()
        return self._first(name)

    def remove(self, names: Sequence[str]) -> Removal:
        """Remove objects for good, 500 a request, several requests at a time.

        What storage stops answering for is in `failed`, with `unavailable` set; it is only raised when nothing at all
        became known.

        Raises:
            Unavailable, ConfigurationError, StorageRefused: of no name it is known what became of it.
        """
        # What cannot be sent cannot have been stored.
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

    def move(self, source: str, target: str) -> None:
        """Rename an object, one request; its time of change becomes now."""
        # The server would take a target that the client could not ask for afterwards.
        url_path(target)
        if not source or not is_sendable(source):
            raise ObjectMissing(f"there is no object {source!a} in {self.label}")
        if source == target and self.stat(source) is not None:
            # The server says that it moved it.
            raise ObjectExists(f"there is an object {target!a} in {self.label} already")
        attempted = False

        def once() -> None:
            nonlocal attempted
            if attempted and self._first(source) is None and self._first(target) is not None:
                # The answer to an earlier attempt was lost.
                return
            attempted = True
            self._bucket_client().move(source, target)

        self._call_for_object(f"move {source!r} to {target!r}", once)

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
        """How much is under a prefix, by listing it."""
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
        """Send a request, again where that may help, unless the circuit is open."""
        return self._circuit.call(lambda: self._call_with_retry(action, request, self._retry.attempts))

    def _call_for_object(self, action: str, request: Callable[[], T]) -> T:
        """The same for one object: a failure of the server that it does not have in general is a refusal."""
        from housekeeping_pipelines.resources.object_storage.supabase_errors import is_answer_of_server

        def classify() -> T | StorageRefused:
            try:
                return self._call_with_retry(action, request, self._retry.attempts)
            except Unavailable as error:
                if not is_answer_of_server(error.__cause__):
                    raise
                self._call_with_retry("see the bucket", lambda: self._client().get_bucket(self._bucket), 1)
                return StorageRefused(f"storage cannot {action}: it fails at this object")

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
            StorageRefused: they do not, or a page does not lead on: what is not listed may be there then.
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
                raise StorageRefused(f"storage at {self._address} breaks its list off after {last!r}")
            options["cursor"] = page.nextCursor

    def _first(self, name: str) -> StoredObject | None:
        if not name or not is_sendable(name):
            return None
        page = self._page({"prefix": name, "limit": 1})
        found = [_stored(found) for found in page.objects if found.name == name]
        return found[0] if found else None

    def _match_listing(self, chunk: builtins.list[str], lookahead: _Lookahead) -> Iterator[StoredObject]:
        """Those of ascending names that a listing has; each on its own once the listing has cost as much."""
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
        """Remove one request's worth, and find out about what was not answered."""
        budget = _RequestBudget(_ISOLATION_REQUESTS)
        removed, rest = self._remove_some(names, budget, self._retry.attempts)
        return self._account(names, removed, rest)

    def _account(self, names: builtins.list[str], removed: set[str], reasons: dict[str, str]) -> Removal:
        unanswered = [name for name in names if name not in removed]
        present: set[str] = set()
        if unanswered:
            self.check()
            present = {found.name for found in self.examine(sorted(unanswered))}
        permission = "storage leaves it where it is: the key may lack the permission to delete"
        return Removal(
            removed=frozenset(removed),
            absent=frozenset(unanswered) - present,
            failed={name: reasons.get(name, permission) for name in unanswered if name in present},
        )

    def _remove_some(
        self, names: builtins.list[str], budget: _RequestBudget, attempts: int
    ) -> tuple[set[str], dict[str, str]]:
        """The names that storage says it removed, and why it failed at others."""
        from housekeeping_pipelines.resources.object_storage.supabase_errors import is_answer_of_server

        removed: set[str] = set()
        pending = names
        unsure = False

        def once() -> None:
            nonlocal pending, unsure
            if unsure:
                # An attempt whose end is unknown may have removed some: only what is there is asked for again.
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
            return removed, {}
        # A server that is down cannot list either; otherwise there is an object that it cannot remove.
        left = [found.name for found in self.examine(sorted(pending))]
        if len(left) <= 1 or not budget.spend(2):
            return removed, dict.fromkeys(left, failure.message)
        reasons: dict[str, str] = {}
        for half in (left[: len(left) // 2], left[len(left) // 2 :]):
            done, why = self._remove_some(half, budget, 1)
            removed |= done
            reasons |= why
        return removed, reasons


class _RequestBudget:
    """A number of requests that may still be spent."""

    def __init__(self, requests: int) -> None:
        self._left = requests

    def spend(self, requests: int) -> bool:
        self._left -= requests
        return self._left >= 0


class _Lookahead:
    """A listing that is read as far as it is needed."""

    def __init__(self, prefix: str, pages: Iterator[list[StoredObject]]) -> None:
        self.prefix = prefix
        self.pages = 0
        self._rest = pages
        self._page: deque[StoredObject] = deque()
        self._ended = False

    def find(self, name: str, budget: int) -> StoredObject | None:
        """The object of this name; None if the listing is past it, or more than `budget` pages have been read."""
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
        "the address of storage is not one", hint="make SUPABASE_URL such as https://PROJECT.supabase.co"
    )


def _names(answer: object) -> set[str]:
    """The names in an answer to a removal; raises TypeError if it is something else."""
    if not isinstance(answer, list) or not all(isinstance(row, dict) and "name" in row for row in answer):
        raise TypeError("the answer is not a list of rows")
    return {row["name"] for row in answer}


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} objects" if len(names) != 1 else repr(names[0])


def _stored(found: SearchV2Object) -> StoredObject:
    size = (found.metadata or {}).get("size")
    return StoredObject(found.name, None if size is None else int(size), found.updated_at.astimezone(UTC))
