"""The tables whose rows are deleted with a root's rows, parents first, by the foreign keys of the live catalog.

A key that cascades, restricts or does nothing is followed: the referring rows are deleted with the row. A key that sets
null or a default is not: the referring row stays. Tables that follow each other in a cycle have no order, which is an
error before anything is deleted; of a table that refers to itself, the transitive closure is read row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from housekeeping_pipelines.errors import Refused
from housekeeping_pipelines.postgres.fingerprint import shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from housekeeping_pipelines.postgres.catalog import Catalog, ForeignKey, Table


@dataclass(frozen=True)
class Plan:
    """What is deleted with a row of `root`.

    Attributes:
        tables: the root and every table that depends on it, parents before children.
        followed: the keys whose referring rows are deleted too, self-references included.
        cleared: the keys into these tables whose referring rows stay and lose their reference.
        unindexed: followed or cleared keys whose columns lead no index.
        members: every table of a key above, by oid.
        unvalidated: keys of these tables that are NOT VALID, wherever they lead.
        shape: what the catalog said of the members, as one text (`postgres.fingerprint`).
        unfollowed_tables: parents of keys that are not followed, where by the policy no row refers; by oid.
    """

    root: Table
    tables: tuple[Table, ...]
    followed: tuple[ForeignKey, ...]
    cleared: tuple[ForeignKey, ...]
    unindexed: tuple[ForeignKey, ...]
    members: dict[int, Table]
    shape: str
    unfollowed_tables: frozenset[int] = frozenset()
    unvalidated: tuple[ForeignKey, ...] = ()

    def keys_to_parents(self, table: Table) -> tuple[ForeignKey, ...]:
        """The followed keys from a table to its parents, self-references left out."""
        return tuple(key for key in self.followed if key.child == table.oid != key.parent)

    def self_references(self, table: Table) -> tuple[ForeignKey, ...]:
        return tuple(key for key in self.followed if key.child == table.oid == key.parent)

    def referred_columns(self, table: Table) -> tuple[str, ...]:
        """The columns by which other rows refer to rows of a table; its key if none do."""
        keys = (*self.followed, *self.cleared)
        return tuple(sorted({name for key in keys if key.parent == table.oid for name in key.targets})) or table.key

    def is_leaf(self, table: Table) -> bool:
        """Whether nothing refers to the table's rows or changes them, so that they need not be read beforehand."""
        return not (
            table is self.root
            or table.has_delete_trigger
            or table.oid in self.unfollowed_tables
            or self.is_cleared_before_delete(table)
            or any(key.parent == table.oid for key in (*self.followed, *self.cleared))
        )

    @cached_property
    def shared(self) -> frozenset[int]:
        """The tables of which a row may depend on several roots, by oid."""
        found: set[int] = set()
        for table in self.tables:
            keys = self.keys_to_parents(table)
            if self.self_references(table) or len(keys) > 1 or any(key.parent in found for key in keys):
                found.add(table.oid)
        return frozenset(found)

    def loses_references_to(self, table: Table) -> tuple[ForeignKey, ...]:
        """The keys that are cleared when rows of a table are deleted."""
        return tuple(key for key in self.cleared if key.parent == table.oid)

    def is_cleared_before_delete(self, table: Table) -> bool:
        """Whether deleting from a table below changes this one's rows, so that they must be copied beforehand."""
        order = [member.oid for member in self.tables]
        return any(
            key.child == table.oid != key.parent and order.index(key.parent) > order.index(table.oid)
            for key in self.cleared
        )

    def is_changed_before_delete(self, table: Table) -> bool:
        """Whether a table's rows must be copied before any row is deleted: keys or triggers may change them by then."""
        return self.is_cleared_before_delete(table) or any(member.delete_triggers for member in self.tables)

    def owner_keys(self, table: Table) -> tuple[ForeignKey, ...]:
        """The keys from a table to those of its parents that are nearest to the root: they say whose its rows are.

        Empty if there are no others, by which a row could be reached that belongs to another.
        """
        keys = [key for key in self.followed if key.child == table.oid]
        nearest = min((len(self.paths[key.parent]) for key in keys), default=0)
        owners = tuple(key for key in keys if len(self.paths[key.parent]) == nearest and key.parent != table.oid)
        return owners if len(owners) < len(keys) else ()

    @cached_property
    def paths(self) -> dict[int, tuple[ForeignKey, ...]]:
        """The keys that lead from the root to each table, as few as possible, by the oid of the table."""
        found: dict[int, tuple[ForeignKey, ...]] = {self.root.oid: ()}
        queue = [self.root.oid]
        for parent in queue:
            for key in self.followed:
                if key.parent == parent and key.child not in found:
                    found[key.child] = (*found[parent], key)
                    queue.append(key.child)
        return found

    def describe(self) -> str:
        """One line for the log."""
        below = [table.label for table in self.tables if table is not self.root]
        return self.root.label + (f" with {', '.join(below)}" if below else "")

    def warnings(self) -> list[str]:
        """What to know before trusting the plan."""
        undeclared = [
            f"{self.members[key.child].label}.{key.columns[0]} is not declared as a key to "
            f"{self.members[key.parent].label}: a row that is written while its parent is deleted remains as an orphan"
            for key in self.followed
            if not key.declared
        ]
        slow = [
            f"{self.members[key.child].label} ({', '.join(key.columns)}) has no index: each row of "
            f"{self.members[key.parent].label} that is deleted costs a scan of it"
            for key in self.unindexed
        ]
        triggers = [
            f"{', '.join(table.delete_triggers)} of {table.label} acts on the deletion of its rows: a run is refused if"
            " it deletes rows of tables that are not under allowed_deletions"
            for table in self.tables
            if table.delete_triggers
        ]
        insertions = [
            f"{', '.join(table.before_insert_triggers)} of {table.label} may change or refuse what an undo inserts: a"
            " run is refused if its rehearsal shows that it does"
            for table in self.tables
            if table.before_insert_triggers
        ]
        unvalidated = [
            f"{key.name} is NOT VALID: an undo brings a row without its parent back only if the role may set"
            " session_replication_role; a run is refused if its rehearsal shows that it may not"
            for key in self.unvalidated
        ]
        return undeclared + slow + triggers + insertions + unvalidated


