"""Removes files and objects from their stores, and nothing else does.

An object to remove is first a committed entry of the outbox: written with the deletion of the row that owns it, or by
the search for orphans. Then, with no transaction open, its references are checked again, and it is moved to the trash,
or removed where the store has none; the entry is deleted when storage has confirmed that. The entry says beforehand
where the object goes. A crash at any point leaves the entry, and the next attempt looks at both names, whatever the
settings say by then: the object is in its place, in the trash, or absent, and the attempt continues from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.deletion import file_outbox as outbox
from housekeeping_pipelines.deletion.file_outbox import Entry, backoff, resolve
from housekeeping_pipelines.deletion.file_trash import Trashed, record
from housekeeping_pipelines.deletion.holds import HOLDS_LOCK, ActiveHolds
from housekeeping_pipelines.deletion.store import Store
from housekeeping_pipelines.deletion.tables import file_outbox
from housekeeping_pipelines.errors import HousekeepingError, Unavailable
from housekeeping_pipelines.postgres.arrays import is_one_of
from housekeeping_pipelines.postgres.locks import shared_lock
from housekeeping_pipelines.resources.object_storage import Moves, ObjectExists, Removal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from housekeeping_pipelines.resources.object_storage import StoredObject

# Held in share mode while files are moved, and exclusively by an undo, which must not find one half moved.
FILES_LOCK = "files"

# How long an entry waits that a hold keeps.
HELD_DELAY = timedelta(days=1)


@dataclass
class Outcome:
    """What became of entries, by name; those that another worker has taken over meanwhile are in no field.

    Attributes:
        gone: moved to the trash or removed, with their bytes (0 where unknown).
        in_trash: those of them that are in the trash.
        absent: did not exist any more.
        in_use: referred to again, or rewritten since: they stay, and their entries are deleted.
        held: kept by a hold for now.
        failed: still in the store, with the reason; those that a row owned are retried later, and a later search finds
            an orphan again.
        unavailable: storage does not answer: the names that are in no other field wait in the outbox.
    """

    gone: dict[str, int] = field(default_factory=dict)
    in_trash: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    in_use: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    unavailable: Unavailable | None = None


@dataclass
class FileRemoval:
    """Removes the objects of some entries of one store; during storage requests the connection is in no transaction.

    Attributes:
        owner: the run, and its task, to which objects belong that an earlier run queued and did not remove; None leaves
            them with it.
    """

    connection: sa.Connection
    store: Store
    clock: Callable[[], datetime]
    entries: Sequence[Entry]
    owner: tuple[str, str] | None = None
    outcome: Outcome = field(default_factory=Outcome)
    _by_name: dict[str, Entry] = field(init=False)
    # Where objects of the trash are that an earlier attempt moved.
    _earlier: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_name = {entry.name: entry for entry in self.entries}

    def execute(self) -> Outcome:
        """Remove what is still to be removed, and record the outcomes; never raises for what storage answers."""
        # A new hold and an undo wait until the batch is finished.
        with shared_lock(self.connection, FILES_LOCK), shared_lock(self.connection, HOLDS_LOCK):
            return self._execute()

    def _execute(self) -> Outcome:
        outcome = self.outcome
        try:
            self._resolve()
            self._settle_interrupted()
            chosen = self._choose()
            for name in chosen.keys() - self._announce(chosen):
                del chosen[name]
            self._remove(chosen)
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

    def _resolve(self) -> None:
        self.entries = resolve(self.connection, self.store, self.entries)
        self._by_name = {entry.name: entry for entry in self.entries}

    def _in_use(self, names: Sequence[str]) -> set[str]:
        # A task that deletes rows with their objects leaves both to the trash, where neither keeps the other.
        owners = {entry.task for entry in self.entries if not entry.is_orphan}
        with self.connection.begin():
            found = self.store.uses.in_use(self.connection, names, except_tasks=owners)
        return found.decide(self.store.stored)

    def _settle_interrupted(self) -> None:
        """Finish the moves that an earlier attempt began, or take them back, judging each by both of its names."""
        outcome, storage = self.outcome, self.store.storage
        again = [entry for entry in self.entries if entry.attempts > 1]
        begun = {place: entry.name for entry in again if (place := place_in_trash(entry, self.store)) is not None}
        moved = {found.name: found for found in storage.examine(in_order(begun))}
        if not moved:
            return
        names = in_order(begun[place] for place in moved)
        in_place = {found.name for found in storage.examine(names)}
        kept = self._in_use(names) | self._held(names)
        # One object under both names loses the second; otherwise the first was written again, and stays as it is.
        back = storage.move_many({place: begun[place] for place in moved if begun[place] in in_place | kept})
        if back.unavailable is not None:
            raise back.unavailable
        outcome.failed |= {begun[place]: reason for place, reason in back.failed.items()}
        for place in moved.keys() - back.moved - back.absent - back.failed.keys():
            outcome.gone[begun[place]] = moved[place].size or 0
            self._earlier[begun[place]] = place

    def _held(self, names: Sequence[str]) -> set[str]:
        with self.connection.begin():
            return ActiveHolds.read(self.connection, self.clock()).names(self.store.name, names)

    def _choose(self) -> dict[str, StoredObject]:
        """The objects that exist and are to be removed."""
        names, outcome = in_order(self._undecided()), self.outcome
        wanted = self._in_use(names)
        held = self._held(names) - wanted
        present = {found.name: found for found in self.store.storage.examine(names)}
        outcome.absent |= self._undecided() - present.keys()
        for name, found in present.items():
            chosen_as = self._by_name[name].modified
            if name in wanted or (chosen_as is not None and found.modified != chosen_as):
                outcome.in_use.add(name)
            elif name in held:
                outcome.held.add(name)
        return {name: found for name, found in present.items() if name not in outcome.in_use | outcome.held}

    def _announce(self, names: Iterable[str]) -> set[str]:
        """Commit whose trash the objects go to, and where, before they are moved.

        Returns:
            the names whose entries are still leased to this worker.
        """
        names = list(names)
        changed: list[Entry] = []
        for entry in map(self._by_name.__getitem__, names):
            run_id, task = self.owner or (entry.run_id, entry.task)
            goes_to = self.store.trash_name(run_id, entry.name)
            if (entry.run_id, entry.trash_name) != (run_id, goes_to):
                changed.append(replace(entry, run_id=run_id, task=task, trash_name=goes_to))
        if not changed:
            return set(names)
        with self.connection.begin():
            kept = outbox.announce(self.connection, changed)
        lost = [entry for entry in changed if entry.id not in kept]
        self._by_name |= {entry.name: entry for entry in changed}
        self._forget(lost)
        return set(names) - {entry.name for entry in lost}

    def _forget(self, lost: Iterable[Entry]) -> None:
        """Leave entries out whose lease went to another worker, which says what becomes of them."""
        ids = {entry.id for entry in lost}
        self.entries = [entry for entry in self.entries if entry.id not in ids]
        outcome = self.outcome
        for name in {entry.name for entry in lost} - {entry.name for entry in self.entries}:
            outcome.gone.pop(name, None)
            outcome.failed.pop(name, None)
            for names in (outcome.absent, outcome.in_use, outcome.held):
                names.discard(name)
            del self._by_name[name]

    def _trashed(self, name: str) -> Trashed:
        entry = self._by_name[name]
        return Trashed(entry.run_id, entry.task, name, self._trash_name(name), self.outcome.gone[name])

    def _trash_name(self, name: str) -> str:
        # Nothing is moved before it is committed where to.
        return self._earlier.get(name) or str(self._by_name[name].trash_name)

    def _remove(self, chosen: dict[str, StoredObject]) -> None:
        outcome, storage = self.outcome, self.store.storage
        if self.store.trash_prefix is None:
            removal = storage.remove(in_order(chosen)) if chosen else Removal()
            outcome.gone |= {name: chosen[name].size or 0 for name in removal.removed}
            outcome.absent |= removal.absent
            if removal.unavailable is not None:
                # Objects that exist, or may exist, wait.
                raise removal.unavailable
            outcome.failed |= removal.failed
            return
        moves = storage.move_many({name: self._trash_name(name) for name in chosen}) if chosen else Moves()
        outcome.gone |= {name: chosen[name].size or 0 for name in moves.moved}
        outcome.absent |= moves.absent
        outcome.failed |= dict.fromkeys(moves.taken, "the trash of this run has an object of this name already")
        if moves.unavailable is not None:
            outcome.unavailable = moves.unavailable
            return
        outcome.failed |= moves.failed

    def _restore_referenced(self) -> None:
        """Move an object back if a row has named it between the check and the move."""
        outcome = self.outcome
        if self.store.trash_prefix is None or not outcome.gone:
            return
        for name in self._in_use(in_order(outcome.gone.keys() - self._earlier.keys())):
            try:
                self.store.storage.move(self._trash_name(name), name)
            except ObjectExists:
                # It was rewritten meanwhile; the old content stays in the trash.
                continue
            del outcome.gone[name]
            outcome.in_use.add(name)

    def _record_outcomes(self) -> None:
        outcome, now, connection = self.outcome, self.clock(), self.connection
        kept = outbox.lock_leased(connection, self.entries)
        self._forget([entry for entry in self.entries if entry.id not in kept])
        in_trash = [name for name in outcome.gone if self.store.trash_prefix is not None or name in self._earlier]
        outcome.in_trash.update(in_trash)
        if in_trash:
            record(connection, self.store.name, [self._trashed(name) for name in in_trash], now)
        done = outcome.gone.keys() | outcome.absent | outcome.in_use
        found_again = outcome.held | outcome.failed.keys()
        ids = {each.id for each in self.entries if each.name in done or (each.is_orphan and each.name in found_again)}
        connection.execute(sa.delete(file_outbox).where(is_one_of(file_outbox.c.id, list(ids))))
        waiting = dict.fromkeys(self._undecided(), outcome.unavailable.one_line) if outcome.unavailable else {}
        later: dict[tuple[datetime, str | None], list[int]] = {}
        for entry in (each for each in self.entries if each.id not in ids):
            if entry.name in outcome.held:
                later.setdefault((now + HELD_DELAY, None), []).append(entry.id)
            elif (reason := (outcome.failed.get(entry.name) or waiting.get(entry.name))) is not None:
                later.setdefault((now + backoff(entry.attempts), reason), []).append(entry.id)
        for (moment, reason), delayed in later.items():
            statement = sa.update(file_outbox).where(is_one_of(file_outbox.c.id, delayed))
            connection.execute(statement.values(next_attempt_at=moment, last_error=reason))


def place_in_trash(entry: Entry, store: Store) -> str | None:
    """Where in the trash an attempt may have left an object; None if it moves none there."""
    # An entry of an earlier version does not say so.
    return entry.trash_name or store.trash_name(entry.run_id, entry.name)


def in_order(names: Iterable[str]) -> list[str]:
    """In the order of storage: by bytes."""
    return sorted(names, key=lambda name: name.encode(errors="surrogateescape"))
