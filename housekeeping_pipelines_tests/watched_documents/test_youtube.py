"""What YouTube answers for a transcript (a page, a player, a list of captions), on loopback, asked by its usual client.

The addresses of YouTube stand in the client, so a session sends what is for them to the server of the test.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from housekeeping_pipelines.resources.fetching import Fetcher, FetchPolicy
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone, Outcome
from housekeeping_pipelines.watched_documents.sources.references import parse_reference
from housekeeping_pipelines.watched_documents.sources.youtube import YouTubeSource
from housekeeping_pipelines_tests.web_server import Answer, Asked, Raw, WebServer

SITE = "https://www.youtube.com"
VIDEO = "aB3-_fghijk"
KEY = "AIzaSy-not_a_secret_but_a_key"
WATCH, PLAYER, TEXT = "/watch", "/youtubei/v1/player", "/api/timedtext"


class Rerouted(BaseAdapter):
    """What is for YouTube goes to the test's server, by the guard of the session as everything else."""

    def __init__(self, guard: BaseAdapter, url: str) -> None:
        super().__init__()
        self._guard, self._url = guard, url

    def send(self, request: requests.PreparedRequest, *arguments: Any, **named: Any) -> requests.Response:
        there = request.copy()
        there.url = str(request.url).replace(SITE, self._url, 1)
        answer = self._guard.send(there, *arguments, **named)
        answer.url, answer.request = str(request.url), request
        return answer

    def close(self) -> None:
        """It has nothing of its own."""


@dataclass
class Tube:
    """Videos with their captions by language; `generated` are those that a machine wrote."""

    web: WebServer
    captions: dict[str, dict[str, str]] = field(default_factory=dict)
    generated: frozenset[str] = frozenset()
    player: dict[str, Any] = field(default_factory=dict)

    def put(self, video: str, **texts: str) -> None:
        self.captions[video] = texts
        self.web.routes |= {WATCH: self._watch, PLAYER: self._player, TEXT: self._text}

    def _watch(self, asked: Asked) -> Answer:
        return Answer.html(
            f'<html><title>A video</title><script>ytcfg.set({{"INNERTUBE_API_KEY":"{KEY}"}})</script></html>'
        )

    def _player(self, asked: Asked) -> Answer:
        assert asked.method == "POST"
        assert asked.query == {"key": KEY}
        video = asked.json()["videoId"]
        tracks = [
            {
                "baseUrl": f"{SITE}{TEXT}?v={video}&lang={language}&fmt=srv3",
                "name": {"runs": [{"text": language}]},
                "languageCode": language,
                **({"kind": "asr"} if language in self.generated else {}),
            }
            for language in self.captions[video]
        ]
        found = {
            "playabilityStatus": {"status": "OK"},
            "captions": {"playerCaptionsTracklistRenderer": {"captionTracks": tracks}},
        }
        return Answer.json({**found, **self.player})

    def _text(self, asked: Asked) -> Answer:
        assert "fmt" not in asked.query
        return Answer(
            self.captions[asked.query["v"]][asked.query["lang"]], 200, {"Content-Type": "text/xml; charset=UTF-8"}
        )


def transcript(*lines: tuple[float, str]) -> str:
    texts = "".join(f'<text start="{start}" dur="1.5">{text}</text>' for start, text in lines)
    return f'<?xml version="1.0" encoding="utf-8" ?><transcript>{texts}</transcript>'


HELLO = transcript(
    (0, "Hello there,"), (2.5, "it&amp;#39;s\nme &amp;lt;i&amp;gt;again&amp;lt;/i&amp;gt;."), (61, "Größe")
)


@pytest.fixture
def tube(web: WebServer) -> Tube:
    return Tube(web)


@pytest.fixture
def session(web: WebServer, fetcher: Fetcher) -> Callable[[], requests.Session]:
    def opened() -> requests.Session:
        session = fetcher.session()
        guard = session.get_adapter(SITE)
        # Past its own `mount`, which would keep the guard alone.
        requests.Session.mount(session, SITE, Rerouted(guard, web.url))
        return session

    return opened


@pytest.fixture
def source(session: Callable[[], requests.Session]) -> YouTubeSource:
    return YouTubeSource(session, languages=("de", "en"))


def ask(source: YouTubeSource, address: str = VIDEO) -> Outcome:
    return source.fetch(parse_reference(f"youtube://{address}"), None)


@pytest.mark.parametrize(
    "address",
    [
        VIDEO,
        f"https://www.youtube.com/watch?v={VIDEO}",
        f"https://youtube.com/watch?app=desktop&v={VIDEO}&t=42s",
        f"https://m.youtube.com/watch?v={VIDEO}#x",
        f"https://music.youtube.com/watch?v={VIDEO}&list=abc",
        f"https://www.youtube.com/shorts/{VIDEO}",
        f"https://www.youtube.com/live/{VIDEO}?si=x",
        f"https://www.youtube-nocookie.com/embed/{VIDEO}",
        f"https://youtu.be/{VIDEO}?si=x",
        f"http://youtu.be/{VIDEO}/",
        f"youtu.be/{VIDEO}",
        f"www.youtube.com/watch?v={VIDEO}",
    ],
)
def test_a_transcript_is_a_paragraph_a_minute(address: str, tube: Tube, source: YouTubeSource) -> None:
    tube.put(VIDEO, en=HELLO)
    outcome = ask(source, address)
    assert isinstance(outcome, Content), outcome
    assert outcome.text == "Hello there, it's me again.\n\nGröße"
    assert outcome.bytes > len(HELLO)
    assert tube.web.paths() == [WATCH, PLAYER, TEXT]
    assert tube.web.requests[0].query == {"v": VIDEO}
    assert "housekeeping-pipelines" in tube.web.requests[0].headers["User-Agent"]


