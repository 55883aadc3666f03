"""Removes files and objects from their stores, and nothing else does.

An object to remove is first a committed entry of the outbox: written with the deletion of the row that owns it, or by
the search for orphans. Then, with no transaction open, its references are checked again, and it is moved to the trash,
or removed where the store has none; the entry is deleted when storage has confirmed that. A crash at any point leaves
the entry, and the next attempt finds the object in its place, in the trash, or absent, and continues from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.deletion.file_outbox import Entry, backoff, resolve
from housekeeping_pipelines.deletion.holds import HOLDS_LOCK, ActiveHolds
from housekeeping_pipelines.deletion.store import Store
from housekeeping_pipelines.deletion.tables import file_outbox, trashed_files
from housekeeping_pipelines.errors import HousekeepingError, Unavailable
from housekeeping_pipelines.postgres.arrays import is_one_of, rows_of
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
    """What became of entries, by name.

    Attributes:
        gone: moved to the trash or removed, with their bytes (0 where unknown).
        absent: did not exist any more.
        in_use: referred to again, or rewritten since: they stay, and their entries are deleted.
        held: kept by a hold for now.
        failed: still in the store, with the reason; those that a row owned are retried later, and a later search finds
            an orphan again.
        unavailable: storage does not answer: the names that are in no other field wait in the outbox.
    """

    gone: dict[str, int] = field(default_factory=dict)
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
            chosen = self._choose()
            self._take_over(chosen)
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

    def _choose(self) -> dict[str, StoredObject]:
        """The objects that exist and are to be removed."""
        names, outcome, storage = _sorted(self._by_name), self.outcome, self.store.storage
        wanted = self._in_use(names)
        with self.connection.begin():
            held = ActiveHolds.read(self.connection, self.clock()).names(self.store.name, names) - wanted
        present = {found.name: found for found in storage.examine(names)}
        for name, trashed in self._moved_earlier(self._by_name.keys() - present.keys()).items():
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

    def _take_over(self, names: Iterable[str]) -> None:
        """Make the run the owner of objects that an earlier one has not removed, before they are moved to its trash."""
        if self.owner is None:
            return
        run_id, task = self.owner
        others = [entry for entry in map(self._by_name.__getitem__, names) if entry.run_id != run_id]
        if others:
            with self.connection.begin():
                mine = is_one_of(file_outbox.c.id, [entry.id for entry in others])
                self.connection.execute(sa.update(file_outbox).where(mine).values(run_id=run_id, task=task))
        self._by_name |= {entry.name: replace(entry, run_id=run_id, task=task) for entry in others}

    def _moved_earlier(self, names: Iterable[str]) -> dict[str, StoredObject]:
        """Those that an interrupted attempt has already moved to the trash."""
        if self.store.trash_prefix is None:
            return {}
        ours = {self._trash_name(name): name for name in names}
        return {ours[found.name]: found for found in self.store.storage.examine(_sorted(ours))}

    def _trash_name(self, name: str) -> str:
        return self.store.trash_name(self._by_name[name].run_id, name)

    def _remove(self, chosen: dict[str, StoredObject]) -> None:
        outcome, storage = self.outcome, self.store.storage
        if self.store.trash_prefix is None:
            removal = storage.remove(_sorted(chosen)) if chosen else Removal()
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
        for name in self._in_use(_sorted(outcome.gone)):
            try:
                self.store.storage.move(self._trash_name(name), name)
            except ObjectExists:
                # It was rewritten meanwhile; the old content stays in the trash.
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


def _sorted(names: Iterable[str]) -> list[str]:
    """In the order of storage: by bytes."""
    return sorted(names, key=lambda name: name.encode(errors="surrogateescape"))
