"""Watched documents by the command: added, synced, held, decided about, removed; and what is typed wrongly."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.application import tables
from housekeeping_pipelines_tests.deletion.support import column, sql
from housekeeping_pipelines_tests.web_server import Answer, WebServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines_tests.support import Installation

LONG = "".join(f"<p>Paragraph {n} of the handbook says what is to be done in case {n}.</p>" for n in range(20))


def page(text: str) -> Answer:
    return Answer.html(f"<html><head><title>Handbook</title></head><body><article>{text}</article></body></html>")


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        server.routes["/handbook"] = page(f"<p>The office opens at nine.</p>{LONG}")
        yield server


@pytest.fixture
def here(engine: sa.Engine, installation: Installation, web: WebServer) -> Installation:
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
        connection.execute(sa.insert(tables.workspaces), [{"slug": "ops", "name": "Operations"}])
    installation.environ["FETCH_ALLOWED_HOSTS"] = f"127.0.0.1:{web.port}"
    return installation


def test_a_page_is_watched_from_its_first_text_to_its_last(
    engine: sa.Engine, here: Installation, web: WebServer
) -> None:
    reference = f"link://{web.url}/handbook"
    added = here.json("watch", "add", reference, "--workspace", "ops", "--every", "24")
    assert added == {"id": "1", "documents": 1, "created": True, "already_watched": False, "every_hours": 24.0}
    report = here.json("sync-watched-documents")
    assert (report["status"], report["updated"], report["chunks_reused"]) == ("succeeded", 1, 0)
    (docpath,) = column(engine, "SELECT docpath FROM documents")
    file = here.directory / ".housekeeping" / "documents" / docpath
    assert "The office opens at nine." in json.loads(file.read_text())["pageContent"]

    web.routes["/handbook"] = page(f"<p>The office opens at eight.</p>{LONG}")
    told = here.run("sync-watched-documents", "--force", LOG_LEVEL="ERROR")
    assert (told.returncode, told.stderr) == (0, "")
    lines = told.stdout.splitlines()
    assert "  ✓ updated         1  document" in lines
    assert "    -The office opens at nine." in lines
    assert "    +The office opens at eight." in lines
    assert "The office opens at eight." in json.loads(file.read_text())["pageContent"]

    web.routes["/handbook"] = page("<p>Please log in to continue.</p>")
    report = here.json("sync-watched-documents", "--force")
    assert (report["held_for_review"], report["updated"]) == (1, 0)
    assert "watch review 1 --accept or --reject" in report["warnings"][0]
    listed = here.run("watch", "list").stdout
    assert "held" in listed
    assert "it looks like a login page" in listed
    assert max(map(len, listed.splitlines())) <= 120
    (item,) = here.json("watch", "list")["items"]
    assert (item["state"], item["next_sync_at"], item["every_hours"]) == ("held", None, 24.0)
    assert "+Please log in to continue." in item["diff"]
    assert here.json("watch", "review", "1", "--reject")["was"] == "held"
    before = here.json("watch", "list")
    removed = here.json("watch", "remove", "1")
    run_id = removed["run_id"]
    assert removed == {"removed": "1", "documents": 1, "run_id": run_id}
    assert here.run("watch", "list").stdout.startswith("Nothing is watched.")
    assert column(engine, "SELECT watched FROM documents") == [False]

    (trashed,) = here.json("trash", "list")["runs"]
    assert (trashed["run_id"], trashed["task"]) == (run_id, "remove_watched_document")
    undone = here.json("undo", run_id)
    assert (undone["restored"]["document_sync_queues"], undone["conflicts"]) == (1, [])
    assert column(engine, "SELECT watched FROM documents") == [True]
    assert here.json("watch", "list") == before
    told = here.run("watch", "remove", "1", LOG_LEVEL="ERROR")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[0] == f"{reference} is no longer watched."
    assert re.fullmatch(r"undo \S+ undo [0-9a-f]{8}", told.stdout.splitlines()[1])


def test_a_pause_stops_a_removal_too(engine: sa.Engine, here: Installation, web: WebServer) -> None:
    here.json("watch", "add", f"link://{web.url}/handbook", "--workspace", "ops")
    here.json("pause")
    refused = here.run("watch", "remove", "1")
    assert (refused.returncode, "paused" in refused.stderr) == (3, True)
    assert column(engine, "SELECT watched FROM documents") == [True]
    assert here.json("watch", "remove", "1")["error"]["type"] == "Refused"


def test_orphaned_vectors_are_named_and_then_deleted(engine: sa.Engine, here: Installation, web: WebServer) -> None:
    web.routes["/other"] = page(f"<p>Another page.</p>{LONG}")
    for name in ("handbook", "other"):
        here.json("watch", "add", f"link://{web.url}/{name}", "--workspace", "ops")
    here.json("sync-watched-documents")
    (gone,) = column(engine, "SELECT doc_id FROM documents ORDER BY id LIMIT 1")
    sql(
        engine,
        f"DELETE FROM documents WHERE doc_id = '{gone}'",
        "UPDATE housekeeping.document_vectors SET written_at = now() - interval '2 hours'",
    )
    dry = here.run("cleanup-orphan-vectors", LOG_LEVEL="ERROR").stdout
    assert f"would delete vectors/{gone}" in dry
    assert "would delete         1  documents' vectors" in dry
    told = here.run("cleanup-orphan-vectors", "--apply", LOG_LEVEL="ERROR")
    assert "deleted         1  documents' vectors" in told.stdout
    assert "deleted permanently" not in told.stdout
    assert gone not in column(engine, "SELECT document FROM housekeeping.document_vectors")
    assert len(column(engine, "SELECT DISTINCT document FROM housekeeping.document_vectors")) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "https://example.com"], "for a web page: link://https://example.com"),
        (["add", "gopher://example.com"], "there is no source for gopher://"),
        (["add", "link://https://example.com"], "give --workspace SLUG to create one"),
        (["add", "link://https://example.com", "--workspace", "nowhere"], "the workspaces are ops"),
        (["add", "link://https://user:secret@example.com", "--workspace", "ops"], "is not a reference to a document"),
        (["remove", "17"], "there is no watched document 17"),
        (["review", "17", "--accept"], "there is no watched document 17"),
        (["review", "17"], "give exactly one of them"),
        (["review", "17", "--accept", "--retry"], "give exactly one of them"),
        (["add", "link://https://example.com", "--every", "0"], "should be greater than or equal to 1"),
    ],
)
def test_what_is_typed_wrongly_is_one_line_and_changes_nothing(
    engine: sa.Engine, here: Installation, arguments: list[str], said: str
) -> None:
    done = here.run("watch", *arguments)
    assert done.returncode == 2, done.stdout
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert column(engine, "SELECT count(*) FROM documents") == [0]