def test_what_is_known_does_not_spare_the_question(tube: Tube, source: YouTubeSource) -> None:
    """YouTube does not say whether a transcript changed."""
    tube.put(VIDEO, en=HELLO)
    first = ask(source)
    assert isinstance(first, Content)
    assert first.state == {}
    assert isinstance(source.fetch(parse_reference(f"youtube://{VIDEO}"), first.state), Content)


@pytest.mark.parametrize(
    ("texts", "generated", "expected"),
    [
        ({"fr": "un", "en": "one", "de": "eins"}, frozenset(), "eins"),
        ({"fr": "un", "en": "one"}, frozenset(), "one"),
        ({"en": "one"}, frozenset({"en"}), "one"),
        ({"en": "one", "de": "eins"}, frozenset({"de"}), "eins"),
        ({"fr": "un"}, frozenset(), None),
        ({}, frozenset(), None),
    ],
)
def test_the_first_language_that_there_is(
    texts: dict[str, str], generated: frozenset[str], expected: str | None, tube: Tube, source: YouTubeSource
) -> None:
    tube.generated = generated
    tube.put(VIDEO, **{language: transcript((0, text)) for language, text in texts.items()})
    outcome = ask(source)
    if expected is None:
        assert outcome == Failed("the video has no transcript in de, en (YOUTUBE_LANGUAGES)")
    else:
        assert isinstance(outcome, Content), outcome
        assert outcome.text == expected


def test_disabled_transcripts_are_a_failure(tube: Tube, source: YouTubeSource) -> None:
    tube.put(VIDEO, en=HELLO)
    players: list[dict[str, Any]] = [{"captions": {}}, {"captions": {"playerCaptionsTracklistRenderer": {}}}]
    for player in players:
        tube.player = player
        assert ask(source) == Failed("the video has no transcript in de, en (YOUTUBE_LANGUAGES)")


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("ERROR", "This video is unavailable", Gone("YouTube reports that the video does not exist")),
        (
            "LOGIN_REQUIRED",
            "Sign in to confirm you’re not a bot",
            Failed("YouTube blocks the requests of this machine", timedelta(hours=1)),
        ),
        (
            "LOGIN_REQUIRED",
            "This video may be inappropriate for some users.",
            Failed("YouTube gives no transcript: AgeRestricted"),
        ),
        (
            "LOGIN_REQUIRED",
            "This is a\nprivate video.",
            Failed("YouTube does not play the video: This is a private video."),
        ),
        ("UNPLAYABLE", None, Failed("YouTube does not play the video: it gives no reason")),
        (
            "LIVE_STREAM_OFFLINE",
            "This live event will begin in 3 days.",
            Failed("YouTube does not play the video: This live event will begin in 3 days."),
        ),
    ],
)
def test_a_video_that_is_not_played(
    status: str, reason: str | None, expected: Outcome, tube: Tube, source: YouTubeSource
) -> None:
    tube.put(VIDEO, en=HELLO)
    tube.player = {"playabilityStatus": {"status": status, **({"reason": reason} if reason else {})}}
    assert ask(source) == expected
    assert tube.web.paths() == [WATCH, PLAYER]


@pytest.mark.parametrize("path", [WATCH, PLAYER, TEXT])
@pytest.mark.parametrize(
    "answer", [Answer(b"", 429), Answer.html('<form action="/sorry"><div class="g-recaptcha"></div></form>')]
)
def test_a_machine_that_is_blocked_comes_again_in_an_hour(
    path: str, answer: Answer, tube: Tube, source: YouTubeSource
) -> None:
    tube.put(VIDEO, en=HELLO)
    tube.web.routes[path] = answer
    outcome = ask(source)
    assert isinstance(outcome, Failed)
    if answer.status == 429 or path == WATCH:
        assert outcome == Failed("YouTube blocks the requests of this machine", timedelta(hours=1))
    else:
        assert outcome.retry_after is None


NO_TRACK: dict[str, Any] = {"captions": {"playerCaptionsTracklistRenderer": {"captionTracks": [{}]}}}


