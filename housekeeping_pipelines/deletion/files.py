"""Files and objects leave their stores here, and nowhere else.

What is to go is first an entry of the outbox, committed: with the deletion of the row that owned it, or by whoever
found that nothing refers to it. Then, with no transaction open, it is looked at again and moved to the trash, or
removed where there is none; the entry goes when storage has confirmed that. A crash at any point leaves an entry, and
whoever takes it next finds the object where it was, in the trash, or gone, and goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.deletion.file_outbox import Entry, backoff
from housekeeping_pipelines.deletion.holds import HOLDS_LOCK, ActiveHolds
from housekeeping_pipelines.deletion.store import Store
from housekeeping_pipelines.deletion.tables import file_outbox, trashed_files
from housekeeping_pipelines.errors import HousekeepingError, Unavailable
from housekeeping_pipelines.postgres.arrays import is_one_of, rows_of
from housekeeping_pipelines.postgres.locks import shared_lock
from housekeeping_pipelines.resources.object_storage import ObjectExists, ObjectMissing, Removal, StorageRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from housekeeping_pipelines.resources.object_storage import StoredObject

# Held in share mode by whoever moves files, and alone by an undo, which must not meet one half way.
FILES_LOCK = "files"


# An entry that a hold keeps is looked at again so often.
HELD_DELAY = timedelta(days=1)


@dataclass
class Outcome:
    """What became of entries, by name.

    Attributes:
        gone: moved to the trash or removed, with their bytes (0 where unknown).
        absent: they were not there any more.
        in_use: something refers to them again, or they were written anew: they stay for good.
        held: a hold keeps them for now.
        failed: they are there, and why; they are tried again later.
        unavailable: storage does not answer: those that are in no other list wait in the outbox.
    """

    gone: dict[str, int] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    in_use: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    unavailable: Unavailable | None = None


@dataclass
class FileRemoval:
    """Entries of one store on their way out; while storage works, the connection is in no transaction."""

    connection: sa.Connection
    store: Store
    clock: Callable[[], datetime]
    entries: Sequence[Entry]
    outcome: Outcome = field(default_factory=Outcome)
    _by_name: dict[str, Entry] = field(init=False)

    def __post_init__(self) -> None:
        self._by_name = {entry.name: entry for entry in self.entries}

    def execute(self) -> Outcome:
        """Take away what is still to go, and write down what became of each; never raises for what storage answers."""
        # Whoever adds a hold, or undoes a run, waits until the batch is through.
        with shared_lock(self.connection, FILES_LOCK), shared_lock(self.connection, HOLDS_LOCK):
            return self._execute()

    def _execute(self) -> Outcome:
        outcome = self.outcome
        try:
            self._take_away(self._choose())
            self._restore_referenced()
        except Unavailable as error:
            outcome.unavailable = error
        except HousekeepingError as error:
            outcome.failed |= dict.fromkeys(self._undecided(), error.one_line)
        with self.connection.begin():
            self._record_outcomes()
        return outcome

    def _undecided(self) -> set[str]:
        outcome = self.outcome
        decided = outcome.gone.keys() | outcome.absent | outcome.in_use | outcome.held | outcome.failed.keys()
        return self._by_name.keys() - decided

    def _choose(self) -> dict[str, StoredObject]:
        """What is there and is to go."""
        names, outcome, storage = _sorted(self._by_name), self.outcome, self.store.storage
        with self.connection.begin():
            wanted = self.store.uses.in_use(self.connection, names)
            held = ActiveHolds.read(self.connection, self.clock()).names(self.store.name, names) - wanted
        present = {found.name: found for found in storage.examine(names)}
        for name, trashed in self._moved_before(self._by_name.keys() - present.keys()).items():
            if name in wanted | held:
                storage.move(self._trash_name(name), name)
                (outcome.in_use if name in wanted else outcome.held).add(name)
            else:
                outcome.gone[name] = trashed.size or 0
        outcome.absent |= self._undecided() - present.keys()
        for name, found in present.items():
            chosen_as = self._by_name[name].modified
            if name in wanted or (chosen_as is not None and found.modified != chosen_as):
                outcome.in_use.add(name)
            elif name in held:
                outcome.held.add(name)
        return {name: found for name, found in present.items() if name not in outcome.in_use | outcome.held}

    def _moved_before(self, names: Iterable[str]) -> dict[str, StoredObject]:
        """Those that an attempt that was cut off had moved to the trash already."""
        if self.store.trash_prefix is None:
            return {}
        ours = {self._trash_name(name): name for name in names}
        return {ours[found.name]: found for found in self.store.storage.examine(_sorted(ours))}

    def _trash_name(self, name: str) -> str:
        return self.store.trash_name(self._by_name[name].run_id, name)

    def _take_away(self, chosen: dict[str, StoredObject]) -> None:
        outcome, storage = self.outcome, self.store.storage
        if self.store.trash_prefix is None:
            removal = storage.remove(_sorted(chosen)) if chosen else Removal()
            outcome.gone |= {name: chosen[name].size or 0 for name in removal.removed}
            outcome.absent |= removal.absent
            if removal.unavailable is not None:
                # What is still there, or may be, waits.
                raise removal.unavailable
            outcome.failed |= removal.failed
            return
        for name, found in chosen.items():
            try:
                storage.move(name, self._trash_name(name))
            except ObjectMissing:
                outcome.absent.add(name)
            except StorageRefused as error:
                outcome.failed[name] = error.one_line
            else:
                outcome.gone[name] = found.size or 0

    def _restore_referenced(self) -> None:
        """A row that named an object between the last look and the move finds it again."""
        outcome = self.outcome
        if self.store.trash_prefix is None or not outcome.gone:
            return
        with self.connection.begin():
            wanted = self.store.uses.in_use(self.connection, _sorted(outcome.gone))
        for name in wanted:
            try:
                self.store.storage.move(self._trash_name(name), name)
            except ObjectExists:
                # It was written anew meanwhile; the old content can be had from the trash.
                continue
            del outcome.gone[name]
            outcome.in_use.add(name)

    def _record_outcomes(self) -> None:
        outcome, now, connection = self.outcome, self.clock(), self.connection
        if self.store.trash_prefix is not None and outcome.gone:
            entries = [self._by_name[name] for name in outcome.gone]
            moved = rows_of(
                run_id=("text[]", [entry.run_id for entry in entries]),
                task=("text[]", [entry.task for entry in entries]),
                name=("text[]", list(outcome.gone)),
                trash_name=("text[]", [self._trash_name(name) for name in outcome.gone]),
                bytes=("bigint[]", list(outcome.gone.values())),
            )
            values = sa.select(sa.literal(self.store.name, sa.Text), sa.literal(now), *moved.c)
            names = ["store", "deleted_at", *moved.c.keys()]
            connection.execute(sa.insert(trashed_files).from_select(names, values))
        done = outcome.gone.keys() | outcome.absent | outcome.in_use
        ids = [entry.id for entry in self.entries if entry.name in done]
        connection.execute(sa.delete(file_outbox).where(is_one_of(file_outbox.c.id, ids)))
        waiting = dict.fromkeys(self._undecided(), outcome.unavailable.one_line) if outcome.unavailable else {}
        later: dict[tuple[datetime, str | None], list[int]] = {}
        for entry in self.entries:
            if entry.name in outcome.held:
                later.setdefault((now + HELD_DELAY, None), []).append(entry.id)
            elif (reason := (outcome.failed.get(entry.name) or waiting.get(entry.name))) is not None:
                later.setdefault((now + backoff(entry.attempts), reason), []).append(entry.id)
        for (moment, reason), ids in later.items():
            statement = sa.update(file_outbox).where(is_one_of(file_outbox.c.id, ids))
            connection.execute(statement.values(next_attempt_at=moment, last_error=reason))


def _sorted(names: Iterable[str]) -> list[str]:
    """As storage orders them: by their bytes."""
    return sorted(names, key=lambda name: name.encode(errors="surrogateescape"))
