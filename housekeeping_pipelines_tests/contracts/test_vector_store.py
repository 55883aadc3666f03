"""What every vector store must do: pgvector, a folder of LanceDB, Qdrant's own client over a folder, and a real server.

The server's address comes from QDRANT_URL (`http://HOST:PORT`); collections are made there, and deleted again.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError, Unavailable
from housekeeping_pipelines.postgres.engine import make_engine
from housekeeping_pipelines.resources.vector_store import Chunk, Generation, Space
from housekeeping_pipelines.resources.vector_store.consistent_search import Candidate, consistent_search
from housekeeping_pipelines.resources.vector_store.lance import LanceStore
from housekeeping_pipelines.resources.vector_store.opening import open_vector_store
from housekeeping_pipelines.resources.vector_store.pgvector import PgVectorStore
from housekeeping_pipelines.resources.vector_store.qdrant import QdrantStore, connect, open_qdrant
from housekeeping_pipelines_tests.contracts.rewriting import CHUNKS, SPACE, local_client, open_folder
from housekeeping_pipelines_tests.deletion.support import column, scalar, sql
from housekeeping_pipelines_tests.web_server import Answer, WebServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from housekeeping_pipelines.resources.vector_store import Hit, Vector, VectorStore

QDRANT_URL = os.environ.get("QDRANT_URL", "")

pytestmark = pytest.mark.filterwarnings(
    "ignore:Payload indexes have no effect", "ignore:Api key is used with an insecure", "ignore:optimize"
)

HOSTILE = [
    "it's",
    "'; DROP TABLE document_vectors; --",
    '"quoted"',
    "back\\slash\\",
    "\\N",
    "\\.",
    "line\nfeed\r\nand\ttab",
    "%s %(name)s :name {0} $1",
    " leading and trailing ",
    "ünïcödé ☃ 😀 \u202e \ufeff",
    "e\u0301",
    "\x01\x1f\x7f",
    "a/b/../c",
    "",
    "x" * 1500,
]


@dataclass
class Place:
    """Where a store is; each `open` gives another store on the same vectors."""

    name: str
    open: Callable[..., VectorStore]
    client: OneAtATime | None = None


@dataclass
class OneAtATime:
    """Qdrant's client, whose local mode is not made for threads."""

    client: Any
    lock: threading.RLock = field(default_factory=threading.RLock)
    sent: int = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)

        def call(*arguments: Any, **more: Any) -> Any:
            with self.lock:
                self.sent += len(more["points"]) if name == "upsert" else 0
                return method(*arguments, **more)

        return call

    def close(self) -> None:
        """Other stores go on with it."""


