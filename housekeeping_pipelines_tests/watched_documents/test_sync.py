"""A sync over a real database, real files and real vectors, from sources whose answers are written down."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.errors import ConfigurationError, Unavailable
from housekeeping_pipelines.execution.interruption import INTERRUPTION
from housekeeping_pipelines.postgres.engine import make_engine
from housekeeping_pipelines.postgres.locks import task_lock
from housekeeping_pipelines.watched_documents import administration
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone
from housekeeping_pipelines_tests.deletion.support import Watcher, column, sql
from housekeeping_pipelines_tests.watched_documents.support import DAY, NEW, OLD, START, WEEK, World

if TYPE_CHECKING:
    from pathlib import Path

    from housekeeping_pipelines.watched_documents.administration import Decision

PAGE = "docs.example/page"
HOUR = timedelta(hours=1)
LONG = "\n\n".join(f"Paragraph {n} says something of its own about the matter {n * 7}." for n in range(30))


@pytest.fixture
def world(engine: sa.Engine, tmp_path: Path) -> World:
    return World(engine, tmp_path).make()


def synced(world: World, *addresses: str, text: str = OLD) -> None:
    """Documents that have been synced once."""
    for address in addresses or (PAGE,):
        world.document(address, text=text)
        world.source.by_address[address] = text
    assert world.sync().status == "succeeded"
    world.now += WEEK


def review(world: World, address: str, decision: Decision) -> str:
    return administration.review(world.runner, HousekeepingConfig(), world.entry(address).id, decision).message


def test_what_changed_is_new_in_the_file_the_record_and_the_vectors_of_every_copy(world: World) -> None:
    ids = [world.document(PAGE, workspace=place) for place in (1, 2, 3)]
    world.source.by_address[PAGE] = OLD
    world.sync()
    world.now += WEEK
    world.source.by_address[PAGE] = NEW
    world.embedder.texts.clear()
    report = world.sync()
    assert (report.status, report.updated, report.unchanged) == ("succeeded", 1, 0)
    assert world.found("opens at eight") == dict.fromkeys(ids, NEW)
    file = world.text(ids[0])
    assert (file["pageContent"], file["author"]) == (NEW, "A. Writer")
    stamps = {*column(world.engine, "SELECT metadata->>'published' FROM documents"), file["published"]}
    stamps |= set(column(world.engine, "SELECT metadata->>'published' FROM housekeeping.document_vectors"))
    assert stamps == {world.now.isoformat(timespec="milliseconds")}
    # Of two chunks one changed, and it was embedded once for three copies.
    assert len(world.embedder.texts) == 1
    assert (report.chunks_embedded, report.chunks_reused) == (1, 5)
    assert world.runs(PAGE)[-1] == (
        "success",
        {"filename": "docs.example-page.json", "workspacesModified": ["1", "2", "3"], "reason": None},
    )
    (diff,) = report.diffs
    assert diff.diff.splitlines() == [
        " # Opening hours",
        "-The office opens at nine and closes at five.",
        "+The office opens at eight and closes at five.",
        " # Address",
    ]
    assert column(world.engine, "SELECT count(DISTINCT generation) FROM housekeeping.document_vectors") == [1]


def test_what_is_unchanged_embeds_and_writes_nothing(world: World) -> None:
    synced(world)
    before = column(world.engine, "SELECT written_at FROM housekeeping.document_vectors ORDER BY 1")
    world.source.asked.clear()
    world.embedder.texts.clear()
    report = world.sync()
    assert (report.updated, report.unchanged, report.chunks_embedded) == (0, 1, 0)
    assert (world.source.asked, world.embedder.texts) == ([(PAGE, True)], [])
    assert column(world.engine, "SELECT written_at FROM housekeeping.document_vectors ORDER BY 1") == before
    assert world.runs(PAGE)[-1][0] == "exited"
    entry = world.entry(PAGE)
    assert (entry.last_synced_at, entry.next_sync_at) == (world.now, world.now + WEEK)


def test_the_same_text_from_a_source_without_versions_is_unchanged_too(world: World) -> None:
    synced(world)
    world.source.by_address[PAGE] = Content(OLD)
    assert world.sync().unchanged == 1


def test_the_longest_due_come_first_and_the_rest_waits(world: World) -> None:
    synced(world, "a.example", "b.example", "c.example", "d.example")
    for hours, address in enumerate(("c.example", "a.example", "d.example", "b.example")):
        sql(
            world.engine,
            f"UPDATE document_sync_queues SET next_sync_at = '{(START + hours * HOUR).isoformat()}'"
            f" WHERE id = {world.entry(address).key}",
        )
    world.source.asked.clear()
    report = world.sync(max_documents=2, concurrency=1)
    assert [address for address, _ in world.source.asked] == ["c.example", "a.example"]
    assert (report.scanned, report.candidates, report.unchanged, report.skipped["budget"]) == (4, 2, 2, 2)


def test_what_is_not_due_is_left_unless_forced(world: World) -> None:
    synced(world)
    world.now -= timedelta(seconds=1)
    assert world.sync().scanned == 0
    assert world.sync(force=True).unchanged == 1


def test_a_run_out_of_time_begins_no_more(world: World) -> None:
    synced(world, "a.example", "b.example")
    report = world.sync(max_seconds=0.0)
    assert (report.stopped_reason, report.unchanged, report.skipped["budget"]) == ("max_seconds", 0, 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_the_documents_that_it_is_at(world: World, number: signal.Signals) -> None:
    addresses = [f"{letter}.example" for letter in "abcdefgh"]
    synced(world, *addresses)
    world.source.by_address |= {address: Content(NEW) for address in addresses}

    def interrupt(done: int) -> None:
        if done and not INTERRUPTION:
            signal.raise_signal(number)

    world.runner = replace(world.runner, observer=Watcher(interrupt))
    report = world.sync(concurrency=1)
    try:
        assert (report.status, report.stopped_reason) == ("partial", "interrupted")
        assert report.message == f"interrupted by {number.name}; the next run goes on"
        texts = [world.text(f"{address}.json@1")["pageContent"] for address in addresses]
        assert report.updated == texts.count(NEW)
        assert 1 <= report.updated < len(addresses)
    finally:
        INTERRUPTION.clear()
    world.runner = replace(world.runner, observer=Watcher())
    assert report.updated + world.sync().updated == len(addresses)


def test_one_bad_document_never_touches_another(world: World, tmp_path: Path) -> None:
    outside = tmp_path.parent / "outside.json"
    world.document("nothing.example", about={"title": "no source"})
    world.document("no-file.example", text=None)
    world.document("strange.example", about={"chunkSource": "gopher://strange.example"})
    world.document("breaks.example")
    world.document("leads-out.example", docpath=f"../{outside.name}", text=None)
    world.document("broken-file.example", text=None)
    (tmp_path / "custom-documents").mkdir(exist_ok=True)
    (tmp_path / "custom-documents" / "broken-file.example.json").write_text("{")
    world.source.by_address |= {
        "breaks.example": RuntimeError("a bug of somebody's"),
        "no-file.example": NEW,
        "broken-file.example": NEW,
        "leads-out.example": NEW,
        PAGE: NEW,
    }
    world.document(PAGE)
    report = world.sync()
    assert (report.status, report.updated, report.failed_count) == ("partial", 3, 4)
    reasons = {name: entry.known.last_error for name, entry in world.entries().items()}
    assert world.found("opens at eight").keys() == {
        "no-file.example.json@1",
        "broken-file.example.json@1",
        "docs.example-page.json@1",
    }
    assert "no chunkSource" in str(reasons["nothing.example.json"])
    assert "its source failed: RuntimeError: a bug of somebody's" in str(reasons["breaks.example"])
    assert "is not a path below DOCUMENTS_PATH" in str(reasons["leads-out.example"])
    assert not outside.exists()
    assert world.text("broken-file.example.json@1")["pageContent"] == NEW


def partly(world: World) -> Any:
    report = world.sync()
    assert report.status == "partial"
    return report


def test_outages_back_off_and_end_in_an_error_that_is_tried_daily(world: World) -> None:
    synced(world)
    world.source.by_address[PAGE] = Failed("docs.example answers 503")
    for failures, hours in enumerate((1, 2, 4, 8), 1):
        report = partly(world)
        entry = world.entry(PAGE)
        assert (entry.state, entry.failures, entry.next_sync_at - world.now) == ("active", failures, hours * HOUR)
        assert report.warnings == ()
        assert world.sync().scanned == 0
        world.now = entry.next_sync_at
    for failures in (5, 6, 7):
        report = partly(world)
        entry = world.entry(PAGE)
        assert (entry.state, entry.failures, entry.next_sync_at - world.now) == ("error", failures, DAY)
        assert "docs.example/page fails repeatedly" in report.warnings[0]
        assert [(each.state, each.failures, each.reason) for each in report.in_error] == [
            ("error", failures, "docs.example answers 503")
        ]
        world.now = entry.next_sync_at
    assert world.found("opens at nine") == {"docs.example-page.json@1": OLD}
    assert column(world.engine, "SELECT watched FROM documents") == [True]
    world.source.by_address[PAGE] = OLD
    assert world.sync().unchanged == 1
    entry = world.entry(PAGE)
    assert (entry.state, entry.failures, entry.known.last_error) == ("active", 0, None)


def test_five_blips_in_a_year_are_no_error(world: World) -> None:
    synced(world)
    for _ in range(7):
        world.source.by_address[PAGE] = Failed("a blip")
        partly(world)
        world.now += HOUR
        world.source.by_address[PAGE] = OLD
        world.sync()
        world.now += WEEK
    assert (world.entry(PAGE).state, world.entry(PAGE).failures) == ("active", 0)


@pytest.mark.parametrize(("jitter", "minutes"), [(0.0, 54), (1.0, 66)])
def test_what_failed_together_is_not_asked_again_together(world: World, jitter: float, minutes: int) -> None:
    synced(world)
    world.jitter = jitter
    world.source.by_address[PAGE] = Failed("down")
    world.sync()
    assert world.entry(PAGE).next_sync_at == world.now + timedelta(minutes=minutes)


def test_what_a_server_asks_to_wait_is_waited(world: World) -> None:
    synced(world)
    world.source.by_address[PAGE] = Failed("429", timedelta(hours=5))
    world.sync()
    assert world.entry(PAGE).next_sync_at == world.now + 5 * HOUR


def test_gone_three_times_a_day_apart_waits_for_a_person(world: World) -> None:
    synced(world)
    world.source.by_address[PAGE] = Gone("docs.example answers 404")
    report = world.sync()
    assert (report.status, report.gone, world.entry(PAGE).state) == ("succeeded", 1, "active")
    # Looking more often makes nothing more gone.
    for _ in range(5):
        world.now += HOUR
        world.sync(force=True)
    assert (world.entry(PAGE).known.gone_count, world.entry(PAGE).state) == (1, "active")
    world.now = world.entry(PAGE).next_sync_at
    world.sync()
    assert world.entry(PAGE).known.gone_count == 2
    world.now = world.entry(PAGE).next_sync_at
    report = world.sync()
    assert (world.entry(PAGE).state, world.sync(force=True).scanned) == ("gone", 0)
    assert "is gone: docs.example answers 404" in report.warnings[0]
    assert world.found("opens at nine") == {"docs.example-page.json@1": OLD}


def test_a_document_that_comes_back_was_never_gone(world: World) -> None:
    synced(world)
    for answer in (Gone("404"), Gone("404"), OLD, Gone("404"), Gone("404")):
        world.source.by_address[PAGE] = answer
        world.sync(force=True)
        world.now += 2 * DAY
    assert (world.entry(PAGE).state, world.entry(PAGE).known.gone_count) == ("active", 2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LONG[: len(LONG) // 4], "characters; the current text has"),
        ("", "0 characters"),
        ("# Sign in\n\nPlease log in to continue.\n\nUsername\n\nPassword\n\nForgot your password?", "a login page"),
        ("We use cookies to make this site better. Accept all cookies | Settings", "a page about cookies"),
        ("# 503 Service Unavailable\n\nPlease try again later.", "an error page"),
        ("Just a moment...\n\nChecking your browser before accessing docs.example", "an error page"),
    ],
)
def test_a_suspicious_text_is_held_and_not_written(world: World, text: str, reason: str) -> None:
    synced(world, text=LONG)
    world.source.by_address[PAGE] = text
    report = world.sync()
    assert (report.status, report.held_for_review, report.updated) == ("succeeded", 1, 0)
    entry = world.entry(PAGE)
    assert entry.state == "held"
    assert reason in str(entry.known.held)
    assert "is held for review" in report.warnings[0]
    assert world.text("docs.example-page.json@1")["pageContent"] == LONG
    assert world.found("Paragraph 29")["docs.example-page.json@1"] == LONG
    # It waits for a person, and for nobody else.
    world.now += 10 * WEEK
    report = world.sync(force=True)
    assert report.scanned == 0
    # Nobody forgets it meanwhile.
    ((state, why, attempt),) = [(each.state, each.reason, each.next_attempt) for each in report.in_error]
    assert (state, reason in why, attempt) == ("held", True, None)


def test_a_page_that_always_spoke_of_cookies_may_go_on_to_do_so(world: World) -> None:
    synced(world, text="How we use cookies: accept all cookies, or none.")
    world.source.by_address[PAGE] = "How we use cookies: accept all cookies, or some."
    assert world.sync().updated == 1


def test_what_is_accepted_is_written_although_it_is_short(world: World) -> None:
    synced(world, text=LONG)
    world.source.by_address[PAGE] = "Now it is short."
    world.sync()
    assert review(world, PAGE, "accept") == "the next sync fetches it again and writes it"
    assert world.sync().updated == 1
    assert world.found("short") == {"docs.example-page.json@1": "Now it is short."}
    assert world.entry(PAGE).known.accepted_hash is None


def test_an_accepted_text_that_changed_meanwhile_is_held_again(world: World) -> None:
    synced(world, text=LONG)
    world.source.by_address[PAGE] = "Now it is short."
    world.sync()
    review(world, PAGE, "accept")
    world.source.by_address[PAGE] = "404 Not Found"
    assert world.sync().held_for_review == 1


def test_what_is_rejected_stays_away_until_the_source_has_something_else(world: World) -> None:
    synced(world, text=LONG)
    world.source.by_address[PAGE] = "Now it is short."
    world.sync()
    review(world, PAGE, "reject")
    assert world.entry(PAGE).next_sync_at == world.now + WEEK
    world.now += WEEK
    report = world.sync()
    assert (report.unchanged, report.held_for_review) == (1, 0)
    assert world.text("docs.example-page.json@1")["pageContent"] == LONG
    world.now += WEEK
    world.source.by_address[PAGE] = LONG + "\n\nAnd more."
    assert world.sync().updated == 1


def test_a_retry_is_due_at_once_and_starts_anew(world: World) -> None:
    synced(world)
    world.source.by_address[PAGE] = Failed("down")
    for _ in range(5):
        world.sync(force=True)
    assert world.entry(PAGE).state == "error"
    review(world, PAGE, "retry")
    entry = world.entry(PAGE)
    assert (entry.state, entry.failures, entry.next_sync_at) == ("active", 0, world.now)


def test_accepting_that_it_is_gone_ends_the_watch_and_keeps_the_document(world: World) -> None:
    synced(world)
    world.source.by_address[PAGE] = Gone("410")
    for _ in range(3):
        world.sync(force=True)
        world.now += 2 * DAY
    review(world, PAGE, "accept")
    assert world.entries() == {}
    assert column(world.engine, "SELECT watched FROM documents") == [False]
    assert world.found("opens at nine") == {"docs.example-page.json@1": OLD}
    # What is known of it goes with its place: to the trash first, from where it comes back.
    assert len(column(world.engine, "SELECT 1 FROM housekeeping.watched_documents")) == 1
    world.purge()
    world.sync()
    assert column(world.engine, "SELECT 1 FROM housekeeping.watched_documents") == []


def test_there_is_nothing_to_decide_about_what_goes_well(world: World) -> None:
    synced(world)
    with pytest.raises(ConfigurationError, match="needs no decision"):
        review(world, PAGE, "reject")


@pytest.mark.parametrize("error", [Unavailable("embeddings: down"), ConfigurationError("no such model")])
def test_an_embedder_that_is_down_ends_the_run_and_is_no_fault_of_the_document(world: World, error: Exception) -> None:
    synced(world, PAGE, "same.example")
    world.source.by_address[PAGE] = NEW
    world.embedder.broken = error
    report = world.sync()
    assert (report.status, report.message) == ("failed", str(error))
    entry = world.entry(PAGE)
    assert (entry.state, entry.failures, entry.next_sync_at <= world.now) == ("active", 0, True)
    assert world.found("opens at nine")["docs.example-page.json@1"] == OLD
    world.embedder.broken = None
    assert world.sync().updated == 1


def test_a_copy_whose_first_document_went_is_watched_on(world: World) -> None:
    first = world.document(PAGE)
    second = world.document(PAGE, workspace=2)
    world.source.by_address[PAGE] = OLD
    world.sync()
    sql(world.engine, f"DELETE FROM documents WHERE doc_id = '{first}'")
    assert world.entries() == {}
    world.now += WEEK
    world.source.by_address[PAGE] = NEW
    assert world.sync().updated == 1
    assert world.found("opens at eight")[second] == NEW
    assert column(world.engine, "SELECT count(*) FROM housekeeping.watched_documents") == [1]


def test_a_new_copy_gets_its_vectors_although_the_source_says_unchanged(world: World) -> None:
    synced(world)
    copy = world.document(PAGE, workspace=2, text=None)
    world.embedder.texts.clear()
    report = world.sync()
    assert (report.updated, report.chunks_embedded, world.embedder.texts) == (1, 0, [])
    assert world.found("opens at nine")[copy] == OLD
    world.now += WEEK
    assert world.sync().unchanged == 1


def test_vectors_that_somebody_deleted_are_made_again(world: World) -> None:
    synced(world)
    sql(world.engine, "DELETE FROM housekeeping.document_generations")
    assert world.sync().updated == 1
    assert world.found("opens at nine") == {"docs.example-page.json@1": OLD}


def test_a_dry_run_fetches_and_compares_and_writes_nothing(world: World) -> None:
    synced(world, PAGE, "same.example", "down.example", "shrunk.example")
    world.source.by_address |= {PAGE: NEW, "down.example": Failed("503"), "shrunk.example": "x"}
    entries = world.entries()
    report = world.sync(dry_run=True)
    assert (report.updated, report.would_update, report.unchanged) == (0, 1, 1)
    assert (report.failed_count, report.held_for_review, report.status) == (1, 1, "partial")
    diffs = {each.document: each.diff for each in report.diffs}
    assert "+The office opens at eight" in diffs[f"link://{PAGE}"]
    assert world.entries() == entries
    assert world.found("opens at eight")["docs.example-page.json@1"] == OLD
    assert world.text("docs.example-page.json@1")["pageContent"] == OLD


def test_a_first_dry_run_makes_nothing(world: World) -> None:
    world.document(PAGE)
    report = world.sync(dry_run=True)
    assert (report.status, report.scanned, world.entries()) == ("succeeded", 0, {})
    assert column(world.engine, "SELECT to_regclass('housekeeping.document_vectors')") == [None]


def test_what_a_person_decides_meanwhile_is_not_undone(world: World) -> None:
    synced(world)
    world.source.by_address[PAGE] = NEW

    def meanwhile(address: str) -> None:
        sql(world.engine, "UPDATE document_sync_queues SET next_sync_at = '2030-01-01'")

    world.source.before = meanwhile
    report = world.sync()
    assert (report.status, report.updated, report.skipped["locked"]) == ("succeeded", 0, 1)
    assert world.found("opens at nine") == {"docs.example-page.json@1": OLD}
    assert world.entry(PAGE).next_sync_at.year == 2030


def test_what_the_application_says_of_a_document_meanwhile_stays(world: World) -> None:
    synced(world)
    world.source.by_address[PAGE] = NEW
    world.source.before = lambda address: sql(
        world.engine, "UPDATE documents SET metadata = metadata::jsonb || '{\"pinned\": true}'"
    )
    assert world.sync().updated == 1
    (about,) = column(world.engine, "SELECT metadata FROM documents")
    assert (about["pinned"], about["published"]) == (True, world.text("docs.example-page.json@1")["published"])


def test_a_row_that_another_has_locked_is_left_to_it(world: World) -> None:
    synced(world, PAGE, "other.example")
    with make_engine(world.engine.url).connect() as other:
        other.execute(sa.text(f"SELECT 1 FROM document_sync_queues WHERE id = {world.entry(PAGE).key} FOR UPDATE"))
        report = world.sync()
    assert (report.unchanged, report.skipped["locked"]) == (1, 1)


def test_a_second_run_at_the_same_time_is_skipped(world: World) -> None:
    synced(world)
    with world.engine.connect() as other, task_lock(other, "sync_watched_documents"):
        assert world.sync().status == "skipped"


def test_a_platform_that_refuses_one_document_takes_the_others(world: World) -> None:
    synced(world, PAGE, "other.example")
    world.source.by_address |= {PAGE: NEW, "other.example": NEW}
    sql(
        world.engine,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN IF NEW.filename LIKE 'docs%' THEN RAISE 'not this one'; END IF; RETURN NEW; END$$",
        "CREATE TRIGGER refuse BEFORE UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    report = world.sync()
    assert (report.status, report.updated, report.failed_count) == ("partial", 1, 1)
    assert "not this one" in report.failed[0].reason
    assert world.entry(PAGE).failures == 1


def test_a_document_of_which_nothing_can_be_written_down_stops_nobody(world: World) -> None:
    names = [PAGE, *(f"other{n}.example" for n in range(5))]
    synced(world, *names)
    sql(
        world.engine,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN IF NEW.id = 1 THEN RAISE 'not this one'; END IF; RETURN NEW; END$$",
        "CREATE TRIGGER refuse BEFORE UPDATE ON document_sync_queues FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    for text in (OLD, NEW):
        world.source.by_address |= dict.fromkeys(names, text)
        report = world.sync(force=True)
        assert (report.status, report.updated + report.unchanged, report.failed_count) == ("partial", 5, 1)
        assert "not this one" in report.failed[0].reason
    assert (world.entry(PAGE).failures, world.entry(PAGE).next_sync_at <= world.now) == (0, True)


def test_a_file_that_cannot_be_written_leaves_the_old_text_everywhere(world: World, tmp_path: Path) -> None:
    synced(world)
    path = tmp_path / "custom-documents" / "docs.example-page.json"
    # The draft's name is taken by a folder, which nobody may write over.
    (path.parent / f".{path.name}.part").mkdir()
    world.source.by_address[PAGE] = NEW
    report = world.sync()
    assert (report.status, report.failed_count) == ("partial", 1)
    assert "cannot be written" in report.failed[0].reason
    assert json.loads(path.read_text())["pageContent"] == OLD
    assert world.found("opens at nine") == {"docs.example-page.json@1": OLD}


def test_columns_of_the_platform_may_have_any_name(world: World) -> None:
    synced(world)
    for name in ("due", "failures", "synced", "of", "to", "whole", "entry_id", "new_state", "document_id"):
        for table in ("documents", "document_sync_queues"):
            if name != "document_id" or table == "documents":
                sql(world.engine, f'ALTER TABLE {table} ADD "{name}" text')
    world.source.by_address[PAGE] = NEW
    assert world.sync().updated == 1
    assert column(world.engine, "SELECT coalesce(due, failures, synced, entry_id) FROM document_sync_queues") == [None]
    assert column(world.engine, "SELECT coalesce(whole, document_id) FROM documents") == [None]


def test_metadata_may_be_a_text_column(world: World) -> None:
    world.document(PAGE)
    sql(world.engine, "ALTER TABLE documents ALTER COLUMN metadata TYPE text USING metadata::text")
    sql(world.engine, "ALTER TABLE document_sync_runs ALTER COLUMN result TYPE text")
    world.source.by_address[PAGE] = NEW
    assert world.sync().updated == 1
    (about,) = column(world.engine, "SELECT metadata FROM documents")
    assert json.loads(about)["published"] == world.text("docs.example-page.json@1")["published"]


def test_what_no_text_column_holds_is_taken_out(world: World) -> None:
    world.document(PAGE)
    world.source.by_address[PAGE] = Content(NEW + "\0 \ud800 \r\n end")
    assert world.sync().updated == 1
    assert world.found("opens at eight")["docs.example-page.json@1"].endswith("lighthouse. ? \n end")


def test_a_huge_text_fails_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from housekeeping_pipelines.watched_documents import fetch_and_compare as examining

    monkeypatch.setattr(examining, "MAX_TEXT_CHARACTERS", 10)
    world.document(PAGE)
    world.source.by_address[PAGE] = NEW
    report = world.sync()
    assert "more than 10" in report.failed[0].reason


def test_every_finding_counts_once(world: World) -> None:
    names = [f"d{n:03}.example" for n in range(120)]
    synced(world, *names)
    for n, name in enumerate(names):
        world.source.by_address[name] = [OLD, NEW, Failed("x"), Gone("y"), "z"][n % 5]
    report = world.sync()
    counts = (report.unchanged, report.updated, report.failed_count, report.gone, report.held_for_review)
    assert counts == (24, 24, 24, 24, 24)
    assert (report.candidates, report.skipped["budget"], len(report.in_error)) == (120, 0, 50)
    statuses = column(
        world.engine, "SELECT status || ' ' || count(*) FROM document_sync_runs GROUP BY status ORDER BY 1"
    )
    assert statuses == ["exited 24", "failed 72", "success 144"]


def test_a_source_may_ask_at_most_as_many_at_once_as_it_is_told(world: World) -> None:
    import threading

    going, most, lock = [0], [0], threading.Lock()
    reached = threading.Event()

    def before(address: str) -> None:
        with lock:
            going[0] += 1
            most[0] = max(most[0], going[0])
            if going[0] == 5:
                reached.set()
        # All five places are taken before anyone leaves.
        assert reached.wait(20)
        with lock:
            going[0] -= 1

    for n in range(15):
        world.document(f"d{n}.example")
        world.source.by_address[f"d{n}.example"] = OLD
    world.source.before = before
    with suppress(AssertionError):
        world.sync(concurrency=5)
    assert most[0] == 5
