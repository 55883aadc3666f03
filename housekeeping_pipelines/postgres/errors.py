"""What PostgreSQL's errors mean: whether to try again, whether a row is the cause, and one line for the user."""

from __future__ import annotations

import sqlalchemy as sa

from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError, Unavailable
from housekeeping_pipelines.foreign_text import shown

# serialization_failure, deadlock_detected, lock_not_available, query_canceled.
TRANSIENT = frozenset({"40001", "40P01", "55P03", "57014"})

# What libpq says, always in English, of a server that does not answer; and a server that is about to, in English.
_NOT_REACHED = (
    "Is the server running", "could not translate host name", "timeout expired", "could not connect", "refused",
    "could not receive data", "could not send data", "closed the connection", "No route to host", "unreachable",
    "reset by peer", "starting up", "shutting down", "recovery mode", "too many", "remaining connection slots",
)  # fmt: skip

# Classes of SQLSTATE that concern a row and not the statement: data, integrity, triggered data change, rollback,
# with check option, object state, a cancelled statement, raise exception.
_ROW_ERRORS = ("22", "23", "27", "40", "44", "55", "57014", "P0")


def sqlstate(error: sa.exc.DBAPIError) -> str:
    """The five characters; empty if the server did not answer."""
    return getattr(error.orig, "sqlstate", None) or ""


def is_transient(error: Exception) -> bool:
    """Whether the same transaction may succeed on a retry."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) in TRANSIENT


def is_about_a_row(error: sa.exc.DBAPIError) -> bool:
    """Whether the cause is a row, so that other rows may succeed."""
    return not error.connection_invalidated and sqlstate(error).startswith(_ROW_ERRORS)


def describe(error: sa.exc.DBAPIError) -> str:
    """One line: what PostgreSQL says and the detail, without the statement."""
    diagnostics = getattr(error.orig, "diag", None)
    primary = getattr(diagnostics, "message_primary", None)
    detail = getattr(diagnostics, "message_detail", None)
    if primary is None:
        return shown(" ".join(str(error.orig).split()))
    return shown(f"{primary}: {detail}" if detail else str(primary))


def explain(error: sa.exc.DBAPIError, url: sa.URL, *, setting: str = "DATABASE_URL") -> HousekeepingError:
    """The error for the user, with a hint that names the setting of the address."""
    where = f"{url.host or url.query.get('host', 'localhost')}" + (f":{url.port}" if url.port else "")
    text = describe(error)
    if error.connection_invalidated:
        return Unavailable(f"the database went away: {text}", hint="run it again; what was committed is done")
    if "password authentication failed" in text or "no password supplied" in text:
        return ConfigurationError(
            f"the database at {where} does not accept user {url.username!r} with this password",
            hint=f"check {setting}",
        )
    if "does not exist" in text and not sqlstate(error):
        return ConfigurationError(f"the database at {where} refuses: {_last_clause(text)}", hint=f"check {setting}")
    if not sqlstate(error) and isinstance(error, sa.exc.OperationalError):
        if not any(words in text for words in _NOT_REACHED):
            # The server has answered, in its own language: libpq tells no SQLSTATE of a connection that it refuses.
            return ConfigurationError(
                f"the database at {where} refuses user {url.username!r}: {_last_clause(text)}", hint=f"check {setting}"
            )
        return Unavailable(
            f"the database at {where} cannot be reached: {_last_clause(text)}",
            hint=f"start it, or check {setting}; unset, an embedded PostgreSQL is used",
        )
    if sqlstate(error) == "55P03":
        return Unavailable(f"another session holds a lock: {text}", hint="run it again when that has ended")
    if sqlstate(error) == "42501":
        return ConfigurationError(
            f"the database user {url.username!r} may not do this: {text}",
            hint="grant the privilege, or use another database user",
        )
    return HousekeepingError(f"the database refuses: {text}")


def explain_text(error: UnicodeDecodeError) -> HousekeepingError:
    """The same for a text that the driver cannot read: a database in SQL_ASCII holds any bytes."""
    return HousekeepingError(
        f"the database holds a text that is not valid UTF-8: {error.object[:40]!r}",
        hint="correct it, or move the platform to a database in UTF8",
    )


def _last_clause(text: str) -> str:
    """The end of libpq's message, after the addresses that it tried."""
    return text.split("failed: ", 1)[-1].removeprefix("FATAL: ").strip().rstrip(".")
