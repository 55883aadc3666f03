"""A platform with realistic sample data, for the demo, the tests and the benchmarks.

Every row is determined by a seed, a size and an instant, so that two runs can be compared row by row. Rows are
generated while COPY sends them, so memory use is constant: data that one table needs of another (when a
conversation's messages were written) is generated again from the same seed instead of being kept.

The sample marks its tables with a comment, and drops only tables that carry it.
"""

from __future__ import annotations

import json
import math
import random
import uuid
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import accumulate, count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import psycopg
import sqlalchemy as sa
from psycopg import sql

from housekeeping_pipelines.application.sample import TABLE_COMMENT
from housekeeping_pipelines.application.tables import metadata
from housekeeping_pipelines.demo import words as words
from housekeeping_pipelines.demo.tables import sample_keys
from housekeeping_pipelines.errors import ConfigurationError, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    _Row = tuple[object, ...]

_Card = TypeVar("_Card")

# No document of the sample is watched: the servers that they came from do not exist.
LEFT_EMPTY = ("document_sync_queues", "document_sync_runs")
PROGRESS_EVERY_ROWS = 10_000

_HOUR, _DAY = 3600.0, 86400.0
_SPAN_DAYS = 548
# A Wednesday afternoon.
_SEEN_FROM = datetime(2026, 1, 14, 16, tzinfo=UTC)
# The relative activity of the hours of a day (UTC) and the days of a week (from Monday).
_HOURS = (2, 1, 1, 1, 1, 2, 4, 8, 14, 18, 19, 17, 14, 16, 18, 17, 15, 12, 10, 9, 9, 8, 6, 4)
_WEEKDAYS = (10, 11, 11, 10, 9, 4, 3)

# Decks to be dealt. Of each 100 accounts 12 never verified their address; 7 of these were never used. Accounts of
# the last week are often not verified yet.
_ACCOUNTS = 86 * ["member"] + 2 * ["switched off"] + 7 * ["unverified"]
_ACCOUNTS += 2 * ["unverified owner"] + ["unverified staff"] + 2 * ["unverified, logged in"]
_NEW_ACCOUNTS = 3 * ["member"] + 2 * ["unverified"]
_OWNERS = {"member", "switched off", "unverified owner"}
# Of the conversations that began more than 30 days ago; "overlooked" has a message of today that did not update
# its `updated_at`.
_OLD_CONVERSATIONS = 84 * ["ended"] + 11 * ["still used"] + 5 * ["overlooked"]
_PINNED_OLD, _PINNED_NEW = [True] + 21 * [False], [True] + 49 * [False]
_PROCESSING = 15 * ["completed"] + 2 * ["failed"] + 2 * ["processing"] + ["pending"]
# Hours since an upload session was last used: mostly less than one, as after an hourly clean-up.
_IDLE_HOURS = 12 * [(0.0, 0.9)] + 5 * [(1.1, 48.0)] + 3 * [(48.0, 1000.0)]


