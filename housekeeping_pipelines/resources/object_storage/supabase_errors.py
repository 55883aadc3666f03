"""Errors of the Supabase client, as three errors of ours.

The storage server sends most errors as HTTP 400 with the real status as text in the JSON; a gateway in front of it
sends its own status with its own JSON or HTML; a missing or malformed answer is an error of httpx or of a parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
from pydantic import ValidationError
from storage3.exceptions import StorageApiError

from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError, Unavailable
from housekeeping_pipelines.resources.object_storage import ObjectExists, ObjectMissing, StorageRefused
from housekeeping_pipelines.resources.retry_after import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

# Everything that a call of the client may raise because of an answer, or for lack of one.
STORAGE_ERRORS = (StorageApiError, httpx.HTTPError, httpx.InvalidURL, ValidationError, ValueError, TypeError, KeyError)

_TOO_MANY = 429
# 544 is the storage server's own, for a time-out of its database; 520 to 530 are a well-known proxy's.
_FIRST_SERVER_ERROR = 500
# PostgreSQL's, with status 500, if the key names a role that the server does not have.
_UNKNOWN_ROLE = re.compile(r'role "[^"]*" does not exist')
_BAD_KEY = re.compile(r"\b(jws|jwt|signature|exp)\b|api ?key|authorization", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Context:
    """What an error is about: the server's address without secrets, the bucket, and the attempted action."""

    address: str
    bucket: str
    action: str


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed if it is sent again."""
    if isinstance(error, StorageApiError):
        status = status_of(error)
        return (status == _TOO_MANY or status >= _FIRST_SERVER_ERROR) and not _UNKNOWN_ROLE.search(error.message)
    if isinstance(error, httpx.TransportError):
        return not isinstance(error, httpx.UnsupportedProtocol) and not _is_certificate(error)
    # An answer with status 200 that is not storage's JSON: a gateway's page.
    return isinstance(error, ValueError | TypeError | KeyError) and not isinstance(error, httpx.InvalidURL)


def is_answer_of_server(error: BaseException | None) -> bool:
    """Whether the storage server itself failed on this request, and may succeed on others."""
    return isinstance(error, StorageApiError) and isinstance(error.status, str) and status_of(error) == 500


def retry_after_seconds(error: Exception, now: datetime) -> float | None:
    """The delay that the answer asks for (RFC 9110, 10.2.3: seconds or a date); None if it asks for none."""
    for cause in _chain(error):
        if isinstance(cause, httpx.HTTPStatusError):
            wait = parse_retry_after(cause.response.headers.get("retry-after", "").strip(), now)
            return None if wait is None else wait.total_seconds()
    return None


def status_of(error: StorageApiError) -> int:
    """The status, which is text where the server says it and a number where the client takes HTTP's."""
    try:
        return int(error.status)
    except ValueError:
        return _FIRST_SERVER_ERROR


def explain(error: Exception, context: Context) -> HousekeepingError:
    """The error in one line, with a hint; it contains neither the key nor the text of a gateway's page."""
    if isinstance(error, StorageApiError):
        return _explain_answer(error, context)
    where = f"storage at {context.address}"
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return ConfigurationError(f"{where} has an address that cannot be used", hint="check SUPABASE_URL")
    if _is_certificate(error):
        return ConfigurationError(f"{where} has a certificate that is not trusted here", hint="check SUPABASE_URL")
    if isinstance(error, httpx.TimeoutException):
        return Unavailable(f"{where} does not answer in time ({context.action})", hint="try again later")
    if isinstance(error, httpx.ConnectError):
        return Unavailable(
            f"{where} cannot be reached: {_line(str(error))}", hint="try again later, or check SUPABASE_URL"
        )
    if isinstance(error, httpx.HTTPError):
        return Unavailable(
            f"{where} broke the connection ({context.action}): {_line(str(error)) or type(error).__name__}",
            hint="try again later",
        )
    return Unavailable(
        f"{where} sends an answer that is not Supabase Storage's ({context.action})",
        hint="try again later, or check SUPABASE_URL",
    )


def _explain_answer(error: StorageApiError, context: Context) -> HousekeepingError:
    status = status_of(error)
    says = _says(error)
    where = f"storage at {context.address}"
    bucket_missing = error.message.casefold() == "bucket not found"
    if bucket_missing:
        return ConfigurationError(
            f"{where} has no bucket {context.bucket!r}, or does not show it to this key",
            hint="check SUPABASE_BUCKET, or set SUPABASE_KEY to the service role's key",
        )
    if _UNKNOWN_ROLE.search(error.message) or _is_about_key(error, status):
        return ConfigurationError(f"{where} does not accept the key: {says}", hint="check SUPABASE_KEY")
    if status == _TOO_MANY:
        return Unavailable(f"{where} asks for fewer requests ({context.action})", hint="lower SUPABASE_CONCURRENCY")
    if status >= _FIRST_SERVER_ERROR:
        return Unavailable(f"{where} fails ({context.action}): {says}", hint="try again later")
    if status == 401:
        return ConfigurationError(f"{where} does not accept the key: {says}", hint="check SUPABASE_KEY")
    if status == 403:
        return StorageRefused(
            f"storage may not {context.action}: {says}", hint="set SUPABASE_KEY to the service role's key"
        )
    if status == 409:
        return ObjectExists(f"storage cannot {context.action}: {says}")
    if status == 404:
        if error.code == "not_found":
            return ObjectMissing(f"storage cannot {context.action}: {says}")
        return ConfigurationError(
            f"{where} does not answer as Supabase Storage does: {says}", hint="check SUPABASE_URL"
        )
    return StorageRefused(f"storage cannot {context.action}: {says}")


def _is_about_key(error: StorageApiError, status: int) -> bool:
    # The name of an object, which may hold any word, is in the text of InvalidKey.
    return status in (400, 401, 403) and error.code != "InvalidKey" and bool(_BAD_KEY.search(error.message))


def _says(error: StorageApiError) -> str:
    """The server's message; the status if the client could not parse it."""
    unreadable = error.message.startswith("Unable to parse error message")
    return f"status {status_of(error)}" if unreadable else _line(error.message)


def _is_certificate(error: Exception) -> bool:
    return isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
