"""What looks broken is held, and what only speaks of broken things is not."""

from __future__ import annotations

import pytest

from housekeeping_pipelines.watched_documents.diffs import MAX_LINES, unified_diff
from housekeeping_pipelines.watched_documents.review import looks_like, reject_reason

HANDBOOK = "\n\n".join(f"Rule {n}: whoever leaves last closes door {n} and writes it into the book." for n in range(40))


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ("Sign in to continue to Example", "a login page"),
        ("Your session has expired. Please log in again.", "a login page"),
        ("Email\n\nPassword\n\nLog in", "a login page"),
        ("You must be logged in to view this page", "a login page"),
        ("This website uses cookies to improve your experience. Accept all", "a page about cookies"),
        ("Please enable JavaScript to continue", "a page about cookies"),
        ("404 Not Found\n\nnginx/1.22.1", "an error page"),
        ("502 Bad Gateway", "an error page"),
        ("Sorry, the page you are looking for could not be found.", "an error page"),
        ("We are down for maintenance. The site is under maintenance until noon.", "an error page"),
        ("Checking your browser before accessing the site", "an error page"),
        ("Access Denied\n\nYou don't have permission", "an error page"),
    ],
)
def test_a_page_that_says_nothing_of_its_own(text: str, notice: str) -> None:
    assert looks_like(text) == notice
    assert reject_reason(text, HANDBOOK) == f"it looks like {notice}"
    # On the first fetch there is nothing to compare with, and nothing that it may replace unseen.
    assert reject_reason(text, None) == f"it looks like {notice}"


@pytest.mark.parametrize(
    "text",
    [
        "The office opens at nine.",
        "Chapter 404 is about doors.",
        HANDBOOK + "\n\nWhat to do when the server answers 503 Service Unavailable: call the crew of the day.",
        "We bake cookies every Friday.",
        "How the login works is described in part two.",
    ],
)
def test_a_text_that_is_one(text: str) -> None:
    assert reject_reason(text, None) is None


@pytest.mark.parametrize(("share", "held"), [(0.29, True), (0.31, False), (1.0, False), (3.0, False), (0.0, True)])
def test_less_than_thirty_percent_of_the_old_is_held(share: float, held: bool) -> None:
    old = "a" * 10_000
    assert (reject_reason("b" * round(len(old) * share), old) is not None) == held


def test_white_space_does_not_make_a_text_longer() -> None:
    assert reject_reason("short" + " " * 10_000, "a" * 1_000) is not None


def test_a_diff_shows_what_changed_and_what_is_beside_it() -> None:
    new = HANDBOOK.replace("closes door 20", "locks door 20")
    lines = unified_diff(HANDBOOK, new).splitlines()
    assert [line for line in lines if line[0] in "+-"] == [
        "-Rule 20: whoever leaves last closes door 20 and writes it into the book.",
        "+Rule 20: whoever leaves last locks door 20 and writes it into the book.",
    ]
    assert len(lines) == 4


@pytest.mark.parametrize(("old", "new"), [("", HANDBOOK), (HANDBOOK, ""), ("a\n" * 5_000, "b\n" * 5_000)])
def test_a_diff_is_short_whatever_changed(old: str, new: str) -> None:
    text = unified_diff(old, new)
    assert 0 < len(text.splitlines()) <= MAX_LINES + 1
    assert unified_diff(old, old) == ""
    assert unified_diff("a\nb", "a\n\nb") == "(only blank lines)"


def test_of_one_long_paragraph_only_what_changed_is_shown() -> None:
    old = "word " * 3_000
    text = unified_diff(old, old.replace("word word word", "word other word", 1))
    assert len(text) < 2_000
    assert "other" in text