@pytest.fixture(params=["pgvector", "lancedb", "qdrant", "qdrant-server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "pgvector":
        engine = request.getfixturevalue("engine")
        yield Place("pgvector", lambda space=SPACE: PgVectorStore(make_engine(engine.url, pooled=9), space))
    elif request.param == "lancedb":
        yield Place("lancedb", lambda space=SPACE: LanceStore(tmp_path / "it's vectors", space))
    elif request.param == "qdrant":
        client = OneAtATime(local_client(tmp_path / "vectors"))
        yield Place("qdrant", lambda space=SPACE: QdrantStore(client, space), client)
        client.client.close()
    elif not QDRANT_URL:
        pytest.skip("QDRANT_URL names no server")
    else:
        name = f"test_{secrets.token_hex(6)}"
        client = OneAtATime(connect(QDRANT_URL, api_key=os.environ.get("QDRANT_API_KEY")))
        yield Place("qdrant-server", lambda space=SPACE: QdrantStore(client, space, collection=name), client)
        for each in (name, f"{name}_generations"):
            client.client.delete_collection(each)
        client.client.close()


@pytest.fixture
def store(place: Place) -> Iterator[VectorStore]:
    with closing(place.open()) as store:
        yield store


def vector(*numbers: float) -> Vector:
    """Of length 1, and of the space's dimension."""
    padded = [*numbers, *([0.0] * (SPACE.dimension - len(numbers)))]
    length = sum(number * number for number in padded) ** 0.5
    return [number / length for number in padded]


def anywhere(name: str) -> Vector:
    chance = random.Random(name)
    return vector(*(chance.gauss(0, 1) for _ in range(SPACE.dimension)))


def chunk(position: int, text: str, **metadata: Any) -> Chunk:
    return Chunk(position, text, f"hash of {text!r}".encode().hex()[:64], anywhere(text), metadata)


def texts(*of: str) -> list[Chunk]:
    return [chunk(position, text) for position, text in enumerate(of)]


def put(store: VectorStore, document: str, generation: str, *of: str) -> None:
    """A whole rewriting of a document."""
    assert store.write(document, generation, texts(*of)) == len(of)
    store.switch(document, generation)
    store.prune(document)


def found(store: VectorStore, document: str | None = None, limit: int = 1000) -> list[str]:
    """Every text that a search finds, by document and position."""
    hits = [hit for hit in store.search(anywhere("anything"), limit) if document in (None, hit.document)]
    return [hit.text for hit in sorted(hits, key=lambda hit: (hit.document, hit.position))]


def listed(store: VectorStore) -> dict[str, int]:
    return {each.document: each.chunks for each in store.documents()}


def test_a_generation_is_found_once_it_is_switched_to(store: VectorStore) -> None:
    assert (store.current("d"), store.count(), store.count("d"), found(store), listed(store)) == (None, 0, 0, [], {})
    assert store.vectors("d", ["00"]) == {}
    assert store.write("d", "one", texts("a", "b")) == 2
    assert (store.current("d"), store.count(), store.count("d"), found(store)) == (None, 0, 0, [])
    store.switch("d", "one")
    assert store.current("d") == Generation("d", "one", 2)
    assert (store.count(), store.count("d"), store.count("e"), found(store)) == (2, 2, 0, ["a", "b"])
    assert store.write("d", "two", texts("c", "d", "e")) == 3
    assert (store.current("d"), found(store)) == (Generation("d", "one", 2), ["a", "b"])
    store.switch("d", "two")
    assert (store.current("d"), found(store)) == (Generation("d", "two", 3), ["c", "d", "e"])
    assert (store.count(), listed(store)) == (3, {"d": 5})
    assert (store.prune("d"), store.prune("d"), listed(store)) == (2, 0, {"d": 3})
    assert found(store) == ["c", "d", "e"]


def test_what_another_has_written_is_seen_at_once(place: Place, store: VectorStore) -> None:
    with closing(place.open()) as other:
        for name in ("one", "two"):
            put(other, "d", name, f"text {name}")
            assert (store.current("d"), found(store)) == (Generation("d", name, 1), [f"text {name}"])
        other.delete(["d"])
        assert (store.current("d"), found(store), listed(store)) == (None, [], {})


def test_pruning_takes_what_is_not_current_of_one_document(store: VectorStore) -> None:
    for name in ("d", "e"):
        put(store, name, "one", "a", "b")
        store.write(name, "two", texts("c"))
        store.write(name, "three", texts("d", "e"))
    assert store.prune("d") == 3
    assert (store.prune("unknown"), listed(store), found(store, "d")) == (0, {"d": 2, "e": 5}, ["a", "b"])
    store.write("never switched", "one", texts("f"))
    assert (store.prune("never switched"), listed(store)) == (1, {"d": 2, "e": 5})
    # The one that is current may be switched back to what is there still.
    store.switch("e", "three")
    store.switch("e", "one")
    assert found(store, "e") == ["a", "b"]


def test_deleting_takes_everything_of_the_documents_and_counts_those_that_were_there(store: VectorStore) -> None:
    for name in ("d", "e", "f"):
        put(store, name, "one", f"{name}0", f"{name}1")
    store.write("d", "two", texts("x"))
    store.write("half", "one", texts("y"))
    assert store.delete(["d", "half", "unknown", "d"]) == 2
    assert (listed(store), found(store), store.count()) == ({"e": 2, "f": 2}, ["e0", "e1", "f0", "f1"], 4)
    assert (store.current("d"), store.vectors("d", [texts("d0")[0].hash])) == (None, {})
    assert (store.delete(["d"]), store.delete([])) == (0, 0)
    with pytest.raises(LookupError):
        store.switch("d", "one")
    put(store, "d", "one", "again")
    assert found(store, "d") == ["again"]


def test_more_documents_than_go_at_once_are_deleted(store: VectorStore) -> None:
    names = [f"document {number}" for number in range(30)]
    for name in names:
        store.write(name, "one", texts("a"))
    assert store.delete([*names[1:], *(f"unknown {number}" for number in range(1200))]) == 29
    assert listed(store) == {"document 0": 1}


def test_documents_come_in_the_order_of_their_bytes_with_what_they_have(store: VectorStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    # In UTF-16, and in most languages, these have other orders.
    names = ["\uff5e", "b", "😀", "é", "a", "B", "a b", "a-b", "z", "ab", "_"]
    for number, name in enumerate(names):
        store.write(name, "one", texts(*map(str, range(number % 3 + 1))))
    store.write("b", "two", texts("x"))
    there = list(store.documents())
    assert [each.document for each in there] == sorted(names, key=str.encode)
    assert {each.document: each.chunks for each in there} == {n: i % 3 + 1 for i, n in enumerate(names)} | {"b": 3}
    assert all(before <= each.written_at <= datetime.now(UTC) + timedelta(seconds=1) for each in there)
    first = {each.document: each.written_at for each in there}
    store.write("é", "two", texts("newer"))
    second = {each.document: each.written_at for each in store.documents()}
    assert {name for name in names if second[name] > first[name]} == {"é"}


def test_a_search_finds_the_nearest_first(store: VectorStore) -> None:
    near = [vector(1, share) for share in (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)]
    about = {"title": "Ein Titel", "nested": {"list": [1, 2.5, None, True], "empty": {}}, "chunkSource": "link://x"}
    chunks = [Chunk(at, f"text {at}", f"{at:064x}", near[at], about) for at in (4, 2, 0, 5, 1, 3)]
    store.write("d", "one", chunks)
    store.switch("d", "one")
    put(store, "e", "one", *(f"elsewhere {number}" for number in range(5)))
    hits = store.search(vector(1), 6)
    assert [(hit.document, hit.position, hit.text) for hit in hits] == [("d", at, f"text {at}") for at in range(6)]
    assert [hit.score for hit in hits] == pytest.approx([each[0] for each in near], abs=1e-5)
    assert all(hit.metadata == about for hit in hits)
    assert [hit.position for hit in store.search(vector(1), 2)] == [0, 1]
    assert len(store.search(vector(1))) == 10
    assert len(store.search(vector(1), 500)) == 11
    assert store.search(vector(-1), 1)[0].document == "e"


def test_what_is_not_current_takes_no_places_of_what_is(store: VectorStore) -> None:
    for number in range(6):
        put(store, f"d{number}", "one", f"far {number}")
        nearer = [Chunk(at, "nearer", "00", vector(1, at / 1000)) for at in range(40)]
        store.write(f"d{number}", "two", nearer)
    assert sorted(hit.text for hit in store.search(vector(1), 6)) == [f"far {number}" for number in range(6)]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_come_back_as_they_were(store: VectorStore, text: str) -> None:
    about = {"title": text, text: {"deep": [text]}}
    store.write("d", "one", [Chunk(0, text, "00", vector(1), about)])
    store.switch("d", "one")
    (hit,) = store.search(vector(1))
    assert (hit.text, hit.metadata) == (text, about)


@pytest.mark.parametrize("bad", ["\0", "\ud800"], ids=["nul", "surrogate"])
def test_what_no_store_can_hold_is_replaced_in_texts_and_refused_in_ids(store: VectorStore, bad: str) -> None:
    store.write("d", "one", [Chunk(0, f"a{bad}b", "00", vector(1), {f"k{bad}": [f"{bad}x", {"y": bad}]})])
    store.switch("d", "one")
    (hit,) = store.search(vector(1))
    assert (hit.text, hit.metadata) == ("a\ufffdb", {"k\ufffd": ["\ufffdx", {"y": "\ufffd"}]})
    name = f"d{bad}"
    calls: list[Callable[[], Any]] = [
        lambda: store.write(name, "one", texts("a")),
        lambda: store.write("d", name, texts("a")),
        lambda: store.switch(name, "one"),
        lambda: store.switch("d", name),
        lambda: store.prune(name),
        lambda: store.delete(["d", name]),
        lambda: store.current(name),
        lambda: store.count(name),
        lambda: store.vectors(name, ["00"]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="is not a valid id"):
            call()
    assert (listed(store), found(store)) == ({"d": 1}, ["a\ufffdb"])


def test_ids_of_any_form_are_different_documents(store: VectorStore) -> None:
    # Those that are one to who folds case, trims, takes patterns or puts accents together.
    names = [*HOSTILE, "IT'S", "it''s", "leading and trailing", "é", "a%b", "a_b", "aXb", "a", "a ", "A"]
    for number, name in enumerate(names):
        store.write(name, name, texts(f"text {number}", "more"))
        store.switch(name, name)
    assert listed(store) == dict.fromkeys(names, 2)
    for number, name in enumerate(names):
        assert store.current(name) == Generation(name, name, 2)
        assert store.count(name) == 2
        assert set(store.vectors(name, [texts("more")[0].hash])) == {texts("more")[0].hash}
        assert found(store, name) == [f"text {number}", "more"]
        assert store.prune(name) == 0
    gone = names[::2]
    assert store.delete(gone) == len(gone)
    assert listed(store) == dict.fromkeys(names[1::2], 2)
    assert {hit.document for hit in store.search(vector(1), 1000)} == set(names[1::2])


def test_a_generation_that_is_written_again_is_replaced(store: VectorStore) -> None:
    for of in (["a", "b", "c"], ["a", "b", "c"], ["d", "e"]):
        assert store.write("d", "one", texts(*of)) == len(of)
        assert listed(store) == {"d": len(of)}
    store.switch("d", "one")
    store.switch("d", "one")
    assert (store.current("d"), found(store)) == (Generation("d", "one", 2), ["d", "e"])


def test_what_is_current_is_not_written_over(store: VectorStore) -> None:
    put(store, "d", "one", "a", "b")
    with pytest.raises(ValueError, match="one is current of d"):
        store.write("d", "one", texts("c"))
    assert (found(store), listed(store)) == (["a", "b"], {"d": 2})
    assert store.write("e", "one", texts("c")) == 1


@pytest.mark.parametrize(
    ("whole", "error"), [(0, KeyError("midway")), (3, RuntimeError("midway")), (600, OSError("midway"))]
)
def test_what_is_half_written_is_never_found(store: VectorStore, whole: int, error: Exception) -> None:
    put(store, "d", "one", "a", "b")

    def half() -> Iterator[Chunk]:
        yield from (Chunk(at, f"half {at}", "00", vector(1)) for at in range(whole))
        raise error

    with pytest.raises(type(error), match="midway"):
        store.write("d", "two", half())
    for name in ("two", "three"):
        with pytest.raises(LookupError):
            store.switch("d", name)
    assert (store.current("d"), found(store), store.count()) == (Generation("d", "one", 2), ["a", "b"], 2)
    store.prune("d")
    assert listed(store) == {"d": 2}
    put(store, "d", "two", "c")
    assert (found(store), listed(store)) == (["c"], {"d": 1})


def test_a_document_without_chunks_cannot_be_switched_to(store: VectorStore) -> None:
    put(store, "d", "one", "a")
    assert store.write("d", "two", []) == 0
    with pytest.raises(LookupError):
        store.switch("d", "two")
    with pytest.raises(LookupError):
        store.switch("never seen", "one")
    # Another document's generation of this name is not this one's.
    store.write("e", "three", texts("x"))
    with pytest.raises(LookupError):
        store.switch("d", "three")
    assert (found(store), store.current("d")) == (["a"], Generation("d", "one", 1))


def test_vectors_are_found_again_by_the_hash_of_their_text(store: VectorStore) -> None:
    put(store, "d", "one", "a", "b", "c", "a")
    store.write("d", "two", texts("not current"))
    put(store, "e", "one", "another document's")
    a, b, strange, other = (texts(name)[0] for name in ("a", "b", "not current", "another document's"))
    again = store.vectors("d", [a.hash, b.hash, strange.hash, other.hash, "ff"])
    assert again == {a.hash: pytest.approx(a.vector, abs=1e-6), b.hash: pytest.approx(b.vector, abs=1e-6)}
    assert store.vectors("d", []) == {}
    # What came out can be put in.
    store.write("d", "three", [Chunk(0, "a", a.hash, again[a.hash])])
    store.switch("d", "three")
    assert store.vectors("d", [a.hash])[a.hash] == pytest.approx(a.vector, abs=1e-6)


@pytest.mark.parametrize(
    "wrong", [[1.0] * 7, [1.0] * 9, [], [float("nan"), *[0.0] * 7], [float("inf"), *[0.0] * 7]], ids=str
)
def test_a_vector_that_is_none_of_the_space_is_refused(store: VectorStore, wrong: Vector) -> None:
    put(store, "d", "one", "a")
    with pytest.raises(ValueError, match="a vector"):
        store.write("d", "two", [*texts("b"), Chunk(1, "c", "00", wrong)])
    with pytest.raises(ValueError, match="a vector"):
        store.search(wrong)
    store.prune("d")
    assert (found(store), listed(store)) == (["a"], {"d": 1})


@pytest.mark.parametrize("other", [Space("model-b", 8), Space("model-a", 16), Space("MODEL-A", 8)], ids=str)
def test_vectors_of_another_model_or_dimension_are_never_mixed(place: Place, other: Space) -> None:
    with closing(place.open()) as store:
        store.check()
        put(store, "d", "one", "a")
        store.check()
    strange = [0.5] * other.dimension
    with closing(place.open(other)) as stranger:
        calls: list[Callable[[], Any]] = [
            lambda: stranger.check(),
            lambda: stranger.write("e", "one", [Chunk(0, "x", "00", strange)]),
            lambda: stranger.switch("d", "one"),
            lambda: stranger.prune("d"),
            lambda: stranger.delete(["d"]),
            lambda: stranger.current("d"),
            lambda: stranger.vectors("d", ["00"]),
            lambda: list(stranger.documents()),
            lambda: stranger.count(),
            lambda: stranger.search(strange),
        ]
        for call in calls:
            with pytest.raises(ConfigurationError) as caught:
                call()
            said = caught.value.one_line
            assert f"holds vectors of model-a (8 dimensions), not of {other.model} ({other.dimension})" in said
            assert "set EMBEDDING_MODEL back; or " in said
            assert "`housekeeping sync-watched-documents --force`" in said
            assert "\n" not in said
    with closing(place.open()) as store:
        assert (found(store), listed(store)) == (["a"], {"d": 1})


class Text(str):
    """A text that tells when nobody has it any more."""

    __slots__ = ("__weakref__",)


def test_a_large_document_is_read_as_it_is_written(place: Place, store: VectorStore) -> None:
    # Qdrant's local mode takes its time, and keeps the texts themselves: there, what is not sent yet counts.
    count = 3000 if place.client is None else 1300
    before = 0 if place.client is None else place.client.sent
    alive: weakref.WeakSet[Text] = weakref.WeakSet()
    most = 0

    def many() -> Iterator[Chunk]:
        nonlocal most
        for at in range(count):
            text = Text(f"text {at}")
            alive.add(text)
            gone = 0 if place.client is None else place.client.sent - before
            most = max(most, len(alive) - gone)
            yield Chunk(at, text, f"{at:064x}", anywhere(text))

    assert store.write("large", "one", many()) == count
    assert most <= 1100
    store.switch("large", "one")
    assert (store.current("large"), store.count()) == (Generation("large", "one", count), count)
    assert len(store.vectors("large", [f"{at:064x}" for at in range(count)])) == count
    assert len({hit.position for hit in store.search(anywhere("x"), 300)}) == 300
    assert store.prune("large") == 0
    assert store.delete(["large"]) == 1
    assert (store.count(), listed(store)) == (0, {})


def at_once(count: int, work: Callable[[int], None]) -> None:
    """In so many threads that start together; what one raises is raised."""
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        work(number)

    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(run, number) for number in range(count)]:
            future.result()


def test_threads_rewrite_different_documents(store: VectorStore) -> None:
    def work(number: int) -> None:
        name = f"document {number}"
        for turn in range(4):
            of = [f"{number} {turn} {part}" for part in range(3)]
            put(store, name, f"generation {turn}", *of)
            assert found(store, name) == of
            assert store.current(name) == Generation(name, f"generation {turn}", 3)

    at_once(8, work)
    assert listed(store) == {f"document {number}": 3 for number in range(8)}
    assert found(store) == [f"{number} 3 {part}" for number in range(8) for part in range(3)]


def test_threads_rewrite_the_same_document(store: VectorStore) -> None:
    put(store, "d", "first", "first 0", "first 1", "first 2")

    def work(number: int) -> None:
        for turn in range(4):
            name = f"{number}-{turn}"
            store.write("d", name, texts(*(f"{name} {part}" for part in range(3))))
            # Somebody else's pruning may have been first.
            with suppress(LookupError):
                store.switch("d", name)
            seen = found(store, "d")
            assert len(seen) == 3
            assert len({text.split()[0] for text in seen}) == 1
            store.prune("d")

    at_once(8, work)
    store.prune("d")
    assert listed(store) == {"d": 3}
    assert len(found(store)) == 3


def test_threads_write_the_same_generation(store: VectorStore) -> None:
    at_once(8, lambda number: [store.write("d", "one", texts("a", "b", "c"))].clear())
    store.write("d", "one", texts("a", "b", "c"))
    store.switch("d", "one")
    assert found(store) == ["a", "b", "c"]


def test_a_search_beside_a_switch_finds_one_text(store: VectorStore) -> None:
    of = {name: [f"{name} {part}" for part in range(5)] for name in ("old", "new")}
    put(store, "d", "old 0", *of["old"])
    put(store, "e", "one", "always there")
    ended = threading.Event()
    seen: set[str] = set()

    def work(number: int) -> None:
        if number:
            while not ended.is_set():
                texts_of = found(store, "d")
                assert texts_of in of.values()
                seen.add(texts_of[0])
                assert found(store, "e") == ["always there"]
            return
        try:
            for turn in range(1, 21):
                name = ("old", "new")[turn % 2]
                put(store, "d", f"{name} {turn}", *of[name])
        finally:
            ended.set()

    at_once(4, work)
    assert seen <= {"old 0", "new 0"}


def test_several_that_begin_at_once_share_one_store(place: Place) -> None:
    if place.name.startswith("qdrant"):
        pytest.skip("its collections are made by one process")

    def work(number: int) -> None:
        with closing(place.open()) as store:
            for turn in range(3):
                put(store, f"document {number}", f"{turn}", f"text {number}")
                # Somebody else's pruning may be first.
                with suppress(LookupError):
                    put(store, "shared", f"{number} {turn}", "the same", "for all")
                assert found(store, "shared") == ["the same", "for all"]
                store.write("to delete", f"{number}", texts("x"))
                store.delete(["to delete"])

    at_once(4, work)
    with closing(place.open()) as store:
        store.prune("shared")
        assert listed(store) == {"shared": 2} | {f"document {number}": 1 for number in range(4)}
        assert found(store) == [*(f"text {number}" for number in range(4)), "the same", "for all"]


@pytest.mark.parametrize("kind", ["lancedb", "qdrant"])
def test_who_is_killed_leaves_one_whole_text(kind: str, tmp_path: Path, *, long: bool) -> None:
    folder = tmp_path / "vectors"
    command = [sys.executable, "-m", "housekeeping_pipelines_tests.contracts.rewriting", kind, str(folder)]
    seen = set()
    # How many steps are let pass: the next one, whichever it is then, is on its way.
    for steps in (3, 1, 2) * (10 if long else 1):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            done = [process.stdout.readline().strip() for _ in range(steps)]
            process.kill()
        assert all(done)
        with closing(open_folder(kind, folder)) as store:
            store.check()
            current = store.current("document")
            assert current is not None
            assert current.chunks == CHUNKS
            hits = store.search(vector(1), 5 * CHUNKS)
            assert {hit.text for hit in hits} == {f"the text of generation {current.name}"}
            assert sorted(hit.position for hit in hits) == list(range(CHUNKS))
            store.prune("document")
            assert listed(store) == {"document": CHUNKS}
            seen.add(current.name)
    assert len(seen) >= 2


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def refusal(work: Callable[[], Any]) -> HousekeepingError:
    """What it raises, which must be one line without a secret."""
    with pytest.raises(HousekeepingError) as caught:
        work()
    said = caught.value.one_line
    assert "\n" not in said
    assert len(said) < 500
    assert "secret" not in said
    assert ".rs:" not in said
    return caught.value


def calls(store: VectorStore) -> list[Callable[[], Any]]:
    return [
        store.check,
        lambda: store.write("d", "one", texts("a")),
        lambda: store.switch("d", "one"),
        lambda: store.prune("d"),
        lambda: store.delete(["d"]),
        lambda: store.current("d"),
        lambda: store.vectors("d", ["00"]),
        lambda: list(store.documents()),
        lambda: store.count(),
        lambda: store.search(vector(1)),
    ]


@pytest.mark.parametrize("kind", ["postgresql", "qdrant"])
def test_a_server_that_is_not_there_is_unavailable(kind: str, tmp_path: Path) -> None:
    url = {"postgresql": "postgresql://me:secret@127.0.0.1:{}/x", "qdrant": "qdrant://127.0.0.1:{}"}[kind]
    store = open_vector_store(
        url.format(closed_port()), SPACE, database=lambda: sa.create_engine("postgresql+psycopg://"), home=tmp_path,
        api_key="secret",
    )  # fmt: skip
    for call in calls(store):
        assert isinstance(refusal(call), Unavailable)
    store.close()


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (Answer("no", 401), ConfigurationError, "VECTOR_STORE_API_KEY"),
        (Answer("no", 403), ConfigurationError, "VECTOR_STORE_API_KEY"),
        (Answer("secret\ntrace", 500), Unavailable, "answers 500"),
        (Answer("", 429, {"Retry-After": "1"}), Unavailable, "Qdrant at 127.0.0.1"),
        (Answer.html("<h1>another server\n</h1>"), Unavailable, "Qdrant at 127.0.0.1"),
        (Answer.json({"result": None}), Unavailable, "Qdrant at 127.0.0.1"),
    ],
    ids=["401", "403", "500", "429", "page", "null"],
)
def test_a_server_that_answers_something_else_is_named(answer: Answer, kind: type[Exception], said: str) -> None:
    with WebServer() as web:
        for path in ("", "_generations"):
            for end in ("", "/exists"):
                web.routes[f"/collections/housekeeping_documents{path}{end}"] = answer
        store = open_qdrant(web.url, SPACE, api_key="secret")
        for call in calls(store):
            error = refusal(call)
            assert isinstance(error, kind)
            assert said in error.one_line
        assert {request.headers["api-key"] for request in web.requests} == {"secret"}


def test_a_folder_that_is_a_file_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "vectors").write_text("a file")

    def work(call: int) -> None:
        calls(LanceStore(tmp_path / "vectors", SPACE))[call]()

    for number in range(len(calls(open_folder("lancedb", tmp_path / "elsewhere")))):
        assert str(tmp_path / "vectors") in refusal(lambda number=number: work(number)).one_line  # type: ignore[misc]
    assert (tmp_path / "vectors").read_text() == "a file"


