"""Every form in which people and programs write the name of a file is read."""

from __future__ import annotations

import html
import json
import random
import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from housekeeping_pipelines.stores.readings import MAX_NAME_LENGTH, Naming, canonical

if TYPE_CHECKING:
    from collections.abc import Callable

NAMING = Naming(("/data/media", "C:/cams"), ("media",))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a/1.jpg", "a/1.jpg"),
        ("./a//1.jpg", "a/1.jpg"),
        ("b/../a/1.jpg", "a/1.jpg"),
        ("/a/1.jpg", "a/1.jpg"),
        ("/data/media/a/1.jpg", "a/1.jpg"),
        ("/data/media/../media/./a//1.jpg", "a/1.jpg"),
        ("../media/a/1.jpg", "a/1.jpg"),
        ("/app/media/a/1.jpg", "a/1.jpg"),
        ("media/a/1.jpg", "a/1.jpg"),
        ("file:///data/media/a/1.jpg", "a/1.jpg"),
        ("file:/data/media/a/1.jpg", "a/1.jpg"),
        ("file://localhost/data/media/a/1.jpg", "a/1.jpg"),
        ("https://nvr.example.com/media/a/1.jpg?width=3#top", "a/1.jpg"),
        ("https://x.supabase.co/storage/v1/object/public/documents/a/1.jpg", "a/1.jpg"),
        ("https://x.supabase.co/storage/v1/object/sign/documents/a/1.jpg?token=e30.e30.c2ln", "a/1.jpg"),
        ("https://x.supabase.co/storage/v1/render/image/public/documents/a/1.jpg?width=200", "a/1.jpg"),
        ("s3://documents/a/1.jpg", "a/1.jpg"),
        ("//cdn.example.com/a/1.jpg", "a/1.jpg"),
        ("/_next/image?url=%2Fmedia%2Fa%2F1.jpg&w=3", "a/1.jpg"),
        ("a/front%20door.jpg", "a/front door.jpg"),
        ("a%2Ffront%20door.jpg", "a/front door.jpg"),
        ("a/front%2520door.jpg", "a/front door.jpg"),
        ("a/front+door.jpg", "a/front door.jpg"),
        ("a/f%FCr.jpg", "a/für.jpg"),
        ("a/Q&amp;A.jpg", "a/Q&A.jpg"),
        (r"a\1.jpg", "a/1.jpg"),
        (r"C:\cams\a\1.jpg", "a/1.jpg"),
        (r"c:/Cams/a/1.jpg", "a/1.jpg"),
        (r"D:\recordings\a\1.jpg", "a/1.jpg"),
        (r"\\nas\share\a\1.jpg", "a/1.jpg"),
        (" a/1.jpg\n", "a/1.jpg"),
        ("'a/1.jpg'", "a/1.jpg"),
        ('["a/1.jpg", "b/2.jpg"]', "a/1.jpg"),
        ('{"files": [{"path": "media/a/1.jpg"}]}', "a/1.jpg"),
        ('{"a/1.jpg": {"size": 3}}', "a/1.jpg"),
        ('"a/1.jpg"', "a/1.jpg"),
        ('"[\\"a/1.jpg\\"]"', "a/1.jpg"),
        ('{a/1.jpg,"b c.jpg"}', "b c.jpg"),
        ("['a/1.jpg', 'b']", "a/1.jpg"),
        ("a/1.jpg,b/2.jpg", "b/2.jpg"),
        ("a/1.jpg\nb/2.jpg", "b/2.jpg"),
        ("see ![door](media/a/1.jpg), please.", "a/1.jpg"),
        ('<img src="/media/a/1.jpg">', "a/1.jpg"),
    ],
)
def test_a_form(value: str, name: str) -> None:
    assert NAMING.meant(value, {name, "other.jpg"}) == {name}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["Garagentür/1.jpg", "가게/ガレージ.jpg"])
def test_a_name_is_the_same_in_each_normal_form(name: str, form: str) -> None:
    value = unicodedata.normalize(form, name)  # type: ignore[arg-type]
    assert NAMING.meant(value, {canonical(name)}) == {canonical(name)}
    assert NAMING.meant(quote(value), {canonical(name)}) == {canonical(name)}


def test_what_could_mean_two_files_means_both() -> None:
    assert NAMING.meant("a%20b.jpg", {"a%20b.jpg", "a b.jpg"}) == {"a%20b.jpg", "a b.jpg"}
    assert NAMING.meant("media/a.jpg", {"media/a.jpg", "a.jpg"}) == {"media/a.jpg", "a.jpg"}
    assert NAMING.meant("a.jpg?1", {"a.jpg?1", "a.jpg"}) == {"a.jpg?1", "a.jpg"}