def make_plan(
    catalog: Catalog,
    root: Table,
    undeclared: Iterable[ForeignKey] = (),
    follows: Callable[[ForeignKey], bool] | None = None,
) -> Plan:
    """Follow the keys from `root`.

    What the plan says is of one moment if the transaction is REPEATABLE READ.

    Args:
        undeclared: keys that the application has and the database does not declare.
        follows: whether to follow a key; rows that refer by another one make the database refuse the delete.

    Raises:
        Refused: the keys form a cycle, or rows of a table cannot be moved to the trash.
    """
    known = (*catalog.foreign_keys, *undeclared)
    keys = [key for key in known if follows is None or follows(key)]
    reached = {root.oid}
    queue = [root.oid]
    while queue:
        parent = queue.pop()
        for key in keys:
            if key.parent == parent and not key.clears and key.child not in reached:
                reached.add(key.child)
                queue.append(key.child)
    followed = tuple(key for key in keys if key.parent in reached and not key.clears)
    cleared = tuple(key for key in keys if key.parent in reached and key.clears)
    for key in (*followed, *cleared):
        if key.problem is not None:
            raise Refused(
                f"{catalog.table(key.child).label} refers to {catalog.table(key.parent).label} by {key.name}, which"
                f" cannot be followed: {key.problem}"
            )
    tables = {oid: catalog.table(oid) for oid in reached}
    for table in tables.values():
        _check_movable(table)
    sorter: TopologicalSorter[int] = TopologicalSorter({oid: set() for oid in sorted(reached)})
    for key in followed:
        if key.child != key.parent:
            sorter.add(key.child, key.parent)
    try:
        order = [tables[oid] for oid in sorter.static_order()]
    except CycleError as error:
        cycle = " -> ".join(tables[oid].label for oid in error.args[1])
        raise Refused(
            f"the keys {cycle} form a cycle, so no row of {root.label} can be deleted before another",
            hint="declare one of these keys ON DELETE SET NULL",
        ) from None
    members = {oid: catalog.table(oid) for oid in reached | {key.child for key in cleared}}
    plan = Plan(
        root=root,
        tables=tuple(order),
        followed=followed,
        cleared=cleared,
        unindexed=tuple(key for key in (*followed, *cleared) if not catalog.is_indexed(key)),
        members=members,
        shape=shape(catalog.connection, members),
        unfollowed_tables=frozenset(key.parent for key in known if key.parent in reached and key not in keys),
        unvalidated=tuple(key for key in catalog.foreign_keys if key.child in reached and not key.validated),
    )
    for key in cleared:
        child = catalog.table(key.child)
        if not child.has_key:
            raise Refused(
                f"{child.label} has no primary key, so what {key.name} clears could not be restored",
                hint=f"give {child.label} a primary key",
            )
    for table in order:
        if plan.is_cleared_before_delete(table) and not table.has_key:
            raise Refused(
                f"{table.label} has no primary key, and a key of it is cleared while its rows are deleted",
                hint=f"give {table.label} a primary key",
            )
    return plan


def _check_movable(table: Table) -> None:
    if table.inherited:
        raise Refused(f"other tables inherit from {table.label}: their own columns would be lost")
    if table.kind not in ("table", "partitioned table"):
        raise Refused(f"{table.label} is a {table.kind}: its rows cannot be locked and moved to the trash")
    if table.kind == "partitioned table" and not table.has_key:
        raise Refused(
            f"{table.label} is partitioned and has no key that identifies a row",
            hint=f"give {table.label} a primary key",
        )
