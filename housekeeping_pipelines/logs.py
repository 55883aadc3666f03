"""Sends the log to standard error, or to the file that LOG_FILE names, from LOG_LEVEL upwards.

The engine logs through the standard library. In a run, Dagster copies the log of this project into the event log
(`python_logs` in dagster.yaml), so the UI shows the same lines.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from typing import TYPE_CHECKING, TextIO

from housekeeping_pipelines.errors import ConfigurationError
from housekeeping_pipelines.foreign_text import shown

if TYPE_CHECKING:
    from housekeeping_pipelines.settings import Settings

_OURS = "housekeeping_pipelines"
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_HANDLER_NAME = "housekeeping"
_MAX_MESSAGE = 5_000


class _Formatter(logging.Formatter):
    """A message is one line, whatever the names in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        record.message = shown(record.message, limit=_MAX_MESSAGE)
        return super().formatMessage(record)


def configure(settings: Settings, *, to_stderr: bool = True) -> None:
    """Configure the log of this process by the settings; further calls have no effect.

    Args:
        to_stderr: whether to write there without LOG_FILE; false in a run, whose lines Dagster writes there itself.

    With LOG_FILE, the daemon's own lines are written to the file too, and the file may be rotated while it is open.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    ours, root = logging.getLogger(_OURS), logging.getLogger()
    ours.setLevel(settings.log_level)
    if any(handler.get_name() == _HANDLER_NAME for handler in (*ours.handlers, *root.handlers)):
        return
    handler: logging.Handler
    if settings.log_file is not None:
        try:
            settings.log_file.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.handlers.WatchedFileHandler(settings.log_file, encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                f"LOG_FILE is {str(settings.log_file)!r}: {error.strerror}",
                hint="set LOG_FILE to a file in a folder that this account can write",
            ) from None
        # When the daemon starts, it replaces the handlers of Dagster's own loggers and keeps those of the root.
        root.addHandler(handler)
    elif to_stderr:
        handler = logging.StreamHandler(unredirected(sys.stderr))
        ours.addHandler(handler)
    else:
        return
    handler.set_name(_HANDLER_NAME)
    handler.setLevel(settings.log_level)
    handler.setFormatter(_Formatter(_FORMAT))


def unredirected(stream: TextIO) -> TextIO:
    """A writer to the current target of `stream`; the stream itself if it has no file descriptor.

    While a step runs, Dagster redirects both standard streams to a file and has `tail` copy it back; the output of a
    short step may be lost.
    """
    try:
        return os.fdopen(os.dup(stream.fileno()), "w", buffering=1, encoding=stream.encoding, errors=stream.errors)
    except OSError:
        return stream