def test_a_suffix_is_meant_only_if_nothing_longer_is_there() -> None:
    assert NAMING.meant("/app/x/a/1.jpg", {"a/1.jpg", "1.jpg"}) == {"a/1.jpg"}
    assert NAMING.meant("cam 1/door 2.jpg", {"cam 1/door 2.jpg", "2.jpg"}) == {"cam 1/door 2.jpg"}


@pytest.mark.parametrize("path", ["/data/media/a/1.jpg", "file:///data/media/a/1.jpg", r"C:\cams\a\1.jpg"])
def test_a_path_below_a_root_means_nothing_else(path: str) -> None:
    assert NAMING.meant(path, {"1.jpg"}) == set()


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "/", ".", "..", "../..", "[]", "{}", '"', "[", "%", "%zz", "%00", "a\0b", "\\", "http://",
        "C:", "?", "#",
        "[" * 5000, '{"a":' * 3000, "%25" * 1000, "a/" * 3000, "x" * (MAX_NAME_LENGTH + 1), '"\\ud800"', "&#xd800;",
        "\ud800",
    ],
)  # fmt: skip
def test_what_names_nothing_is_read_without_an_error(value: str) -> None:
    readings = NAMING.read(value)
    names = {name for reading in readings for name in reading.names()}
    assert not any("\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name) for name in names)


LETTERS = "abcXYZ019-_. ()'&+,;=@~äßéЖ中가%#?\\"
WORDS = [
    "cam",
    "front door",
    "2026-11-26",
    "Garagentür",
    "é",
    "a%20b",
    "100%",
    "x.y",
    "(1)",
    "R&D",
    "a+b",
    "#1",
    "why?",
]


def some_name(chance: random.Random) -> str:
    def part() -> str:
        if chance.random() < 0.7:
            return chance.choice(WORDS)
        return "".join(chance.choices(LETTERS, k=chance.randint(1, 12))).strip(". ") or "x"

    return "/".join(part() for _ in range(chance.randint(1, 4))) + chance.choice([".jpg", ".mp4", "", ".tar.gz"])


def root_of(prefix: str) -> Callable[[str, random.Random], str]:
    return lambda name, _: f"{prefix}{name}"


# Each may be applied to the outcome of an earlier group.
LOCATIONS: list[Callable[[str, random.Random], str]] = [
    root_of(""), root_of("./"), root_of("/"), root_of("/data/media/"), root_of("/app/media/"), root_of("media/"),
    root_of("/media/"), root_of("../media/"), root_of("C:/cams/"), root_of("D:/other/"), root_of("//nas/share/"),
    lambda name, _: name.replace("/", "//"),
]  # fmt: skip
ADDRESSES = [
    "file:///data/media/", "file://localhost/data/media/", "https://x.supabase.co/storage/v1/object/public/documents/",
    "https://x.supabase.co/storage/v1/object/sign/documents/", "http://nvr:8080/media/", "s3://bucket/",
]  # fmt: skip


def test_what_is_in_a_value_counts_unless_the_value_is_a_name() -> None:
    assert NAMING.meant("front door.jpg", {"front door.jpg", "door.jpg"}) == {"front door.jpg"}
    assert NAMING.meant("front door.jpg", {"door.jpg"}) == {"door.jpg"}
    assert NAMING.meant('{"path": "why?\\\\#1"}', {"why?", "why?/#1"}) >= {"why?/#1"}


def written(name: str, chance: random.Random) -> str:
    """The name in one of the forms, or in several of them on top of each other."""
    name = unicodedata.normalize(chance.choice(["NFC", "NFD"]), name)
    if chance.random() < 0.4:
        text = chance.choice(ADDRESSES) + quote(name, safe=chance.choice(["/", "/()'&+,;=@~"]))
        text += chance.choice(["", "?token=e30.e30", "?a=1&b=2#top", "#t=10"])
    else:
        text = chance.choice(LOCATIONS)(name, chance)
        if "\\" not in name and chance.random() < 0.2:
            text = text.replace("/", "\\")
        elif chance.random() < 0.2:
            text = quote(text)
    if chance.random() < 0.2:
        text = chance.choice([" ", "\t", ""]) + text + chance.choice([" ", "\n"])
    if chance.random() < 0.1:
        text = html.escape(text)
    if chance.random() < 0.2:
        text = json.dumps(chance.choice([[text], {"path": text}, [{"files": ["other", text]}], text]))
    return text


def test_no_file_that_a_person_would_call_referenced_is_missed(long: bool) -> None:
    seed = 20261126
    chance = random.Random(seed)
    for number in range(100_000 if long else 4_000):
        name = some_name(chance)
        value = written(name, chance)
        stored = {canonical(name), *(canonical(some_name(chance)) for _ in range(3))}
        assert canonical(name) in NAMING.meant(value, stored), (seed, number, value, name)
