"""A change in one place leaves the chunks elsewhere as they are, and nothing of a text is lost between them."""

from __future__ import annotations

import random
import re

import pytest

from housekeeping_pipelines.watched_documents.chunking import MAX_CHARACTERS, content_hash, split

WORDS = (
    *("valve", "gauge", "pump", "tank", "log", "shift", "crew", "alarm", "door"),
    *("light", "north", "south", "check", "close", "open", "write", "call", "wait"),
)


def article(seed: int, paragraphs: int) -> list[str]:
    chance = random.Random(seed)
    parts = []
    for number in range(paragraphs):
        if number % 9 == 0:
            parts.append(f"## Part {number}")
        parts.append(" ".join(chance.choice(WORDS) for _ in range(chance.randint(10, 80))) + f" {seed} {number}.")
    return parts


def words(text: str) -> list[str]:
    return re.findall(r"\S+", text)


@pytest.mark.parametrize("seed", range(8))
def test_nothing_but_white_space_is_lost_or_moved(seed: int) -> None:
    text = "\n\n".join(article(seed, 120))
    chunks = split(text)
    assert words(" ".join(chunk.text for chunk in chunks)) == words(text)
    assert all(0 < len(chunk.text) <= MAX_CHARACTERS for chunk in chunks)
    assert all(chunk.hash == content_hash(chunk.text) for chunk in chunks)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("edit", ["changed", "inserted", "removed"])
def test_one_paragraph_moves_at_most_three_chunks(seed: int, edit: str) -> None:
    parts = article(seed, 400)
    before = split("\n\n".join(parts))
    assert len(before) >= 50
    place = random.Random(seed).randrange(len(parts))
    if edit == "changed":
        parts[place] = "Something else is to be done from now on, and by somebody else."
    elif edit == "inserted":
        parts.insert(place, "Something is to be done besides, which was not said before.")
    else:
        del parts[place]
    after = split("\n\n".join(parts))
    assert len({chunk.hash for chunk in after} - {chunk.hash for chunk in before}) <= 3


def test_a_heading_begins_a_chunk_with_what_it_is_about() -> None:
    parts = article(1, 60)
    for chunk in split("\n\n".join(parts)):
        lines = chunk.text.splitlines()
        assert not lines[-1].startswith("#"), "a heading parted from its text"


def test_a_listing_is_not_cut_at_its_blank_lines() -> None:
    listing = "```python\nfirst = 1\n\n\nsecond = 2\n```"
    chunks = split(f"{article(3, 1)[1]}\n\n{listing}\n\n{article(4, 1)[1]}")
    assert any(listing in chunk.text for chunk in chunks)


def test_a_listing_without_an_end_goes_to_the_end() -> None:
    assert words(" ".join(chunk.text for chunk in split("before\n\n```\na\n\nb\n\nc"))) == words("before ``` a b c")


@pytest.mark.parametrize(
    "text", ["x" * 10_000, "word " * 5_000, "Sentence one. " * 900, "é" * 4_001, "\n".join("ab" * 3_000)]
)
def test_a_paragraph_that_is_too_long_is_cut_and_kept(text: str) -> None:
    chunks = split(text)
    assert all(len(chunk.text) <= MAX_CHARACTERS for chunk in chunks)
    assert "".join(words("".join(chunk.text for chunk in chunks))) == "".join(words(text))


@pytest.mark.parametrize("text", ["", " ", "\n\n \n\t\n"])
def test_nothing_is_no_chunk(text: str) -> None:
    assert split(text) == []


def test_the_same_paragraph_many_times_is_cut_all_the_same() -> None:
    chunks = split("\n\n".join(["The same again and again, and once more."] * 500))
    assert all(len(chunk.text) <= MAX_CHARACTERS for chunk in chunks)
    assert sum(chunk.text.count("again and again") for chunk in chunks) == 500
