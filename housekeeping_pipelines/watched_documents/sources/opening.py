"""The sources by the scheme of a reference; each is opened on first use.

A package adds a source by an entry point of the group `housekeeping_pipelines.sources`: its name is the scheme, and its
object is called with the `Fetcher` and returns a `Source`.
"""

from __future__ import annotations

import threading
from functools import cached_property
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.settings import reveal
from housekeeping_pipelines.watched_documents.sources.references import PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from housekeeping_pipelines.resources.fetching import Fetcher
    from housekeeping_pipelines.settings import Settings
    from housekeeping_pipelines.watched_documents.sources import Outcome, Source
    from housekeeping_pipelines.watched_documents.sources.references import Reference

GROUP = "housekeeping_pipelines.sources"

BUILT_IN = ("link", "youtube", "confluence", "github", "gitlab", "drupalwiki")
# The schemes that a collector fetches.
COLLECTED = (*BUILT_IN, "gitea")
# The schemes that need a client library; the extra has the same name.
_EXTRAS = ("youtube", "confluence", "github", "gitlab")


class Sources:
    """All sources, as the settings configure them. It may be used by many threads at once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opened: dict[str, Source] = {}
        self._lock = threading.Lock()

    @cached_property
    def fetcher(self) -> Fetcher:
        """The fetcher of the built-in sources."""
        from housekeeping_pipelines.resources.fetching import Fetcher, FetchPolicy

        settings = self.settings
        return Fetcher(
            FetchPolicy(
                allowed_hosts=settings.fetch_allowed_hosts,
                per_host=settings.fetch_per_host,
                per_host_interval_seconds=settings.fetch_interval_ms / 1000,
            )
        )

    def schemes(self) -> tuple[str, ...]:
        """The schemes of references."""
        own = {point.name for point in entry_points(group=GROUP)}
        return tuple(sorted(own | set(COLLECTED if self.settings.collector_url else BUILT_IN)))

    def check(self, reference: Reference) -> None:
        """
        Raises:
            ConfigurationError: no source accepts the reference.
        """
        if reference.scheme not in self.schemes():
            raise ConfigurationError(
                f"there is no source for {reference.scheme}://", hint=f"the sources are {', '.join(self.schemes())}"
            )
        if PAYLOAD in reference.parameters and self.settings.collector_url is None:
            raise ConfigurationError(
                "its parameters are encrypted, and only a collector can read them",
                hint="set COLLECTOR_URL, or use a reference without a payload",
            )

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        """See `Source`.

        Raises:
            ConfigurationError: no source accepts the reference, or its settings are wrong.
        """
        with self._lock:
            source = self._opened.get(reference.scheme)
            if source is None:
                self.check(reference)
                source = self._opened[reference.scheme] = self._open(reference.scheme)
        if PAYLOAD in reference.parameters:
            self.check(reference)
        try:
            return source.fetch(reference, previous)
        except ModuleNotFoundError as error:
            if reference.scheme not in _EXTRAS:
                raise
            raise ConfigurationError(
                f"{reference.scheme}:// needs the package {error.name}, which is not installed",
                hint=f"pip install 'housekeeping-pipelines[{reference.scheme}]'",
            ) from None

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for source in self._opened.values():
                # A third-party source need not have this method.
                close = getattr(source, "close", None)
                if callable(close):
                    close()
        if "fetcher" in self.__dict__:
            self.fetcher.close()

    def _open(self, scheme: str) -> Source:
        settings = self.settings
        for point in entry_points(group=GROUP, name=scheme):
            try:
                source: Source = point.load()(self.fetcher)
            except Exception as error:
                raise ConfigurationError(
                    f"the source of {scheme}:// ({point.value}) cannot be opened: {type(error).__name__}: {error}",
                    hint="fix or uninstall the package that provides it",
                ) from error
            return source
        if settings.collector_url is not None:
            from housekeeping_pipelines.watched_documents.sources.collector import CollectorSource

            return CollectorSource(settings.collector_url)
        if scheme == "link":
            from housekeeping_pipelines.watched_documents.sources.link import LinkSource

            return LinkSource(self.fetcher)
        if scheme == "youtube":
            from housekeeping_pipelines.watched_documents.sources.youtube import YouTubeSource

            return YouTubeSource(self.fetcher.session, languages=settings.youtube_languages)
        if scheme == "github":
            from housekeeping_pipelines.watched_documents.sources.github import GitHubSource

            return GitHubSource(self.fetcher.session, token=reveal(settings.github_token))
        if scheme == "gitlab":
            from housekeeping_pipelines.watched_documents.sources.gitlab import GitLabSource

            return GitLabSource(self.fetcher.session, token=reveal(settings.gitlab_token), url=settings.gitlab_url)
        if scheme == "confluence":
            from housekeeping_pipelines.watched_documents.sources.confluence import ConfluenceSource

            return ConfluenceSource(
                self.fetcher.session,
                url=settings.confluence_url,
                username=settings.confluence_username,
                token=reveal(settings.confluence_token),
            )
        from housekeeping_pipelines.watched_documents.sources.drupalwiki import DrupalWikiSource

        return DrupalWikiSource(self.fetcher, base_url=settings.drupalwiki_url, token=reveal(settings.drupalwiki_token))