def test_looking_at_a_store_makes_nothing(engine: sa.Engine, tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    with closing(LanceStore(folder, SPACE)) as store:
        store.check()
        assert (store.count(), store.delete(["d"]), list(store.documents())) == (0, 0, [])
    assert not folder.exists() or list(folder.iterdir()) == []
    with closing(PgVectorStore(engine, SPACE)) as other:
        other.check()
        assert (other.count(), other.delete(["d"]), list(other.documents())) == (0, 0, [])
    assert column(engine, "SELECT extname FROM pg_extension WHERE extname = 'vector'") == []


@pytest.mark.parametrize(
    "url",
    [
        "mysql://x", "lancedb://", "qdrant://", "qdrant://me:secret@host", "qdrant://h:port", "qdrant://[::1",
        "postgresql://:bad:/:secret", "vectors", "http://h",
    ],
)  # fmt: skip
def test_an_address_of_no_store_is_refused_with_what_is_accepted(url: str, tmp_path: Path) -> None:
    error = refusal(lambda: open_vector_store(url, SPACE, database=lambda: sa.create_engine(""), home=tmp_path))
    assert isinstance(error, ConfigurationError)
    assert "lancedb:///FOLDER" in error.one_line


def test_each_address_opens_its_store(engine: sa.Engine, tmp_path: Path) -> None:
    def label(url: str | None) -> str:
        with closing(open_vector_store(url, SPACE, database=lambda: engine, home=tmp_path)) as store:
            return store.label

    name = engine.url.database
    assert label(None) == f"pgvector in database {name}"
    assert label("postgresql://me:secret@127.0.0.1/other") == "pgvector in database other"
    assert label("lancedb://vectors") == f"LanceDB in {tmp_path / 'vectors'}"
    assert label(f"lancedb://{tmp_path}/elsewhere") == f"LanceDB in {tmp_path / 'elsewhere'}"
    assert label("qdrant://127.0.0.1") == "collection housekeeping_documents of Qdrant at 127.0.0.1:6333"
    assert label("qdrant://[::1]") == "collection housekeeping_documents of Qdrant at [::1]:6333"
    assert label("qdrants://127.0.0.1:7000") == "collection housekeeping_documents of Qdrant at 127.0.0.1:7000"


def test_a_connection_that_is_lost_while_chunks_are_written_is_no_traceback(engine: sa.Engine) -> None:
    store = PgVectorStore(make_engine(engine.url, pooled=3), SPACE)
    put(store, "d", "one", "a")

    def cut() -> Iterator[Chunk]:
        yield from texts("b")
        sql(engine, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY %'")
        for _ in range(10_000):
            yield from texts("c" * 1000)

    assert isinstance(refusal(lambda: store.write("d", "two", cut())), Unavailable)
    assert found(store) == ["a"]
    put(store, "d", "two", "d")
    assert (found(store), listed(store)) == (["d"], {"d": 1})
    store.close()


def test_what_the_server_does_not_take_is_no_traceback(engine: sa.Engine) -> None:
    store = PgVectorStore(engine, SPACE)
    put(store, "d", "one", "a")
    assert "refuses" in refusal(lambda: store.write("d", "two", [*texts("b"), *texts("c")])).one_line
    assert (found(store), listed(store)) == (["a"], {"d": 1})


def test_pgvector_finds_more_through_its_index_than_one_scan_of_it_gives(engine: sa.Engine) -> None:
    url = engine.url
    index = sa.create_engine(url, connect_args={"options": "-c enable_seqscan=off -c enable_sort=off"})
    store = PgVectorStore(index, SPACE)
    for name in range(4):
        store.write("d", f"old {name}", [Chunk(at, "old", "00", anywhere(f"{name} {at}")) for at in range(300)])
    put(store, "e", "one", *(f"text {number}" for number in range(300)))
    put(store, "d", "one", "another")
    with index.connect() as connection:
        indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'document_vectors' AND indexdef LIKE '%hnsw%'"
        assert "vector_cosine_ops" in str(connection.scalar(sa.text(indexes)))
    hits = store.search(anywhere("text 7"), 200)
    assert len(hits) == 200
    assert hits[0].text == "text 7"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    store.close()


@pytest.mark.parametrize(("dimension", "kind"), [(1, "vector(1)"), (2000, "vector(2000)"), (3072, "halfvec(3072)")])
def test_pgvector_takes_every_dimension_that_it_can_index(engine: sa.Engine, dimension: int, kind: str) -> None:
    store = PgVectorStore(engine, Space("wide", dimension))
    one = [1.0, *([0.0] * (dimension - 1))]
    other = [0.6] if dimension == 1 else [0.6, -0.8, *([0.0] * (dimension - 2))]
    store.write("d", "one", [Chunk(0, "a", "aa", one), Chunk(1, "b", "bb", other)])
    store.switch("d", "one")
    assert store.search(one, 1)[0].text in ("a", "b")
    assert store.vectors("d", ["bb"])["bb"] == pytest.approx(other, abs=1e-3)
    assert scalar(
        engine,
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'embedding'"
        " AND attrelid = 'housekeeping.document_vectors'::regclass",
    ) == kind  # fmt: skip


@pytest.mark.parametrize("dimension", [0, 4001])
def test_pgvector_refuses_a_dimension_that_it_cannot_index(engine: sa.Engine, dimension: int) -> None:
    assert "another EMBEDDING_MODEL" in refusal(lambda: PgVectorStore(engine, Space("wide", dimension))).one_line


def test_what_lance_deleted_leaves_the_disk(tmp_path: Path) -> None:
    def on_disk(text: str) -> bool:
        return any(text.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    with closing(LanceStore(tmp_path / "vectors", SPACE, kept_versions=timedelta(0))) as store:
        put(store, "d", "one", "a text to be forgotten")
        put(store, "e", "one", "a text to be kept")
        assert on_disk("to be forgotten")
        store.delete(["d"])
    assert on_disk("to be kept")
    assert not on_disk("to be forgotten")
    with closing(LanceStore(tmp_path / "vectors", SPACE)) as store:
        assert found(store) == ["a text to be kept"]


@pytest.mark.parametrize("kind", ["lancedb", "qdrant"])
def test_who_was_interrupted_before_the_first_text_left_nothing_that_matters(kind: str, tmp_path: Path) -> None:
    client = OneAtATime(local_client(tmp_path / "vectors")) if kind == "qdrant" else None
    with closing(open_folder(kind, tmp_path / "vectors", client=client)) as store:
        put(store, "d", "one", "a")
        store.delete(["d"])
    # The mark of the space is made last.
    if client is not None:
        client.delete_collection("housekeeping_documents_generations")
    else:
        import lancedb

        lancedb.connect(str(tmp_path / "vectors")).drop_table("vector_space")
    with closing(open_folder(kind, tmp_path / "vectors", Space("model-b", 16), client=client)) as other:
        other.write("d", "one", [Chunk(0, "b", "00", [1.0] * 16)])
        other.switch("d", "one")
        assert [hit.text for hit in other.search([1.0] * 16)] == ["b"]


class Changing:
    """Chunks of one document whose current generation is another at every look."""

    def __init__(self, turns: int) -> None:
        self.looks = 0
        self.turns = turns

    def find(self, count: int) -> list[Candidate]:
        from housekeeping_pipelines.resources.vector_store import Hit

        names = {str(min(self.looks, self.turns)), "old"}
        return [Candidate(Hit("d", 0, name, 1.0, {}), name) for name in sorted(names)]

    def pointers(self, documents: set[str]) -> dict[str, str]:
        self.looks += 1
        return {"d": str(min(self.looks, self.turns))}


def test_a_search_looks_again_until_nothing_changed_meanwhile() -> None:
    restless = Changing(5)
    hits: list[Hit] = consistent_search(restless.find, restless.pointers, 10)
    assert [hit.text for hit in hits] == ["5"]
    with pytest.raises(Unavailable, match="search again"):
        consistent_search((other := Changing(10_000)).find, other.pointers, 10)
