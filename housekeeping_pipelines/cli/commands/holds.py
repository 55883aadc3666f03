"""`hold add | list | remove`: exempt one subject from every policy until a date."""

from __future__ import annotations

import os
from datetime import UTC, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import sqlalchemy as sa
import typer

from housekeeping_pipelines.cli import output, session
from housekeeping_pipelines.cli.session import Json
from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from housekeeping_pipelines.deletion.holds import Hold
    from housekeeping_pipelines.postgres.catalog import Table
    from housekeeping_pipelines.settings import Settings

SUBJECTS = (
    "row:TABLE/KEY (KEY,KEY for a key of two columns), user:KEY for a user and all that is theirs, session:KEY for an"
    " upload session and its objects, file:uploads/NAME or file:media/NAME, object:NAME in the bucket; a NAME"
    " may be a folder"
)

app = typer.Typer(help="Exempt one subject from every policy until a date.", no_args_is_help=True)


@app.command()
def add(
    subject: Annotated[str, typer.Argument(help=SUBJECTS)],
    until: Annotated[str, typer.Option(help="The last day, YYYY-MM-DD (UTC), or an instant in ISO 8601.")],
    reason: Annotated[str, typer.Option(help="The reason, for the list of holds.")],
    json_: Json = False,
) -> None:
    """Hold a subject: no policy deletes it, nor any row whose deletion would delete it."""
    settings = session.start()
    from housekeeping_pipelines.deletion.holds import add_hold, add_name_hold

    moment = parse_until(until, utc_now())
    with session.platform_connection(settings) as connection:
        if named := _stored(settings, subject):
            type_, store, name = named
            names = _names(settings, store, name)
            hold = add_name_hold(
                connection, type=type_, store=store, names=names or [name], subject=subject, until=moment,
                reason=reason, now=utc_now(),
            )  # fmt: skip
            _print_hold(settings, hold, subject, json_=json_, exists=bool(names) or None)
            if not names and not json_:
                output.echo(
                    f"[yellow]![/] storage does not answer: whether {store} has {output.escape(name)} is unknown."
                )
            return
        type_, table, key = _resolve(settings, connection, subject)
        hold = add_hold(
            connection,
            type=type_,
            table=table,
            key=key,
            subject=subject,
            until=moment,
            reason=reason,
            now=utc_now(),
        )
        exists = _exists(connection, table, key)
    _print_hold(settings, hold, subject, json_=json_, exists=exists)
    if not exists and not json_:
        output.echo(f"[yellow]![/] {table.label} has no such row; it may be in the trash: `housekeeping trash list`.")


@app.command("list")
def list_(json_: Json = False) -> None:
    """List the holds, ordered by their end."""
    settings = session.start()
    from housekeeping_pipelines.deletion.holds import list_holds

    with session.platform_connection(settings) as connection:
        holds = list_holds(connection)
    if json_:
        output.as_json({"database": session.platform_name(settings), "holds": [_as_dict(hold) for hold in holds]})
    elif holds:
        now = utc_now()
        rows = [
            (str(h.id), h.subject, f"{h.until:%Y-%m-%d %H:%M}" + (" (expired)" if h.until <= now else ""), h.reason)
            for h in holds
        ]
        output.table(["hold", "subject", "until (UTC)", "reason"], rows)
        session.echo_platform(settings)
    else:
        output.echo("Nothing is held.")
        session.echo_platform(settings)


@app.command()
def remove(
    hold_id: Annotated[int, typer.Argument(metavar="ID", help="The hold's number, as listed.")], json_: Json = False
) -> None:
    """Remove a hold."""
    settings = session.start()
    from housekeeping_pipelines.deletion.holds import remove_hold

    with session.platform_connection(settings) as connection:
        if not remove_hold(connection, hold_id):
            raise ConfigurationError(f"there is no hold {hold_id}", hint="see `housekeeping hold list`")
    if json_:
        output.as_json({"removed": hold_id, "database": session.platform_name(settings)})
    else:
        output.echo(f"Hold {hold_id} is removed.")
        session.echo_platform(settings)