@dataclass(frozen=True)
class SampleSize:
    """The numbers of rows; those of messages, processed documents and detections follow from their parents."""

    users: int
    workspaces: int
    conversations: int
    documents: int
    parsed_files: int
    upload_sessions: int
    security_events: int

    @classmethod
    def of(cls, conversations: int) -> SampleSize:
        """Everything in proportion to the number of conversations.

        Raises:
            ConfigurationError: fewer than one conversation.
        """
        if conversations < 1:
            raise ConfigurationError(f"a sample cannot have {conversations} conversations", hint="set 1 or more")
        return cls(
            users=max(10, conversations // 5),
            workspaces=max(3, conversations // 100),
            conversations=conversations,
            documents=max(10, conversations // 4),
            parsed_files=max(10, conversations // 10),
            upload_sessions=max(10, conversations // 20),
            security_events=max(10, conversations // 4),
        )


class _Calendar:
    """The last `days` days: busy by day and on working days, quiet by night and at weekends.

    `density` is the relative activity of the day that many days ago. Instants are seconds since the epoch. Days and
    nights are placed as if `now` were `_SEEN_FROM`, so that a seed gives rows of the same ages at any hour.
    """

    def __init__(self, now: float, days: int, density: Callable[[float], float]) -> None:
        self.start = now - days * _DAY
        weights = []
        for hour in range(days * 24):
            at = _SEEN_FROM - timedelta(hours=days * 24 - hour)
            weights.append(_HOURS[at.hour] * _WEEKDAYS[at.weekday()] * density(days - hour / 24))
        total = sum(weights)
        self._shares = [0.0, *(part / total for part in accumulate(weights))]

    def at(self, share: float) -> float:
        """The instant before which this share (0 to 1) of everything happened."""
        hour = min(bisect_right(self._shares, share), len(self._shares) - 1) - 1
        low, high = self._shares[hour], self._shares[hour + 1]
        return self.start + (hour + min((share - low) / (high - low), 1.0)) * _HOUR

    def share(self, at: float) -> float:
        """The share of everything that happened before this instant."""
        hours = max((at - self.start) / _HOUR, 0.0)
        hour = int(hours)
        if hour >= len(self._shares) - 1:
            return 1.0
        low, high = self._shares[hour], self._shares[hour + 1]
        return low + (hours - hour) * (high - low)

    def between(self, rng: random.Random, since: float, until: float) -> float:
        return self.at(rng.uniform(self.share(since), self.share(until)))

    def spread(self, rng: random.Random, number: int) -> Iterator[float]:
        """So many instants in ascending order, which makes a table's keys ascend with its times."""
        return (self.at((place + rng.random()) / number) for place in range(number))


class _Subject(NamedTuple):
    """What one conversation is about: every text that can occur in it."""

    titles: list[str]
    questions: list[str]
    answers: list[str]

    @classmethod
    def of(cls, topic: words.Topic, thing: str) -> _Subject:
        titles, questions, sentences = ([text.format(thing=thing) for text in texts] for texts in topic[1:])
        again = 2 * sentences
        answers = [" ".join(again[i : i + n]) for i in range(len(sentences)) for n in range(1, 5)]
        return cls([title[0].upper() + title[1:] for title in titles], questions, answers)


class _Conversation(NamedTuple):
    id: int
    user_id: int
    subject: _Subject
    title: str
    created_at: float
    updated_at: float
    pinned: bool
    messages_at: list[float]


class _Platform:
    """The rows of each table under its name, in the order of its columns; asked again, the same rows."""

    def __init__(self, seed: int, size: SampleSize, now: float) -> None:
        self._seed, self._size, self._now = seed, size, now
        self._growing = _Calendar(now, _SPAN_DAYS, lambda days_ago: 4 - 3 * days_ago / _SPAN_DAYS)
        # Owners delete most conversations within weeks and keep a fifth. By plain growth more than half would
        # be older than 30 days, and the blast-radius guard would rightly refuse the clean-up.
        self._chatting = _Calendar(now, 520, lambda days_ago: 0.2 / 520 + 0.8 / 24 * math.exp(-days_ago / 24))
        self._subjects = [_Subject.of(topic, thing) for topic in words.TOPICS for thing in topic.things]

    def users(self) -> Iterator[_Row]:
        rng = self._rng("users")
        names = [f"{a}.{b}" for given, family in words.PEOPLE for a in given.split() for b in family.split()]
        rng.shuffle(names)
        for number, (kind, joined) in enumerate(self._accounts()):
            again, place = divmod(number, len(names))
            name = names[place] + (str(again + 1) if again else "")
            email = f"{name}@{rng.choice(('example.com', 'example.org', 'example.net'))}"
            used = kind in ("member", "switched off")
            verified = min(joined + rng.expovariate(1 / _HOUR), self._now) if used else None
            login = self._growing.between(rng, verified or joined, self._now)
            first = number == 0
            staff = first or kind == "unverified staff" or (kind == "member" and rng.random() < 0.02)
            yield (
                number + 1, name, email, kind != "switched off", staff, first, verified and _time(verified),
                _time(joined), _time(login) if used or kind == "unverified, logged in" else None,
            )  # fmt: skip

    def workspaces(self) -> Iterator[_Row]:
        for number in range(self._size.workspaces):
            again, place = divmod(number, len(words.WORKSPACES))
            name = words.WORKSPACES[place] + (f" {again + 1}" if again else "")
            yield number + 1, name.lower().replace(" ", "-"), name

    def conversations(self) -> Iterator[_Row]:
        for c in self._conversations():
            yield c.id, c.user_id, c.title, _time(c.created_at), _time(c.updated_at), c.pinned

    def chat_messages(self) -> Iterator[_Row]:
        rng = self._rng("chat_messages")
        ids = count(1)
        orphans = _dealt(rng, [True] + 98 * [False])
        for each in self._conversations():
            for turn, at in enumerate(each.messages_at):
                yield next(ids), each.id, *self._message(rng, each.subject, turn), _time(at)
                if next(orphans):
                    yield next(ids), None, *self._orphan(rng), _time(at)
        for _ in range(max(3, self._size.conversations // 2000)):
            yield next(ids), None, *self._orphan(rng), _time(self._now - rng.uniform(30, 2400))

    def documents(self) -> Iterator[_Row]:
        rng = self._rng("documents")
        for number, at in enumerate(self._growing.spread(rng, self._size.documents), 1):
            title = f"{rng.choice(words.DOCUMENTS)} {_time(at).year}"
            slug, doc_id, of_the_web = title.lower().replace(" ", "-"), _uuid(rng), rng.random() < 0.1
            about = {
                "title": title,
                "published": _time(at).isoformat(timespec="seconds"),
                "chunkSource": f"link://https://docs.example.com/{slug}" if of_the_web else "",
                "wordCount": round(rng.lognormvariate(6.5, 0.8)),
            }
            filename = f"{slug}-{doc_id}.json"
            workspace = rng.randint(1, self._size.workspaces)
            path = f"custom-documents/{filename}"
            yield number, doc_id, filename, path, workspace, json.dumps(about), False, _time(at)

    def parsed_files(self) -> Iterator[_Row]:
        rng = self._rng("parsed_files")
        for number, at in enumerate(self._growing.spread(rng, self._size.parsed_files), 1):
            name = f"{rng.choice(words.UPLOADS).replace('-', ' ').capitalize()} {_time(at):%d.%m.%Y} ({number})"
            yield number, f"{name}.{rng.choice(words.UPLOAD_TYPES)}", rng.randint(1, self._size.workspaces), _time(at)

    def upload_sessions(self) -> Iterator[_Row]:
        rng = self._rng("upload_sessions")
        for key, started, used in self._sessions():
            yield key, _time(started), self._now - used < _DAY or rng.random() < 0.5, _time(used)

    def processed_documents(self) -> Iterator[_Row]:
        rng = self._rng("processed_documents")
        statuses = _dealt(rng, _PROCESSING)
        ids = count(1)
        for key, started, used in self._sessions():
            for _ in range(rng.randint(0, 6)):
                at, status = rng.uniform(started, used), next(statuses)
                kind = rng.choice(words.UPLOAD_TYPES)
                outputs = [
                    f"{key}/{_uuid(rng)}.{end}" if status == "completed" and rng.random() < 0.5 else None
                    for end in ("xlsx", "pdf", "docx")
                ]
                retries = rng.randint(1, 3) if status == "failed" else 0
                yield (
                    next(ids), key, f"{rng.choice(words.UPLOADS)}-{_time(at):%Y-%m-%d}.{kind}", kind,
                    round(rng.lognormvariate(12, 1.3)), status, retries,
                    f"{key}/{_uuid(rng)}.{kind}", *outputs, _time(at),
                )  # fmt: skip

    def security_events(self) -> Iterator[_Row]:
        rng = self._rng("security_events")
        for event, camera, at in self._sightings():
            score = round(100 * rng.betavariate(1.3, 3))
            level = "low" if score < 30 else "medium" if score < 60 else "high" if score < 85 else "critical"
            summary = rng.choice(words.SIGHTINGS).format(camera=f"the {camera.replace('-', ' ')}")
            clip = f"{_folder(camera, at)}/{event}.mp4" if rng.random() < 0.8 else None
            yield event, level, score, summary if rng.random() < 0.9 else None, _time(at), clip

    def detections(self) -> Iterator[_Row]:
        rng = self._rng("detections")
        ids = count(1)
        for event, camera, at in self._sightings():
            for frame in range(rng.randint(1, 4)):
                path = f"{_folder(camera, at)}/{event}-{frame}"
                small = f"{path}-small.jpg" if rng.random() < 0.9 else None
                yield next(ids), event, f"{path}.jpg", small, _time(min(at + 2.5 * frame, self._now))

    def _rng(self, stream: str) -> random.Random:
        return random.Random(f"{self._seed} {stream}")  # noqa: S311

    def _accounts(self) -> Iterator[tuple[str, float]]:
        """Kind and time of joining. The first is a member from the start, so that there is always an owner; the
        last joined this week and is unverified, in however small a sample."""
        rng = self._rng("accounts")
        kinds, new_kinds = _dealt(rng, _ACCOUNTS), _dealt(rng, _NEW_ACCOUNTS)
        for number, joined in enumerate(self._growing.spread(rng, self._size.users)):
            if number == 0:
                yield "member", self._growing.start
            elif number == self._size.users - 1:
                yield "unverified", max(joined, self._recently(rng, 5 * _DAY))
            else:
                yield next(kinds if self._now - joined > 7 * _DAY else new_kinds), joined

    @cached_property
    def _may_own(self) -> bytes:
        return bytes(kind in _OWNERS for kind, _ in self._accounts())

    def _owner(self, rng: random.Random, created: float) -> int:
        """A user who had joined by then, more often an early one."""
        joined = max(1, int(self._growing.share(created) * self._size.users))
        while not self._may_own[number := int(joined * rng.random() ** 1.6)]:
            pass
        return number + 1

    def _conversations(self) -> Iterator[_Conversation]:
        rng = self._rng("conversations")
        kinds, pinned_old = _dealt(rng, _OLD_CONVERSATIONS), _dealt(rng, _PINNED_OLD)
        pinned_new = _dealt(rng, _PINNED_NEW)
        for number, created in enumerate(self._chatting.spread(rng, self._size.conversations), 1):
            old = self._now - created > 30 * _DAY
            kind = next(kinds) if old else "ended"
            # 8 messages on average, 6 in the middle, a few hundred at most; none in one of 30.
            times = self._sitting(rng, created, 2 * round(rng.lognormvariate(0.97, 0.9)))
            updated = times[-1] if times else created
            if kind == "still used":
                times += self._sitting(rng, self._recently(rng, 25 * _DAY), 2)
                updated = times[-1]
            elif kind == "overlooked":
                times += self._sitting(rng, self._recently(rng, 20 * _HOUR), 2)
            subject, owner = rng.choice(self._subjects), self._owner(rng, created)
            pinned = next(pinned_old if old else pinned_new)
            title = rng.choice(subject.titles)
            yield _Conversation(number, owner, subject, title, created, updated, pinned, times)

    def _recently(self, rng: random.Random, seconds: float) -> float:
        return self._growing.between(rng, self._now - seconds, self._now)

    def _sitting(self, rng: random.Random, at: float, messages: int) -> list[float]:
        """When each message was written: answers within a minute, questions within minutes or days later."""
        times: list[float] = []
        while len(times) < messages and at <= self._now:
            times.append(at)
            if len(times) % 2:
                at += 2 + 40 * rng.random()
            elif at + _HOUR < self._now and rng.random() < 0.06:
                at = self._growing.between(rng, at + _HOUR, at + 4 * _DAY)
            else:
                at += 10 + 300 * rng.random()
        return times

    def _message(self, rng: random.Random, subject: _Subject, turn: int) -> tuple[str, str]:
        if turn % 2:
            return "assistant", rng.choice(subject.answers)
        opening = rng.choice(words.FOLLOW_UPS) + " " if turn else rng.choice(words.GREETINGS)
        detail = " " + rng.choice(words.DETAILS) if rng.random() < 0.4 else ""
        return "user", opening + rng.choice(subject.questions) + detail

    def _orphan(self, rng: random.Random) -> tuple[str, str]:
        return self._message(rng, rng.choice(self._subjects), rng.randrange(8))

    def _sessions(self) -> Iterator[tuple[str, float, float]]:
        """Key, start and last use; one in five has been open for days."""
        rng = self._rng("sessions")
        idle_hours = _dealt(rng, _IDLE_HOURS)
        for _ in range(self._size.upload_sessions):
            used = self._now - rng.uniform(*next(idle_hours)) * _HOUR
            started = used - rng.expovariate(1 / (4 * _DAY if rng.random() < 0.2 else 0.3 * _HOUR))
            yield f"{rng.getrandbits(160):040x}", started, used

    def _sightings(self) -> Iterator[tuple[int, str, float]]:
        rng = self._rng("sightings")
        for event, at in enumerate(self._growing.spread(rng, self._size.security_events), 1):
            yield event, rng.choice(words.CAMERAS), at


def _dealt(rng: random.Random, deck: Sequence[_Card]) -> Iterator[_Card]:
    """Cards of a deck, shuffled again when it runs out: a small sample has the same shares as a large one."""
    cards = list(deck)
    while True:
        rng.shuffle(cards)
        yield from cards


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _folder(camera: str, at: float) -> str:
    return f"{camera}/{_time(at):%Y/%m/%d}"


def create_sample(
    engine: sa.Engine,
    *,
    seed: int = 7,
    conversations: int = 2_000,
    now: datetime,
    on_progress: Callable[[str, int], None] | None = None,
    recorded: bool = False,
) -> dict[str, int]:
    """Create the platform's tables and fill them, in one transaction.

    Nothing in the sample is later than `now`. `on_progress` is called with a table and its rows so far.

    Args:
        recorded: whether the keys of the rows are recorded in our schema, which must exist then.

    Returns:
        table -> rows.

    Raises:
        Refused: one of the tables exists.
        ConfigurationError: fewer than one conversation.
    """
    if now.tzinfo is None:
        raise ValueError("now must have a time zone")
    platform = _Platform(seed, SampleSize.of(conversations), now.timestamp())
    with engine.begin() as connection:
        if existing := _existing(connection):
            raise Refused(
                f"the database already has {', '.join(existing)}",
                hint="reset the sample first, or use a database without these tables",
            )
        metadata.create_all(connection, checkfirst=False)
        rows = {}
        for table in metadata.sorted_tables:
            made = iter(()) if table.name in LEFT_EMPTY else getattr(platform, table.name)()
            rows[table.name] = _fill(connection, table, made, on_progress)
        if recorded:
            record_sample(connection)
        return rows


def record_sample(connection: sa.Connection) -> None:
    """Record the keys of the rows that are in the sample's tables now; the caller commits."""
    for table in metadata.sorted_tables:
        rows = sa.select(sa.literal(table.name, sa.Text), _key(table)).where(~_is_recorded(table))
        connection.execute(sa.insert(sample_keys).from_select(["source_table", "key"], rows))


def rows_of_others(connection: sa.Connection) -> dict[str, int]:
    """Rows in the sample's tables that `record_sample` has not recorded, by table."""
    counts: dict[str, int] = {}
    for name in _existing(connection):
        table = metadata.tables[name]
        if name in LEFT_EMPTY:
            continue
        statement = sa.select(sa.func.count()).select_from(table).where(~_is_recorded(table))
        counts[name] = connection.scalar(statement) or 0
    return {name: count for name, count in counts.items() if count}


def _is_recorded(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.exists().where(sample_keys.c.source_table == table.name, sample_keys.c.key == _key(table))


def _key(table: sa.Table) -> sa.ColumnElement[int]:
    """A hash of a row's key."""
    columns = [sa.cast(column, sa.Text) for column in table.primary_key.columns]
    return sa.func.hashtextextended(sa.func.concat_ws("|", *columns), 0, type_=sa.BigInteger)


def reset_sample(engine: sa.Engine) -> None:
    """Drop the sample's tables, if there are any.

    Raises:
        Refused: one of the tables is not the sample's, or other objects depend on one; no table was dropped.
    """
    with engine.begin() as connection:
        existing = _existing(connection)
        if foreign := [name for name, comment in existing.items() if comment != TABLE_COMMENT]:
            raise Refused(
                f"nothing was dropped, since the sample did not create {', '.join(foreign)}",
                hint="use a database that holds the sample only",
            )
        try:
            metadata.drop_all(connection, [metadata.tables[name] for name in existing], checkfirst=False)
        except sa.exc.DBAPIError as error:
            if not isinstance(error.orig, psycopg.errors.DependentObjectsStillExist):
                raise
            detail = " ".join((error.orig.diag.message_detail or "").split())
            raise Refused(f"nothing was dropped: {detail}", hint="drop the dependent objects first") from None


def _existing(connection: sa.Connection) -> dict[str, str | None]:
    """The relations of any kind that have one of the platform's names, with the comment if they are tables."""
    found = connection.execute(
        sa.text(
            "SELECT name, CASE relkind WHEN 'r' THEN obj_description(oid, 'pg_class') END AS comment"
            " FROM unnest(CAST(:names AS text[])) AS name"
            " JOIN pg_class ON oid = to_regclass(quote_ident(name)) ORDER BY name"
        ),
        {"names": list(metadata.tables)},
    )
    return {row.name: row.comment for row in found}


def _fill(
    connection: sa.Connection,
    table: sa.Table,
    rows: Iterator[_Row],
    on_progress: Callable[[str, int], None] | None,
) -> int:
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns.keys()))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), columns)
    total = 0
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
            total += 1
            if on_progress and total % PROGRESS_EVERY_ROWS == 0:
                on_progress(table.name, total)
    for column in table.columns:
        if column.identity is not None:
            sequence = sa.func.pg_get_serial_sequence(table.name, column.name)
            connection.execute(sa.select(sa.func.setval(sequence, total + 1, False)))
    name = connection.dialect.identifier_preparer.format_table(table)
    connection.execute(sa.text(f"COMMENT ON TABLE {name} IS '{TABLE_COMMENT}'"))
    connection.execute(sa.text(f"ANALYZE {name}"))
    if on_progress and total % PROGRESS_EVERY_ROWS:
        on_progress(table.name, total)
    return total
