"""The transcript of a video: `youtube://https://www.youtube.com/watch?v=ID`, or `youtube://ID`.

YouTube does not tell whether a transcript changed: the text is compared.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from housekeeping_pipelines.resources.fetching import FetchError
from housekeeping_pipelines.watched_documents.sources import Content, Failed, Gone
from housekeeping_pipelines.watched_documents.sources.decoding import clean
from housekeeping_pipelines.watched_documents.sources.libraries import UNREADABLE, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import requests

    from housekeeping_pipelines.watched_documents.sources import Outcome
    from housekeeping_pipelines.watched_documents.sources.references import Reference

_HOSTS = ("youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com", "www.youtube-nocookie.com")
# YouTube blocks an address for hours, not minutes.
_BLOCKED_FOR = timedelta(hours=1)
_PARAGRAPH_SECONDS = 60.0


class YouTubeSource:
    """Fetches the transcript in the first available language."""

    def __init__(self, session: Callable[[], requests.Session], *, languages: Sequence[str] = ("en",)) -> None:
        self._session, self._languages = session, tuple(languages)

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        """See `Source`."""
        from xml.etree.ElementTree import ParseError

        import requests
        import youtube_transcript_api as api
        from youtube_transcript_api._errors import YouTubeTranscriptApiException

        video = video_id(reference)
        if video is None:
            return Failed("the reference does not name a video of YouTube")
        traffic = Traffic()
        try:
            found = api.YouTubeTranscriptApi(http_client=traffic.watch(self._session())).fetch(video, self._languages)
        except api.VideoUnavailable:
            return Gone("YouTube reports that the video does not exist")
        except api.RequestBlocked:
            return Failed("YouTube blocks the requests of this machine", _BLOCKED_FOR)
        except (api.TranscriptsDisabled, api.NoTranscriptFound):
            return Failed(f"the video has no transcript in {', '.join(self._languages)} (YOUTUBE_LANGUAGES)")
        except api.VideoUnplayable as error:
            reason = " ".join(clean(error.reason or "").split())[:200]
            return Failed(f"YouTube does not play the video: {reason or 'it gives no reason'}")
        except YouTubeTranscriptApiException as error:
            if traffic.status >= 400:
                return Failed(f"YouTube answers {traffic.status}", _BLOCKED_FOR if traffic.status == 429 else None)
            return Failed(f"YouTube gives no transcript: {type(error).__name__}")
        except FetchError as error:
            return Failed(error.one_line)
        # A truncated or empty transcript is not valid XML.
        except (requests.RequestException, ParseError, *UNREADABLE) as error:
            return Failed(f"YouTube answers what cannot be read ({type(error).__name__})")
        text = _paragraphs((snippet.start, snippet.text) for snippet in found)
        if not text.strip():
            return Failed("the transcript of the video has no text")
        return Content(text, bytes=traffic.bytes)


def video_id(reference: Reference) -> str | None:
    """The id of the video of an address, or a bare id; None if it is neither."""
    host, path = reference.host, reference.path
    if not host and "/" in reference.address:
        # An address without https://, as in youtu.be/ID.
        parts = urlsplit(f"https://{reference.address}")
        host, path = parts.hostname or "", parts.path
    if not host:
        found = reference.address
    elif host == "youtu.be":
        found = path.strip("/")
    elif host in _HOSTS:
        match = re.match(r"/(?:shorts|embed|live|v)/([^/]+)", path)
        found = match[1] if match else reference.parameters.get("v", "")
    else:
        return None
    return found if re.fullmatch(r"[\w-]{11}", found, re.ASCII) else None


def _paragraphs(snippets: Iterable[tuple[float, str]]) -> str:
    """One paragraph per minute of speech."""
    paragraphs: dict[int, list[str]] = {}
    for start, text in snippets:
        paragraphs.setdefault(int(start // _PARAGRAPH_SECONDS), []).append(" ".join(clean(text).split()))
    return "\n\n".join(" ".join(parts) for _, parts in sorted(paragraphs.items()))
