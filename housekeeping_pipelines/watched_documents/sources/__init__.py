"""Where watched documents come from: one protocol, one file a kind of source.

A source never raises for what its server does: the answer says it. What it needs to ask "has it changed?" the next
time (an ETag, a page's version, a blob's SHA) is its own `state`, which is kept for it as JSON.
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
    """What the source holds now.

    Attributes:
        text: Markdown or plain text.
        title: None where the source has none.
        state: what the source is to be given as `previous` the next time; JSON values.
        bytes: how much was transferred.
    """

    text: str
    title: str | None = None
    state: State = field(default_factory=dict)
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The source says that nothing changed since `previous`; a state replaces the one that is kept."""

    state: State | None = None
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Gone:
    """The source says that there is no such document (404 or 410): nothing else counts as gone."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The source cannot be asked now, or its answer cannot be used.

    Attributes:
        reason: one line for a person, without secrets.
        retry_after: what the source said of when to come again.
    """

    reason: str
    retry_after: timedelta | None = None


Outcome = Content | Unchanged | Gone | Failed


class Source(Protocol):
    """One kind of source. It may be used by many threads at once."""

    def fetch(self, reference: Reference, previous: Mapping[str, Any] | None) -> Outcome:
        """Ask for a document.

        Args:
            previous: the state that came with what is known; None asks for the content whatever was before.
        """
