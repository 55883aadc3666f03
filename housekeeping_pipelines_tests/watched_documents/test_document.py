"""docs/watched-documents.md says of limits, defaults and parameters what the code has.

A number that the document says in its prose must be in one of the phrases below, which are made from the constants.
"""

from __future__ import annotations

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from housekeeping_pipelines.orphans.definitions import CleanupOrphanVectors
from housekeeping_pipelines.resources.fetching import FetchPolicy
from housekeeping_pipelines.resources.vector_store import Space
from housekeeping_pipelines.resources.vector_store.opening import open_vector_store
from housekeeping_pipelines.settings import Settings
from housekeeping_pipelines.watched_documents import fetch_and_compare, outcomes, review
from housekeeping_pipelines.watched_documents.sources import (
    collector,
    confluence,
    drupalwiki,
    extraction,
    repositories,
    youtube,
)
from housekeeping_pipelines.watched_documents.sources.opening import BUILT_IN, GROUP
from housekeeping_pipelines.watched_documents.sources.references import parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from housekeeping_pipelines.watched_documents.sources.references import Reference

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "watched-documents.md").read_text()
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# Numbers that are no limits: of HTTP, of a list's lines, of an example's address.
NO_LIMITS = re.compile(r"\b404\b|\b410\b|^\d\. ", re.MULTILINE)


def number(value: float) -> str:
    return f"{value:,.0f}"


def backoff() -> str:
    delays: list[str] = []
    delay = outcomes.FIRST_DELAY
    while len(delays) < outcomes.FAILURES_UNTIL_ERROR - 1:
        delays.append(number(delay / timedelta(hours=1)))
        delay *= 2
    return f"after {', '.join(delays[:-1])} and {delays[-1]} hours"


def phrases() -> list[str]:
    """What the document says, with the numbers that the code has."""
    policy, vectors = FetchPolicy(), CleanupOrphanVectors.model_fields
    return [
        f"At most {number(repositories.MAX_FILES)} files of a repository",
        f"{number(confluence.MAX_PAGES)} pages of a Confluence space",
        f"{number(drupalwiki.MAX_PAGES)} pages of a DrupalWiki space",
        f"larger than {number(repositories.MAX_FILE_BYTES / 2**20)} MiB",
        f"A PDF may have {number(extraction.MAX_PAGES)} pages",
        f"text {number(min(fetch_and_compare.MAX_TEXT_CHARACTERS, extraction.MAX_CHARACTERS))} characters",
        f"has {number(collector.TIMEOUT_SECONDS / 60)} minutes",
        backoff(),
        f"After {outcomes.FAILURES_UNTIL_ERROR} outages in a row its state is `error`",
        f"After {outcomes.GONE_UNTIL_REVIEW} times, a day apart",
        f"shorter than {number(100 * review.SHRUNK_TO)} % of the old one",
        f"may have {number(policy.max_bytes / 2**20)} MiB, both transferred and decompressed",
        f"{policy.max_redirects} redirects and {number(policy.timeout_seconds)} seconds",
        f"after {vectors['min_age_hours'].default} hour,",
        f"more than {number(100 * vectors['max_fraction'].default)} % of the store",
    ]


def plain(text: str) -> str:
    return " ".join(FENCED.sub("", text).split())


@pytest.mark.parametrize("phrase", phrases())
def test_a_limit_is_the_one_of_the_code(phrase: str) -> None:
    assert phrase in plain(TEXT)


def test_no_number_is_held_by_no_phrase() -> None:
    text = plain(NO_LIMITS.sub("", FENCED.sub("", TEXT)))
    for phrase in phrases():
        text = text.replace(phrase, "")
    # A default that follows its setting's name has a test of its own; code is no prose.
    text = re.sub(r"`[A-Z_]+` \([\d,]+\)|`[^`]*`", "", text)
    assert re.findall(r".{30}\d[\d,.]*.{20}", text) == []


def test_a_day_is_a_day() -> None:
    assert timedelta(days=1) == outcomes.DAILY


