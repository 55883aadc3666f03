"""The bucket against a server that answers as the real one was measured to, and breaks as it may."""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import sqlalchemy as sa
from storage3.exceptions import StorageApiError
from supabase import ClientOptions, create_client

from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError, Unavailable
from housekeeping_pipelines.resources.object_storage import (
    ObjectExists,
    ObjectMissing,
    Removal,
    StorageRefused,
    Usage,
)
from housekeeping_pipelines.resources.object_storage.circuit import Circuit, circuit_breakers
from housekeeping_pipelines.resources.object_storage.supabase_bucket import SupabaseBucket
from housekeeping_pipelines.resources.object_storage.supabase_errors import retry_after_seconds
from housekeeping_pipelines.resources.object_storage.supabase_retry import RetryPolicy
from housekeeping_pipelines_tests.storage_server import Fault, StorageServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RETRY = RetryPolicy(attempts=4, first_wait_seconds=0.001, longest_wait_seconds=0.01, total_seconds=20)
HTML = b"<html>maintenance</html>"


@pytest.fixture
def remote() -> Iterator[StorageServer]:
    with StorageServer() as remote:
        yield remote


@pytest.fixture
def bucket(remote: StorageServer) -> Iterator[SupabaseBucket]:
    with SupabaseBucket(remote.url, remote.key, "uploads", retry=RETRY) as bucket:
        yield bucket


def numbered(count: int, folder: str = "many") -> list[str]:
    return [f"{folder}/{number:05d}.txt" for number in range(count)]


def listed(bucket: SupabaseBucket, prefix: str = "") -> list[str]:
    return [found.name for found in bucket.list(prefix)]


def error_of(use: Callable[[], object]) -> HousekeepingError:
    with pytest.raises(HousekeepingError) as caught:
        use()
    assert "\n" not in caught.value.one_line
    assert "<" not in caught.value.one_line
    return caught.value


@pytest.fixture
def raw(remote: StorageServer) -> Iterator[Any]:
    """The client's own bucket."""
    with httpx.Client() as session:
        yield create_client(remote.url, remote.key, ClientOptions(httpx_client=session)).storage.from_("uploads")


class TestTheDouble:
    """That it has the traps at all."""

    def test_listing_by_folder_stops_at_1500_and_mixes_cases_up(self, remote: StorageServer, raw: Any) -> None:
        remote.put(numbered(1600))
        remote.put(["Dir/A", "dir/b"])
        assert len(raw.list("many", {"limit": 5000})) == 1500
        assert {found["name"] for found in raw.list("DIR")} == {"A", "b"}

    def test_removing_answers_what_was_there(self, remote: StorageServer, raw: Any) -> None:
        remote.put(["a.txt"])
        assert [row["name"] for row in raw.remove(["a.txt", "A.txt", "../a.txt", "a"])] == ["a.txt"]
        with pytest.raises(StorageApiError) as caught:
            raw.remove(["x" * 1_100_000])
        assert caught.value.status == "413"

    def test_info_unquotes_a_name(self, remote: StorageServer, raw: Any) -> None:
        remote.put(["a b.txt"])
        assert raw.info("/a%20b.txt")["name"] == "a b.txt"


