"""What the UI shows of a sync: its plots, its tables, and a preview of what changed."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import dagster as dg

from housekeeping_pipelines.execution.report import FailedItem
from housekeeping_pipelines.tasks.reporting import _tables, to_markdown
from housekeeping_pipelines.watched_documents.report import Diff, FailingDocument, SyncReport

REPORT = SyncReport(
    task="sync_watched_documents",
    run_id="run",
    dry_run=False,
    started_at=datetime(2026, 6, 15, tzinfo=UTC),
    duration_seconds=1.5,
    status="partial",
    scanned=9,
    candidates=8,
    updated=2,
    unchanged=5,
    chunks_embedded=3,
    chunks_reused=40,
    fetched_bytes=12_345,
    failed=(FailedItem("link://down.example", "down.example answers 503"),),
    failed_count=1,
    in_error=(
        FailingDocument(
            "7", "link://down.example", "active", 1, "down.example answers 503", "2026-06-15T01:00:00+00:00"
        ),
    ),
    diffs=(Diff("link://a.example", "-nine\n+eight\n+```\n+<b>"),),
)


def test_every_count_of_a_run_is_a_point_and_so_is_none() -> None:
    points = REPORT.numbers()
    assert points == {
        "duration_seconds": 1.5,
        "updated": 2,
        "unchanged": 5,
        "gone": 0,
        "held_for_review": 0,
        "chunks_embedded": 3,
        "chunks_reused": 40,
        "fetched_bytes": 12_345,
        "failed": 1,
    }
    quiet = dataclasses.replace(REPORT, status="succeeded", updated=0, failed=(), failed_count=0)
    points = quiet.numbers()
    assert (points["updated"], points["failed"]) == (0, 0)


def test_a_dry_run_is_no_point_of_the_curves() -> None:
    dry = dataclasses.replace(REPORT, dry_run=True, updated=0, would_update=2)
    assert dry.numbers() == {"would_update": 2}


def test_what_does_not_go_well_is_a_table_with_the_next_attempt() -> None:
    table = _tables(REPORT.state_tables())["in_error"]
    assert isinstance(table, dg.TableMetadataValue)
    (row,) = table.records
    assert (row.data["reason"], row.data["next_attempt"]) == ("down.example answers 503", "2026-06-15T01:00:00+00:00")


def test_the_preview_of_a_text_stays_a_preview_whatever_the_text_says() -> None:
    text = to_markdown(REPORT)
    assert "- updated **2** documents" in text
    before, fence, rest = text.partition("````diff\n")
    assert fence
    assert "**link://a.example**" in before
    assert rest == "-nine\n+eight\n+```\n+<b>\n````"


def test_a_line_of_the_log_says_what_was_done() -> None:
    assert REPORT.summary == "2 updated, 5 unchanged, 1 failed"
    assert dataclasses.replace(REPORT, dry_run=True, would_update=2).summary == (
        "would update 2, 5 unchanged, 1 failed"
    )