def parse_until(text: str, now: datetime) -> datetime:
    """The end of a hold: the end of a day, or an instant.

    Raises:
        ConfigurationError: it is neither, or is in the past.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"--until is {text!r}", hint="accepted: a date such as 2027-01-31") from None
    if len(text) == len("2027-01-31"):
        moment = datetime.combine(moment, time.max)
    # It is shown in UTC, whatever the offset with which it was given.
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment <= now:
        raise ConfigurationError(f"--until {text} is in the past", hint="set a date in the future")
    return moment


def _resolve(settings: Settings, connection: sa.Connection, subject: str) -> tuple[Any, Table, tuple[str, ...]]:
    from housekeeping_pipelines.application.platform import Platform

    accepted = f"accepted: {SUBJECTS}"
    platform = Platform.on(connection, settings)
    type_, _, rest = subject.partition(":")
    if type_ == "user" and rest:
        table, text = platform.table("users").live, rest
    elif type_ == "session" and rest:
        table, text = platform.table("upload_sessions").live, rest
    elif type_ == "row" and "/" in rest:
        name, _, text = rest.partition("/")
        table = platform.any_table(name)
    else:
        raise ConfigurationError(f"{subject!r} is not a valid subject of a hold", hint=accepted)
    if not table.has_key:
        raise ConfigurationError(f"{table.label} has no primary key, so a single row of it cannot be held")
    key = tuple(text.split(",")) if len(table.key) > 1 else (text,)
    if not text or len(key) != len(table.key):
        raise ConfigurationError(f"the key of {table.label} is {', '.join(table.key)}", hint=accepted)
    return type_, table, key


def _stored(settings: Settings, subject: str) -> tuple[Any, str, str] | None:
    """The type, the store and the name of a hold on a file or an object; None for a hold on a row.

    Raises:
        ConfigurationError: the file is not in one of the folders.
    """
    from housekeeping_pipelines.stores.folders import BUCKET, MEDIA, UPLOADS
    from housekeeping_pipelines.stores.stores import Stores

    type_, _, name = subject.partition(":")
    if type_ == "object" and name.strip("/"):
        return type_, BUCKET, name.lstrip("/")
    if type_ != "file" or not name:
        return None
    folders = {store: Stores(settings).folder(store) for store in (UPLOADS, MEDIA)}
    store, _, inside = name.partition("/")
    if Path(name).is_absolute():
        asked = {each: (folder, Path(name)) for each, folder in folders.items()}
    else:
        asked = {store: (folders[store], folders[store] / inside)} if store in folders else {}
    for each, (folder, path) in asked.items():
        # Spelled as in the listing: a hold under another spelling would have no effect.
        plain = Path(os.path.normpath(path))
        if plain != folder and plain.is_relative_to(folder):
            return type_, each, plain.relative_to(folder).as_posix()
    raise ConfigurationError(
        f"{name!r} is not a file in uploads or media",
        hint=f"accepted: file:uploads/NAME, file:media/NAME, or a path below {' or '.join(map(str, folders.values()))}",
    )


def _names(settings: Settings, store: str, name: str) -> Sequence[str]:
    from housekeeping_pipelines.stores.stores import Stores
    from housekeeping_pipelines.stores.subjects import held_names

    stores = Stores(settings)
    try:
        return held_names(stores[store], name)
    finally:
        stores.close()


def _print_hold(settings: Settings, hold: Hold, subject: str, *, json_: bool, exists: bool | None = None) -> None:
    if json_:
        where = {"database": session.platform_name(settings)}
        output.as_json(_as_dict(hold) | where | ({} if exists is None else {"exists": exists}))
    else:
        output.echo(f"{output.escape(subject)} is held until {hold.until:%Y-%m-%d %H:%M} UTC (hold {hold.id}).")
        session.echo_platform(settings)


def _exists(connection: sa.Connection, table: Table, key: tuple[str, ...]) -> bool:
    from housekeeping_pipelines.postgres.errors import describe
    from housekeeping_pipelines.postgres.keys import matches

    try:
        found = connection.scalar(
            sa.select(sa.literal(True)).select_from(table.selectable).where(matches(table, table.key, [key]))
        )
    except sa.exc.DataError as error:
        raise ConfigurationError(f"{','.join(key)!r} is not a valid key of {table.label}: {describe(error)}") from None
    return bool(found)


def _as_dict(hold: Hold) -> dict[str, Any]:
    return {
        "id": hold.id,
        "subject": hold.subject,
        "until": hold.until.isoformat(),
        "reason": hold.reason,
        "created_at": hold.created_at.isoformat(),
    }
