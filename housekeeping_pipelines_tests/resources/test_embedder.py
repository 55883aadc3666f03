"""Embeddings of a loopback server that speaks OpenAI's /embeddings to OpenAI's own client; and the lexical stand-in."""

from __future__ import annotations

import json
import math
import os
import random
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from housekeeping_pipelines.demo import words as sample_words
from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError, Unavailable
from housekeeping_pipelines.resources.embedder import Embedder, TextRefused
from housekeeping_pipelines.resources.embedder.lexical import DIMENSION, LexicalEmbedder
from housekeeping_pipelines.resources.embedder.openai_compatible import BATCH, BATCH_CHARACTERS, OpenAIEmbedder
from housekeeping_pipelines.resources.embedder.opening import open_embedder
from housekeeping_pipelines.resources.vector_store import Chunk, Space
from housekeeping_pipelines.resources.vectors import Vectors
from housekeeping_pipelines.settings import load_settings
from housekeeping_pipelines_tests.web_server import Answer, Asked, Raw, WebServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import sqlalchemy as sa

    from housekeeping_pipelines.resources.vector_store import Vector

KEY = "sk-a-very-secret-key"
PATH = "/v1/embeddings"


@dataclass
class Model:
    """A server's model of four dimensions, whose vectors are of any length; the first number tells the text's length.

    Attributes:
        failures: what is answered first, one a request.
        change: what becomes of the list of answers.
    """

    failures: list[Answer | Raw] = field(default_factory=list)
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda data: data
    asked: list[list[str]] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Answer | Raw:
        body = asked.json()
        assert asked.headers["Authorization"] == f"Bearer {KEY}"
        assert (body["model"], body["encoding_format"]) == ("a-model", "float")
        self.asked.append(body["input"])
        if self.failures:
            return self.failures.pop(0)
        data = [
            {"object": "embedding", "index": index, "embedding": [3.0 * (len(text) + 1), 4.0, 0.0, -2.0]}
            for index, text in enumerate(body["input"])
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return Answer.json({"object": "list", "data": self.change(data), "model": "a-model", "usage": usage})


def error(status: int, message: str = "no", **headers: str) -> Answer:
    """As OpenAI's servers say it."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
    return Answer.json(body, status, **headers)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as web:
        yield web


@pytest.fixture
def model(web: WebServer) -> Model:
    web.routes[PATH] = model = Model()
    return model


def embedder(web: WebServer, **more: Any) -> OpenAIEmbedder:
    return OpenAIEmbedder(f"{web.url}/v1", KEY, "a-model", **more)


def expected(text: str) -> Vector:
    numbers = [3.0 * (len(text) + 1), 4.0, 0.0, -2.0]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


def refusal(work: Callable[[], Any], kind: type[HousekeepingError]) -> str:
    with pytest.raises(kind) as caught:
        work()
    said = caught.value.one_line
    assert "\n" not in said
    assert KEY not in said
    assert len(said) < 500
    # What hangs on it would be printed with a traceback.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return said


def test_texts_are_embedded_in_batches_and_their_order(web: WebServer, model: Model) -> None:
    model.change = lambda data: data[::-1]
    texts = ["x" * (number % 50) for number in range(2 * BATCH + 5)]
    vectors = embedder(web).embed(texts)
    assert vectors == [pytest.approx(expected(text or " ")) for text in texts]
    assert [len(each) for each in model.asked] == [1, BATCH, BATCH, 5]
    assert [text for batch in model.asked[1:] for text in batch] == [text or " " for text in texts]


def test_a_batch_is_no_longer_than_a_server_takes(web: WebServer, model: Model) -> None:
    long = BATCH_CHARACTERS // 3
    texts = ["x" * long] * 7 + ["y" * (2 * BATCH_CHARACTERS)] + ["z"]
    assert len(embedder(web).embed(texts)) == 9
    assert [len(each) for each in model.asked[1:]] == [3, 3, 1, 1, 1]


def test_no_text_is_no_vector(web: WebServer, model: Model) -> None:
    assert embedder(web).embed([]) == []


def test_the_dimension_is_asked_for_once_also_by_many_threads(web: WebServer, model: Model) -> None:
    ours = embedder(web)
    start = threading.Barrier(8)

    def work(number: int) -> list[Vector]:
        start.wait()
        assert ours.space == Space("a-model", 4)
        return ours.embed([f"text {number}"])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(work, range(8)))
    assert answers == [[pytest.approx(expected("text 0"))]] * 8
    assert sorted(map(len, model.asked)) == [1] * 9
    assert sum(batch == ["dimension"] for batch in model.asked) == 1


def test_a_failed_question_for_the_dimension_is_asked_again(web: WebServer, model: Model) -> None:
    ours = embedder(web)
    model.failures = [error(401)]
    refusal(lambda: ours.space, ConfigurationError)
    assert ours.space.dimension == 4


def test_vectors_of_any_length_become_of_length_one(web: WebServer, model: Model) -> None:
    for vector in embedder(web).embed(["a", "some more", "x" * 1000]):
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (error(401, f"Incorrect API key provided: {KEY}"), ConfigurationError, "EMBEDDING_API_KEY"),
        (error(403), ConfigurationError, "EMBEDDING_API_KEY"),
        (error(404, "The model `a-model` does not exist"), ConfigurationError, "EMBEDDING_MODEL (a-model)"),
        (error(400, "This model's maximum context\nlength is 8192 tokens"), TextRefused, "maximum context length"),
        (error(413), TextRefused, "answers 413"),
        (error(422), TextRefused, "answers 422"),
        (error(400, f"no such key as {KEY}"), TextRefused, "answers 400"),
        (Answer("<h1>Bad\n request</h1>", 400), TextRefused, "answers 400"),
        (Answer.to("http://127.0.0.1:1/"), Unavailable, "does not answer"),
        (Answer.html("<h1>Welcome</h1>"), Unavailable, "cannot be read"),
        (Answer("{", 200, {"Content-Type": "application/json"}), Unavailable, "cannot be read"),
        (Answer.json({"object": "list"}), Unavailable, "cannot be read"),
        (Answer.json({"data": None}), Unavailable, "cannot be read"),
        (Answer.json({"data": [{"index": 0, "embedding": "AAAA"}]}), Unavailable, "cannot be read"),
        (Answer.json({"data": [{"index": None, "embedding": None}]}), Unavailable, "cannot be read"),
        (Answer.json([]), Unavailable, "cannot be read"),
    ],
    ids=[
        "401", "403", "404", "400", "413", "422", "key", "proxy", "elsewhere", "page", "cut", "empty", "null", "base64",
        "nothing", "list",
    ],
)  # fmt: skip
def test_what_a_server_refuses_is_told_in_one_line(
    web: WebServer, model: Model, answer: Answer, kind: type[HousekeepingError], said: str
) -> None:
    ours = embedder(web)
    assert ours.space.dimension == 4
    # The client asks again where it is sent elsewhere or the connection breaks.
    model.failures = [answer] * 3
    assert said in refusal(lambda: ours.embed(["a text"]), kind)
    model.failures = []
    # Another text may fare better.
    assert len(ours.embed(["another"])) == 1


@pytest.mark.parametrize("status", [429, 500, 503, 408, 409])
def test_what_may_be_better_a_moment_later_is_asked_again(web: WebServer, model: Model, status: int) -> None:
    ours = embedder(web)
    model.failures = [error(status, **{"Retry-After": "0.01"}), error(status, **{"retry-after-ms": "5"})]
    assert len(ours.embed(["a text"])) == 1
    assert len(model.asked) == 4
    model.failures = [error(status, **{"Retry-After": "0.01"})] * 3
    assert refusal(lambda: ours.embed(["a text"]), Unavailable) == f"embeddings: 127.0.0.1:{web.port} answers {status}"
    assert len(model.asked) == 7


def test_a_server_that_hangs_is_too_slow(web: WebServer, model: Model) -> None:
    ours = embedder(web, timeout_seconds=0.2)
    assert ours.space.dimension == 4
    model.failures = [Raw(lambda write: [web.stopping.wait(5)].clear())] * 3
    assert "is too slow" in refusal(lambda: ours.embed(["a text"]), Unavailable)


def test_a_server_that_is_not_there_does_not_answer() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = OpenAIEmbedder(f"http://127.0.0.1:{port}/v1", KEY, "a-model")
    assert refusal(lambda: ours.space, Unavailable) == f"embeddings: 127.0.0.1:{port} does not answer"


def test_a_connection_that_breaks_does_not_answer(web: WebServer, model: Model) -> None:
    ours = embedder(web)
    assert ours.space.dimension == 4
    model.failures = [Raw(lambda write: write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"))] * 3
    assert "does not answer" in refusal(lambda: ours.embed(["a text"]), Unavailable)


def test_a_name_and_a_password_in_the_address_are_not_told(web: WebServer, model: Model) -> None:
    ours = OpenAIEmbedder(f"http://me:{KEY}@127.0.0.1:{web.port}/nowhere", KEY, "a-model")
    assert f"127.0.0.1:{web.port} answers 404" in refusal(lambda: ours.space, ConfigurationError)


def _with(**more: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda data: [{**each, **more} for each in data]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], "answers 2 vectors for 3 texts"),
        (lambda data: [*data, {**data[0], "index": 3}], "answers 4 vectors for 3 texts"),
        (lambda data: [], "cannot be read|answers 0 vectors for 3 texts"),
        (_with(index=0), "for 3 texts"),
        (lambda data: [{**each, "index": each["index"] + 1} for each in data], "for 3 texts"),
        (_with(embedding=[float("nan"), 0.0, 0.0, 1.0]), "without a direction"),
        (_with(embedding=[float("inf"), 0.0, 0.0, 1.0]), "without a direction"),
        (_with(embedding=[0.0, 0.0, 0.0, 0.0]), "without a direction"),
        (_with(embedding=[]), "without a direction"),
        (_with(embedding=["a", "b", "c", "d"]), "cannot be read"),
        (_with(embedding=None), "cannot be read"),
    ],
    ids=["fewer", "more", "none", "same", "shifted", "nan", "inf", "zero", "empty", "words", "null"],
)
def test_vectors_that_cannot_be_are_not_taken(
    web: WebServer, model: Model, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], said: str
) -> None:
    ours = embedder(web)
    assert ours.space.dimension == 4
    model.change = change
    told = refusal(lambda: ours.embed(["a", "b", "c"]), Unavailable)
    assert any(each in told for each in said.split("|"))


def test_another_dimension_than_before_is_refused(web: WebServer, model: Model) -> None:
    ours = embedder(web)
    assert ours.space.dimension == 4
    model.change = lambda data: [data[0], {**data[1], "embedding": [1.0, 0.0]}]
    told = refusal(lambda: ours.embed(["a", "b"]), ConfigurationError)
    assert "another dimension than 4; check EMBEDDING_MODEL" in told


def test_the_settings_name_a_server_or_none(web: WebServer, model: Model) -> None:
    assert isinstance(open_embedder(None, None, None), LexicalEmbedder)
    assert isinstance(open_embedder(None, KEY, None), LexicalEmbedder)
    assert open_embedder(f"{web.url}/v1", KEY, "a-model").space == Space("a-model", 4)
    for given in ((web.url, None, None), (None, None, "a-model")):
        refusal(lambda given=given: open_embedder(*given), ConfigurationError)  # type: ignore[misc]


def test_a_server_without_keys_gets_one_none_the_less(web: WebServer) -> None:
    keys = []

    def answer(asked: Asked) -> Answer:
        keys.append(asked.headers["Authorization"])
        return Answer.json({"object": "list", "data": [{"index": 0, "embedding": [1.0]}], "model": "m"})

    web.routes[PATH] = answer
    assert OpenAIEmbedder(f"{web.url}/v1", None, "m").space == Space("m", 1)
    assert keys == ["Bearer none"]


# The lexical embedder.


def nearness(one: Vector, other: Vector) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_lexical_vectors_are_of_length_one() -> None:
    texts = [
        "",
        " \n\t",
        "…!?",
        "a",
        "the same the same",
        "ünïcödé ☃ 😀",
        "\0",
        "\ud800",
        "漢字かな交じり文",
        "x" * 100_000,
    ]
    vectors = LexicalEmbedder().embed(texts)
    assert len(vectors) == len(texts)
    for vector in vectors:
        assert len(vector) == DIMENSION == LexicalEmbedder.space.dimension
        assert math.hypot(*vector) == pytest.approx(1)
    assert LexicalEmbedder().embed([]) == []


def test_lexical_vectors_are_the_same_in_every_process() -> None:
    texts = ["The office opens at nine.", "Größe, naïve façade", "漢字", ""]
    code = (
        "import json, sys; from housekeeping_pipelines.resources.embedder.lexical import LexicalEmbedder;"
        "print(json.dumps(LexicalEmbedder().embed(json.loads(sys.argv[1]))))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(texts)],
            env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1")
    }  # fmt: skip
    assert answers == {json.dumps(LexicalEmbedder().embed(texts)) + "\n"}
    # Vectors that are kept must be those that are made tomorrow; whoever changes them changes the model's name.
    vector = LexicalEmbedder().embed(["housekeeping"])[0]
    largest = sorted(range(DIMENSION), key=lambda at: -abs(vector[at]))[:3]
    assert (LexicalEmbedder.space.model, largest) == ("lexical-hashing-1", [129, 264, 31])


PLACES = ["Lisbon", "Vienna", "Porto"]


def documents(subject: str) -> list[list[str]]:
    """240 texts of some sentences, of which three each are about the same thing."""
    chance = random.Random(4)
    people = [
        f"{given} {family}"
        for group in sample_words.PEOPLE
        for given in group[0].split()
        for family in group[1].split()
    ]
    return [
        [
            each.format(thing=subject.format(thing=thing, place=place, person=person))
            for each in topic.questions + topic.answers
            if "{thing}" in each
        ]
        for topic in sample_words.TOPICS
        for thing in topic.things
        for place in PLACES
        for person in [chance.choice(people)]
    ]


def strayed(texts: list[list[str]]) -> tuple[list[str], int]:
    """The sentences that are nearer to another document than to their own, of how many."""
    ours = LexicalEmbedder()
    whole = np.array(ours.embed([" ".join(each) for each in texts]))
    asked = [(number, each) for number, text in enumerate(texts) for each in text]
    nearest = (np.array(ours.embed([each for _, each in asked])) @ whole.T).argmax(axis=1)
    return [each for (number, each), found in zip(asked, nearest, strict=True) if number != found], len(asked)


def test_the_nearest_document_to_a_sentence_is_the_one_that_it_is_of() -> None:
    wrong, count = strayed(documents("{thing} in {place} for {person}"))
    assert (wrong, count) == ([], 1980)
    # Three documents that are the same but for one word.
    wrong, count = strayed(documents("{thing} in {place}"))
    assert len(wrong) <= count / 500


def test_inflections_and_shared_words_are_nearer_than_strange_ones() -> None:
    ours = LexicalEmbedder()
    text, near, part, far = ours.embed(
        ["opening hours of our offices", "office opening hour", "when is it open", "whales sing below the ice"]
    )
    assert nearness(text, near) > 0.3
    assert nearness(text, near) > nearness(text, part) + 0.1
    assert abs(nearness(text, far)) < 0.2
    same, other = ours.embed(["Opening HOURS", "opening hours"])
    assert nearness(same, other) == pytest.approx(1)


def test_a_changed_model_or_dimension_is_refused_with_what_to_do(
    web: WebServer, model: Model, engine: sa.Engine, tmp_path: Path
) -> None:
    def vectors(**environ: str) -> Vectors:
        return Vectors(load_settings(tmp_path, {"HOUSEKEEPING_HOME": str(tmp_path), **environ}))

    remote = {"EMBEDDING_BASE_URL": f"{web.url}/v1", "EMBEDDING_API_KEY": KEY, "EMBEDDING_MODEL": "a-model"}
    store = vectors().open(lambda: engine)
    store.write("d", "one", [Chunk(0, "a", "aa", LexicalEmbedder().embed(["a"])[0])])
    store.switch("d", "one")
    store.close()
    told = refusal(lambda: vectors(**remote).open(lambda: engine), ConfigurationError)
    assert f"holds vectors of lexical-hashing-1 ({DIMENSION} dimensions), not of a-model (4)" in told
    assert "DROP TABLE housekeeping.document_vectors" in told
    assert "`housekeeping sync-watched-documents --force`" in told
    # What the hint says helps.
    statement = told.split("; or ")[1].split(" and run")[0]
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    ours = vectors(**remote)
    store = ours.open(lambda: engine)
    store.write("d", "one", [Chunk(0, "a", "aa", ours.embedder.embed(["a"])[0])])
    store.close()
    # The same model, of which the server now has another.
    model.change = lambda data: [{**each, "embedding": [1.0, 2.0, 3.0]} for each in data]
    told = refusal(lambda: vectors(**remote).open(lambda: engine), ConfigurationError)
    assert "holds vectors of a-model (4 dimensions), not of a-model (3)" in told
    with WebServer() as down:
        address = f"{down.url}/v1"
    refusal(lambda: vectors(**{**remote, "EMBEDDING_BASE_URL": address}).open(lambda: engine), Unavailable)


def test_both_embedders_are_of_one_protocol(web: WebServer, model: Model) -> None:
    for each in (embedder(web), LexicalEmbedder()):
        ours: Embedder = each
        (vector,) = ours.embed(["a text"])
        assert len(vector) == ours.space.dimension