def test_a_page_that_asks_for_consent_is_given_it(tube: Tube, source: YouTubeSource) -> None:
    tube.put(VIDEO, en=HELLO)
    page = tube.web.routes[WATCH]

    def consent(asked: Asked) -> Answer | Raw:
        if "CONSENT=YES+cb.123" in (asked.headers["Cookie"] or ""):
            assert callable(page)
            return page(asked)
        return Answer.html('<form action="https://consent.youtube.com/s"><input name="v" value="cb.123"></form>')

    tube.web.routes[WATCH] = consent
    assert isinstance(ask(source), Content)
    tube.web.routes[WATCH] = Answer.html('<form action="https://consent.youtube.com/s"></form>')
    assert ask(source) == Failed("YouTube gives no transcript: FailedToCreateConsentCookie")


@pytest.mark.parametrize("path", [WATCH, PLAYER, TEXT])
@pytest.mark.parametrize(
    "answer",
    [
        Answer.html("<html><title>Oops</title></html>"),
        Answer(b""),
        Answer(b'{"playabilityStatus": {"sta'),
        Answer(b"[" * 100_000),
        Answer(b"\xff\xfe\xfd"),
        Answer(HELLO[:60]),
        Answer.json([1]),
        Answer.json({"playabilityStatus": 5}),
        Answer.json({"playabilityStatus": {}, **NO_TRACK}),
        Answer(b"no", 404),
        Answer(b"no", 403),
        Answer(b"no", 500),
        Answer.to("/elsewhere"),
        Raw(lambda send: None),
        Raw(lambda send: send(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n<tr")),
    ],
)
def test_what_is_no_answer_of_youtube_is_a_failure_and_not_gone(
    path: str, answer: Answer | Raw, tube: Tube, source: YouTubeSource
) -> None:
    tube.put(VIDEO, en=HELLO)
    tube.web.routes |= {path: answer, "/elsewhere": Answer.to("/elsewhere")}
    outcome = ask(source)
    assert isinstance(outcome, Failed), outcome
    assert outcome.reason.startswith("YouTube ") or "127.0.0.1" in outcome.reason
    assert "\n" not in outcome.reason
    assert KEY not in outcome.reason
    if isinstance(answer, Answer) and answer.status >= 400:
        assert outcome.reason == f"YouTube answers {answer.status}"


@pytest.mark.parametrize("lines", [(), ((0, ""),), ((0, " "), (1, "\n"))])
def test_a_transcript_without_text_is_a_failure(
    lines: tuple[tuple[float, str], ...], tube: Tube, source: YouTubeSource
) -> None:
    tube.put(VIDEO, en=transcript(*lines))
    assert ask(source) == Failed("the transcript of the video has no text")


def test_captions_that_want_a_proof_of_origin_are_a_failure(tube: Tube, source: YouTubeSource) -> None:
    tube.put(VIDEO, en=HELLO)
    track = {"baseUrl": f"{SITE}{TEXT}?v={VIDEO}&exp=xpe", "name": {"runs": [{"text": "x"}]}, "languageCode": "en"}
    tube.player = {"captions": {"playerCaptionsTracklistRenderer": {"captionTracks": [track]}}}
    assert ask(source) == Failed("YouTube gives no transcript: PoTokenRequired")


def test_captions_elsewhere_are_guarded_as_every_fetch_is(tube: Tube, source: YouTubeSource) -> None:
    tube.put(VIDEO, en=HELLO)
    track = {"baseUrl": "http://169.254.169.254/latest", "name": {"runs": [{"text": "x"}]}, "languageCode": "en"}
    tube.player = {"captions": {"playerCaptionsTracklistRenderer": {"captionTracks": [track]}}}
    outcome = ask(source)
    assert isinstance(outcome, Failed)
    assert "169.254.169.254" in outcome.reason
    assert "FETCH_ALLOWED_HOSTS" in outcome.reason


def test_a_youtube_that_resolves_to_loopback_is_refused() -> None:
    asked: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    fetcher = Fetcher(FetchPolicy(), resolve=resolve)
    outcome = ask(YouTubeSource(fetcher.session))
    fetcher.close()
    assert isinstance(outcome, Failed)
    assert "FETCH_ALLOWED_HOSTS" in outcome.reason
    assert asked == ["www.youtube.com"]


@pytest.mark.parametrize(
    "address",
    [
        "https://www.youtube.com/",
        "https://www.youtube.com/watch?list=secret",
        "https://www.youtube.com/watch?v=short",
        "https://www.youtube.com/@somebody",
        f"https://youtu.be/{VIDEO}/more",
        f"https://evil.example/watch?v={VIDEO}",
        f"https://www.youtube.com.evil.example/watch?v={VIDEO}",
        f"evil.example/watch?v={VIDEO}",
        "aB3-_fghijkl",
        "äB3-_fghijk",
        "../../../etc",
    ],
)
def test_what_names_no_video_is_not_asked_for(address: str, tube: Tube, source: YouTubeSource) -> None:
    assert ask(source, address) == Failed("the reference does not name a video of YouTube")
    assert not tube.web.requests


def test_many_threads_ask_at_once(tube: Tube, source: YouTubeSource) -> None:
    videos = [f"{number:011}" for number in range(16)]
    for video in videos:
        tube.put(video, en=transcript((0, f"This is {video}.")))
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda video: ask(source, video), videos))
    assert [outcome.text for outcome in outcomes if isinstance(outcome, Content)] == [f"This is {v}." for v in videos]