def test_a_setting_has_the_default_that_follows_its_name() -> None:
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", TEXT)) - {"DRY_RUN"}
    assert named <= {name.upper() for name in Settings.model_fields}
    defaults = re.findall(r"`([A-Z_]+)` \(([\d,]+)\)", TEXT)
    assert {name for name, _ in defaults} >= {"WATCH_CONCURRENCY", "FETCH_PER_HOST", "FETCH_INTERVAL_MS"}
    for name, default in defaults:
        assert str(Settings.model_fields[name.lower()].default) == default.replace(",", ""), name


def test_watch_add_shows_the_default_interval() -> None:
    days = Settings.model_fields["watch_interval_hours"].default / 24
    assert f"a new document, every {days:g} d." in TEXT


KINDS: dict[str, Callable[[Reference], object]] = {
    "link": lambda reference: reference.host,
    "youtube": lambda reference: youtube.video_id(parse_reference(reference.text.replace("ID", "abcdefghijk"))),
    "confluence": confluence.named,
    "github": repositories.place,
    "gitlab": repositories.place,
    "drupalwiki": drupalwiki.named,
}


def references() -> list[str]:
    """Every form of a reference that the table of sources shows; a part of one is added to its row's site."""
    shown: list[str] = []
    section = TEXT[TEXT.index("## References and sources") : TEXT.index("### Credentials")]
    for row in re.findall(r"^\| `\w+://.*$", section, re.MULTILINE):
        whole, *parts = [code for code in re.findall(r"`([^`]+)`", row) if "/" in code or "?" in code]
        shown.append(whole)
        scheme, _, address = whole.partition("://")
        site = "/".join(address.split("/")[:3])
        repository = "/OWNER/NAME" if scheme == "github" else ""
        shown += [f"{scheme}://{site}{repository}{part}" for part in parts]
    return shown


def test_the_table_of_sources_has_every_built_in_source() -> None:
    assert {each.partition("://")[0] for each in references()} == set(BUILT_IN) == set(KINDS)


@pytest.mark.parametrize("text", references())
def test_a_reference_that_is_shown_names_something(text: str) -> None:
    reference = parse_reference(text)
    assert KINDS[reference.scheme](reference), text


def test_the_parameters_of_a_repository_are_read() -> None:
    (shown,) = [each for each in references() if each.startswith("github://") and "?" in each]
    place = repositories.place(parse_reference(shown))
    assert (place and (place.name, place.branch, place.path)) == ("OWNER/NAME", "main", "docs")


def stores() -> list[tuple[str, str]]:
    """Every address of the table of vector stores, with the name of the store."""
    rows = re.findall(r"^\| (`(?:postgresql|lancedb|qdrant)://.*?) \| (pgvector|LanceDB|Qdrant)", TEXT, re.MULTILINE)
    return [(url, store) for addresses, store in rows for url in re.findall(r"`([^`]+)`", addresses)]


@pytest.mark.parametrize(("url", "store"), stores())
def test_an_address_of_a_vector_store_opens_that_store(url: str, store: str, engine: sa.Engine, tmp_path: Path) -> None:
    opened = open_vector_store(url, Space("m", 3), database=lambda: engine, home=tmp_path)
    assert store in opened.label
    opened.close()


def test_extras_and_the_group_of_entry_points_are_the_packages_own() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name for group in re.findall(r"housekeeping-pipelines\[([^\]]+)\]", TEXT) for name in group.split(",")}
    assert named
    assert named <= extras.keys()
    assert f'[project.entry-points."{GROUP}"]' in TEXT


def test_nothing_but_deletion_deletes_rows_of_the_platform() -> None:
    """As docs/architecture.md says; the demo and the session that `test-cleanup` makes replace their own rows."""
    package = ROOT / "housekeeping_pipelines"
    deleting = re.compile(r"\bdelete\(\s*\w[\w.]*\.(?:live|selectable)\b|DELETE FROM (?!housekeeping\.)")
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if deleting.search(path.read_text()) and path.relative_to(package).parts[0] not in ("deletion", "demo")
    }
    assert found == {"sessions/self_test.py"}
