"""The sources of watched documents: one protocol, one file per kind of source.

A source does not raise for errors of its server: it returns them as an outcome. Its `state` is what it needs for the
next conditional request (an ETag, a page's version, a blob's SHA); it is stored as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from housekeeping_pipelines.watched_documents.sources.references import Reference

State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Content:
    """The current content.

    Attributes:
        text: Markdown or plain text.
        title: None if the source has none.
        state: passed as `previous` the next time; JSON values.
        bytes: transferred.
    """

    text: str
    title: str | None = None
    state: State = field(default_factory=dict)
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The source reports no change since `previous`; a state replaces the stored one."""

    state: State | None = None
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Gone:
    """The source reports that the document does not exist (404 or 410); nothing else counts as gone."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The source is not reachable now, or its answer is not usable.

    Attributes:
        reason: one line for the user, without secrets.
        retry_after: how long the source asks to wait.
    """

    reason: str
    retry_after: timedelta | None = None


Outcome = Content | Unchanged | Gone | Failed


class Source(Protocol):
    """A kind of source. It may be used by many threads at once."""

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        """Fetch a document, or learn that it has not changed.

        Args:
            previous: the state of the stored content; None requests the content unconditionally.
        """
