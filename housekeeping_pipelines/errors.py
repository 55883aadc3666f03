"""Every error that a user can cause, with the exit code that it ends a command with.

    HousekeepingError           1  something failed
    ├── ConfigurationError      2  a setting, an option, a file or a mapping is wrong; nothing was started
    │   └── Absent              2  the platform has no such table or column: the task is skipped
    ├── Refused                 3  a guard stopped the run before it deleted anything
    └── Unavailable             1  a component does not answer

An error's text is one line that says what is wrong; `hint` is one line that says what to do.
"""

from __future__ import annotations

from typing import ClassVar


class HousekeepingError(Exception):
    """Root of all errors that are shown to a user as one line, without a traceback."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def one_line(self) -> str:
        """What is wrong, and what to do."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def to_dict(self) -> dict[str, str | None]:
        """`{type, message, hint}`, as `--json` prints it under `error`."""
        return {"type": type(self).__name__, "message": self.message, "hint": self.hint}


class ConfigurationError(HousekeepingError):
    """A setting, an option, a file or a mapping is wrong."""

    exit_code = 2


class Absent(ConfigurationError):
    """The platform lacks a table or a column without which a task has nothing to do."""


class Refused(HousekeepingError):
    """A guard stopped the run before it deleted anything."""

    exit_code = 3


class Unavailable(HousekeepingError):
    """A component does not answer."""