class TestListing:
    @pytest.mark.parametrize("count", [999, 1000, 1001, 2000, 2001])
    def test_the_boundaries_of_a_page(self, remote: StorageServer, bucket: SupabaseBucket, count: int) -> None:
        remote.put(numbered(count))
        assert listed(bucket) == numbered(count)
        assert remote.counts()["list_v2"] == -(-count // 1000)

    def test_names_that_differ_in_case_only(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        pairs = [f"{letter}{number:04d}" for letter in "Kk" for number in range(701)]
        remote.put(pairs)
        assert listed(bucket) == sorted(pairs)
        assert listed(bucket, "k") == sorted(pairs[701:])

    def test_objects_that_others_remove_meanwhile(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.put(numbered(2500))
        scan = bucket.list()
        seen = [next(scan).name]
        for name in numbered(500):
            del remote.buckets["uploads"][name]
        remote.changed()
        seen += [found.name for found in scan]
        assert seen == numbered(2500)

    def test_a_row_without_a_file_has_no_size(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.put(["a.txt"], has_metadata=False)
        remote.put(["b.txt"], b"12345")
        assert [found.size for found in bucket.list()] == [None, 5]
        assert bucket.usage() == Usage(2, 5)

    @pytest.mark.parametrize(
        "page",
        [
            b'{"hasNext": true, "folders": [], "objects": []}',
            b'{"hasNext": true, "folders": [], "objects": [], "nextCursor": ""}',
        ],
    )
    def test_a_page_that_leads_nowhere_is_not_the_end(
        self, remote: StorageServer, bucket: SupabaseBucket, page: bytes
    ) -> None:
        remote.put(["a.txt"])
        remote.faults.append(Fault("json", "list_v2", 200, body=page))
        assert isinstance(error_of(lambda: listed(bucket)), StorageRefused)

    def test_a_list_out_of_order_is_not_believed(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        rows = ",".join(
            f'{{"id": "1", "name": "{name}", "updated_at": "2026-01-01T00:00:00Z",'
            f' "created_at": "2026-01-01T00:00:00Z", "metadata": null}}'
            for name in ("b", "a")
        )
        page = f'{{"hasNext": false, "folders": [], "objects": [{rows}]}}'.encode()
        remote.faults.append(Fault("json", "list_v2", 200, body=page))
        assert "out of order" in error_of(lambda: listed(bucket)).message

    @pytest.mark.parametrize("role", ["anon", "service_role"])
    def test_neither_a_missing_bucket_nor_a_weak_key_looks_empty(self, remote: StorageServer, role: str) -> None:
        remote.put(["a.txt"])
        name = "uploads" if role == "anon" else "upload"
        for use in (listed, SupabaseBucket.check, lambda b: b.stat("a.txt"), lambda b: list(b.examine(["a.txt"]))):
            with SupabaseBucket(remote.url, remote.key_for(role), name, retry=RETRY) as bucket:
                error = error_of(lambda: use(bucket))  # noqa: B023
                assert isinstance(error, ConfigurationError)
                assert "SUPABASE_BUCKET" in (error.hint or "")
                assert "SUPABASE_KEY" in (error.hint or "")


class TestExamining:
    def test_many_names_cost_pages_and_not_requests_each(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.put(numbered(3000))
        remote.put(numbered(3000, "elsewhere"))
        asked = [f"many/{number:05d}.txt" for number in range(500, 5000)]
        assert [found.name for found in bucket.examine(asked)] == numbered(3000)[500:]
        assert remote.counts()["list_v2"] <= 5

    def test_a_few_names_in_a_large_bucket(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.put(numbered(20_000))
        asked = ["many/00000.txt", "many/05000.txt", "many/10000.txt", "many/15000.txt", "many/19999.txt"]
        assert [found.name for found in bucket.examine(asked)] == asked
        assert remote.counts()["list_v2"] <= 2 * len(asked) + 1

    def test_names_must_ascend(self, bucket: SupabaseBucket) -> None:
        with pytest.raises(ValueError, match="ascend"):
            list(bucket.examine(["b", "a"]))

    def test_only_the_object_of_that_very_name(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.put(["a b.txt", "a.txt2", "x/y"])
        for name in ("a%20b.txt", "/a b.txt", "a.txt", "x//y", "x"):
            assert bucket.stat(name) is None

    def test_names_that_uploads_may_not_have(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        odd = ["a%20b.txt", "Ü#?.txt", "tab\tand\nnewline", "~[\\]|"]
        remote.put(odd)
        assert listed(bucket) == sorted(odd)
        for name in odd:
            assert bucket.stat(name) is not None
            assert bucket.download(name) == b"content"
            with pytest.raises(StorageRefused):
                bucket.upload(name, b"")
        assert bucket.remove(odd).removed == frozenset(odd)


class TestRemoving:
    def test_ten_thousand_cost_one_request_for_five_hundred(
        self, remote: StorageServer, bucket: SupabaseBucket
    ) -> None:
        remote.put(numbered(10_000))
        assert bucket.remove(numbered(10_000)) == Removal(frozenset(numbered(10_000)))
        assert len(remote.requests) == 20
        assert max(len(request.body["prefixes"]) for request in remote.requests) == 500

    def test_no_request_is_too_large(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        names = [f"{number:03d}{'ü' * 1100}" for number in range(900)]
        quoted = ['"' * 1100 + f"{number:03d}" for number in range(600)]
        remote.put([*names, *quoted])
        assert bucket.remove([*names, *quoted]).removed == frozenset([*names, *quoted])
        assert max(request.size for request in remote.requests) < 1024 * 1024

    def test_concurrency_is_bounded(self, remote: StorageServer) -> None:
        remote.put(numbered(5000))
        barrier = threading.Barrier(2, timeout=20)
        running, most, lock = set[int](), [0], threading.Lock()

        def meet() -> None:
            with lock:
                running.add(threading.get_ident())
                most[0] = max(most[0], len(running))
            barrier.wait()
            with lock:
                running.discard(threading.get_ident())

        remote.before["remove"] = meet
        with SupabaseBucket(remote.url, remote.key, "uploads", concurrency=2, retry=RETRY) as bucket:
            assert len(bucket.remove(numbered(5000)).removed) == 5000
        assert most == [2]

    def test_a_key_that_may_not_delete(self, remote: StorageServer) -> None:
        remote.put(["a.txt", "b.txt"])
        with SupabaseBucket(remote.url, remote.key_for("reader"), "uploads", retry=RETRY) as bucket:
            removal = bucket.remove(["a.txt", "b.txt", "c.txt"])
        assert set(removal.failed) == {"a.txt", "b.txt"}
        assert "permission" in removal.failed["a.txt"]
        assert removal.absent == {"c.txt"}
        assert remote.names() == ["a.txt", "b.txt"]

    def test_an_answer_that_hides_some_is_looked_into(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.put(numbered(10))
        remote.faults.append(Fault("json", "remove", 200, body=b"[]"))
        removal = bucket.remove(numbered(12))
        assert set(removal.failed) == set(numbered(10))
        assert removal.absent == set(numbered(12)) - set(numbered(10))

    def test_an_object_that_cannot_be_removed_keeps_no_other(
        self, remote: StorageServer, bucket: SupabaseBucket
    ) -> None:
        remote.put(numbered(1000))
        remote.buckets["uploads"]["many/00700.txt"].undeletable = True
        removal = bucket.remove(numbered(1000))
        assert set(removal.failed) == {"many/00700.txt"}
        assert removal.removed == set(numbered(1000)) - set(removal.failed)
        assert removal.unavailable is None
        assert remote.names() == ["many/00700.txt"]

    def test_a_time_out_after_which_it_was_removed_anyway(self, remote: StorageServer) -> None:
        remote.put(numbered(10))
        remote.faults.append(Fault("late", "remove"))
        # The next look waits until the removal that nobody waits for is done.
        remote.before["list_v2"] = lambda: _assert(remote.gone_late.wait(20))
        with SupabaseBucket(remote.url, remote.key, "uploads", timeout_seconds=0.3, retry=RETRY) as bucket:
            removal = bucket.remove(numbered(10))
        assert removal == Removal(absent=frozenset(numbered(10)))
        assert remote.counts()["remove"] == 1

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("reset", "remove"),
            Fault("json", "remove", 429),
            Fault("json", "remove", 503),
            Fault("html", "remove", 502),
            Fault("html", "remove", 200),
            Fault("json", "remove", 200, body=b"{}"),
            Fault("json", "remove", 500, body=b'{"statusCode": "500", "error": "Internal", "message": "no database"}'),
        ],
    )
    def test_what_is_still_there_is_removed_again(
        self, remote: StorageServer, bucket: SupabaseBucket, fault: Fault
    ) -> None:
        remote.put(numbered(10))
        remote.faults.extend([fault, fault])
        assert bucket.remove(numbered(10)).removed == frozenset(numbered(10))
        assert remote.counts()["remove"] == 3

    def test_a_server_that_is_killed_half_way_and_back(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.put(numbered(2000))
        left = [2]

        def die() -> None:
            left[0] -= 1
            if left[0] == 0:
                remote.stop()

        remote.before["remove"] = die
        with SupabaseBucket(remote.url, remote.key, "uploads", concurrency=1, retry=RETRY) as bucket:
            removal = bucket.remove(numbered(2000))
        assert removal.unavailable is not None
        assert removal.removed == frozenset(numbered(500))
        assert set(removal.failed) == set(numbered(2000)[500:])
        remote.before.clear()
        remote.start()
        with SupabaseBucket(remote.url, remote.key, "uploads", retry=RETRY) as bucket:
            again = bucket.remove(list(removal.failed))
        assert again.removed | again.absent == set(removal.failed)
        assert remote.names() == []

    def test_nothing_known_is_an_error(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.put(numbered(600))
        remote.stop()
        assert isinstance(error_of(lambda: bucket.remove(numbered(600))), Unavailable)
        remote.start()
        assert len(remote.names()) == 600


class TestMovingAndContent:
    def test_a_move_whose_answer_was_lost(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.put(["a.txt"])
        remote.faults.append(Fault("reset_after", "move"))
        bucket.move("a.txt", "b.txt")
        assert remote.names() == ["b.txt"]
        assert remote.counts()["move"] == 1

    def test_a_row_whose_file_is_gone_is_no_outage(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.put(["a.txt", "b.txt"], file_gone=True)
        for _ in range(5):
            assert isinstance(error_of(lambda: bucket.move("a.txt", "c.txt")), StorageRefused)
            assert isinstance(error_of(lambda: bucket.download("b.txt")), StorageRefused)
        assert bucket.remove(["a.txt", "b.txt"]).removed == {"a.txt", "b.txt"}

    def test_a_key_that_may_not_write(self, remote: StorageServer) -> None:
        remote.put(["a.txt", "b.txt"])
        with SupabaseBucket(remote.url, remote.key_for("reader"), "uploads", retry=RETRY) as bucket:
            for use in (lambda: bucket.upload("a.txt", b""), lambda: bucket.move("a.txt", "c.txt")):
                error = error_of(use)
                assert type(error) is StorageRefused
                assert "SUPABASE_KEY" in (error.hint or "")

    def test_a_bucket_that_goes_is_not_a_missing_object(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.put(["a.txt"])
        bucket.check()
        remote.buckets.clear()
        assert isinstance(error_of(lambda: bucket.download("a.txt")), ConfigurationError)
        assert isinstance(error_of(lambda: bucket.remove(["a.txt"])), ConfigurationError)

    def test_the_answers_for_one_object(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.put(["a.txt", "b.txt"])
        assert isinstance(error_of(lambda: bucket.move("a.txt", "b.txt")), ObjectExists)
        assert isinstance(error_of(lambda: bucket.move("c.txt", "d.txt")), ObjectMissing)
        assert type(error_of(lambda: bucket.move("a.txt", "exp ~ report"))) is StorageRefused


class TestRetrying:
    def test_retry_after_is_honoured(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.faults.append(Fault("json", "get_bucket", 429, headers=(("Retry-After", "1"),)))
        bucket.check()
        first, second = (request.at for request in remote.requests)
        assert 1.0 <= second - first < 5.0

    def test_more_than_there_is_patience_for_is_not_waited(self, remote: StorageServer, bucket: SupabaseBucket) -> None:
        remote.faults.append(Fault("json", "get_bucket", 429, headers=(("Retry-After", "3600"),)))
        error = error_of(bucket.check)
        assert isinstance(error, Unavailable)
        assert "SUPABASE_CONCURRENCY" in (error.hint or "")
        assert len(remote.requests) == 1

    def test_retry_after_may_be_a_date(self) -> None:
        now = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
        for text, seconds in (
            ("Mon, 15 Jun 2026 12:00:30 GMT", 30.0),
            ("Mon, 15 Jun 2026 11:00:00 GMT", 0.0),
            ("7", 7.0),
            ("soon", None),
        ):
            response = httpx.Response(429, headers={"Retry-After": text})
            error = StorageApiError("slow down", "InternalError", 429)
            error.__cause__ = httpx.HTTPStatusError("", request=httpx.Request("GET", "http://x"), response=response)
            assert retry_after_seconds(error, now) == seconds

    @pytest.mark.parametrize(
        ("fault", "kind", "hint"),
        [
            (Fault("html", status=502), Unavailable, "try again"),
            (Fault("json", status=503), Unavailable, "try again"),
            (Fault("html", status=200), Unavailable, "SUPABASE_URL"),
            (Fault("json", status=200, body=b"[]"), Unavailable, "SUPABASE_URL"),
            (Fault("json", status=401), ConfigurationError, "SUPABASE_KEY"),
            (
                Fault("json", status=500, body=b'{"statusCode": "500", "error": "Internal", "message": "a\\nb"}'),
                Unavailable,
                "try again",
            ),
            (Fault("html", status=404), ConfigurationError, "SUPABASE_URL"),
            (Fault("reset"), Unavailable, "try again"),
        ],
    )
    def test_what_stays_wrong_is_named(
        self,
        remote: StorageServer,
        bucket: SupabaseBucket,
        fault: Fault,
        kind: type[HousekeepingError],
        hint: str,
    ) -> None:
        remote.faults.extend([fault] * 10)
        error = error_of(bucket.check)
        assert isinstance(error, kind)
        assert hint in (error.hint or "")
        assert len(remote.requests) == (RETRY.attempts if kind is Unavailable else 1)

    def test_keys_that_are_not_accepted(self, remote: StorageServer) -> None:
        expired = remote.key_for("service_role", exp=1)
        for key in (remote.key_for("service_role", secret="another"), "sb_secret_x", expired, remote.key_for("nobody")):
            with SupabaseBucket(remote.url, key, "uploads", retry=RETRY) as bucket:
                error = error_of(bucket.check)
            assert isinstance(error, ConfigurationError)
            assert error.hint == "check SUPABASE_KEY"
            assert key not in error.one_line

    @pytest.mark.parametrize(
        ("url", "key", "name", "variable"),
        [
            ("", "key", "uploads", "SUPABASE_URL"),
            ("project.supabase.co", "key", "uploads", "SUPABASE_URL"),
            ("http://user:secret@host", "key", "uploads", "SUPABASE_URL"),
            ("http://host:port", "key", "uploads", "SUPABASE_URL"),
            ("http://host", "", "uploads", "SUPABASE_KEY"),
            ("http://host", "secret\n", "uploads", "SUPABASE_KEY"),
            ("http://host", "key", "", "SUPABASE_BUCKET"),
            ("http://host", "key", "up/loads", "SUPABASE_BUCKET"),
        ],
    )
    def test_settings_that_cannot_be_right(self, url: str, key: str, name: str, variable: str) -> None:
        error = error_of(lambda: SupabaseBucket(url, key, name))
        assert isinstance(error, ConfigurationError)
        assert variable in (error.hint or "")
        assert "secret" not in error.one_line

    def test_nothing_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with SupabaseBucket(f"http://127.0.0.1:{port}", "key", "uploads", retry=RETRY) as bucket:
            error = error_of(bucket.check)
        assert isinstance(error, Unavailable)
        assert f"127.0.0.1:{port}" in error.message


class TestCircuit:
    def fail(self, circuit: Circuit, times: int = 1) -> None:
        def down() -> None:
            raise Unavailable("down")

        for _ in range(times):
            with pytest.raises(Unavailable):
                circuit.call(down)

    def test_an_outage_is_known_to_the_next_process(self, remote: StorageServer, engine: sa.Engine) -> None:
        circuit_breakers.create(engine, checkfirst=True)
        remote.faults.extend([Fault("json", status=503)] * 100)
        for _ in range(3):
            circuit = Circuit("storage", engine=engine)
            with SupabaseBucket(remote.url, remote.key, "uploads", retry=RETRY, circuit=circuit) as bucket:
                error_of(bucket.check)
        sent = len(remote.requests)
        circuit = Circuit("storage", engine=engine)
        with SupabaseBucket(remote.url, remote.key, "uploads", retry=RETRY, circuit=circuit) as bucket:
            error = error_of(bucket.check)
        assert isinstance(error, Unavailable)
        assert "not called again before" in error.message
        assert len(remote.requests) == sent
        with engine.begin() as connection:
            row = connection.execute(sa.select(circuit_breakers)).one()
            assert (row.name, row.state, row.failures) == ("storage", "open", 3)
            connection.execute(sa.update(circuit_breakers).values(opened_at=row.opened_at - timedelta(minutes=2)))
        remote.faults.clear()
        circuit = Circuit("storage", engine=engine)
        with SupabaseBucket(remote.url, remote.key, "uploads", retry=RETRY, circuit=circuit) as bucket:
            bucket.check()
        with engine.connect() as connection:
            row = connection.execute(sa.select(circuit_breakers)).one()
        assert (row.state, row.failures) == ("closed", 0)

    def test_in_memory(self) -> None:
        circuit = Circuit("storage", failures=2)
        self.fail(circuit, 1)
        assert circuit.call(lambda: 1) == 1
        self.fail(circuit, 2)
        with pytest.raises(Unavailable, match="not called again before"):
            circuit.call(lambda: 1)

    def test_it_closes_again(self) -> None:
        circuit = Circuit("storage", failures=2, reset_seconds=0)
        self.fail(circuit, 4)
        assert circuit.call(lambda: 1) == 1
        self.fail(circuit, 1)
        assert circuit.call(lambda: 2) == 2

    def test_an_answer_that_is_an_error_counts_as_an_answer(self) -> None:
        circuit = Circuit("storage", failures=2)

        def refuse() -> None:
            raise StorageRefused("no")

        for _ in range(5):
            self.fail(circuit, 1)
            with pytest.raises(StorageRefused):
                circuit.call(refuse)

    def test_a_call_that_began_before_it_opened_does_not_close_it(self) -> None:
        circuit = Circuit("storage", failures=2)

        def late() -> int:
            self.fail(circuit, 2)
            return 1

        assert circuit.call(late) == 1
        with pytest.raises(Unavailable, match="not called again before"):
            circuit.call(late)

    def test_calls_run_at_the_same_time(self) -> None:
        circuit = Circuit("storage")
        barrier = threading.Barrier(2, timeout=20)
        other = threading.Thread(target=lambda: circuit.call(barrier.wait))
        other.start()
        circuit.call(barrier.wait)
        other.join()

    def test_a_database_that_fails_is_not_in_the_way(self, engine: sa.Engine) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS housekeeping.circuit_breakers")
        circuit = Circuit("storage", engine=engine, failures=2)
        assert circuit.call(lambda: 1) == 1
        self.fail(circuit, 2)
        with pytest.raises(Unavailable, match="not called again before"):
            circuit.call(lambda: 1)


def _assert(condition: bool) -> None:
    assert condition
