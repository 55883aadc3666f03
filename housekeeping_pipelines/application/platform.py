"""The platform in the live database: the mapping of `housekeeping.yaml` resolved against the catalog."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import sqlalchemy as sa

from housekeeping_pipelines.application import tables
from housekeeping_pipelines.application.config import load_config
from housekeeping_pipelines.errors import Absent, ConfigurationError
from housekeeping_pipelines.postgres.catalog import Catalog, ForeignKey, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from housekeeping_pipelines.application.config import HousekeepingConfig
    from housekeeping_pipelines.settings import Settings


_Refers: TypeAlias = "Callable[[sa.ColumnElement[Any], sa.ColumnElement[Any]], sa.ColumnElement[bool]]"


@dataclass(frozen=True)
class MappedTable:
    """One of the platform's tables in the live database; `names` maps our column names to theirs, or to None."""

    ours: str
    live: Table
    names: dict[str, str | None]

    def get(self, column: str) -> sa.ColumnElement[Any] | None:
        """The column with our name for it; None if the live table lacks it."""
        name = self.names[column]
        return None if name is None else self.live.selectable.c[name]

    def __getitem__(self, column: str) -> sa.ColumnElement[Any]:
        """The column with our name for it.

        Raises:
            Absent: the live table lacks it.
        """
        found = self.get(column)
        if found is None:
            raise Absent(
                f"{self.live.label} has no column for {self.ours}.{column}",
                hint=f"map it under tables.{self.ours}.columns in housekeeping.yaml",
            )
        return found


class Platform:
    """The platform's tables, resolved on access."""

    def __init__(self, catalog: Catalog, config: HousekeepingConfig) -> None:
        self.catalog = catalog
        self.config = config

    @classmethod
    def on(cls, connection: sa.Connection, settings: Settings) -> Self:
        """The platform in the database of a connection, mapped as `housekeeping.yaml` says.

        Raises:
            ConfigurationError: the file is not of its form.
        """
        return cls(Catalog(connection), load_config(settings))

    def table(self, ours: str) -> MappedTable:
        """The table with our name for it.

        Raises:
            Absent: the live database has no such table or lacks a column; suggests the nearest names.
            ConfigurationError: it lacks one that the mapping names or has to declare, or a column is of another type.
        """
        mapping = self.config.tables.get(ours)
        name = (mapping and mapping.name) or ours
        live = self.catalog.find(name)
        hint = f"map it under tables.{ours} in housekeeping.yaml"
        if live is None:
            kind = Absent if mapping is None or mapping.name is None else ConfigurationError
            raise kind(f"there is no table {name}{self.catalog.nearest(name)}", hint=hint)
        given = mapping.columns if mapping else {}
        optional = tables.OPTIONAL_COLUMNS.get(ours, {})
        existing = {column.name for column in live.columns}
        names: dict[str, str | None] = {}
        expected = {given.get(column.name, column.name) for column in tables.metadata.tables[ours].columns}
        for column in tables.metadata.tables[ours].columns:
            theirs = given.get(column.name, column.name)
            if theirs is None or theirs in existing:
                names[column.name] = theirs
                if theirs is not None and optional.get(column.name) != "not needed":
                    _check_type(live, theirs, column)
            elif column.name in optional and column.name not in given:
                if _must_be_declared(ours, column.name, live, expected):
                    raise ConfigurationError(
                        f"{live.label} has no column {column.name}{live.nearest(column.name)}",
                        hint=f"map it under tables.{ours}.columns in housekeeping.yaml, or map it to null",
                    )
                names[column.name] = None
            else:
                kind = ConfigurationError if column.name in given else Absent
                raise kind(
                    f"{live.label} has no column {theirs}{live.nearest(theirs)}",
                    hint=f"map it under tables.{ours}.columns in housekeeping.yaml",
                )
        return MappedTable(ours, live, names)

    def find(self, ours: str) -> MappedTable | None:
        """The table with our name for it; None if the live database has no such table."""
        try:
            return self.table(ours)
        except ConfigurationError:
            return None

    def any_table(self, name: str) -> Table:
        """A table by its real name, or else by our name for it.

        Raises:
            ConfigurationError: the live database has no such table.
        """
        live = self.catalog.find(name)
        if live is None and name in tables.metadata.tables and (mapped := self.find(name)):
            live = mapped.live
        if live is None:
            raise ConfigurationError(
                f"there is no table {name}{self.catalog.nearest(name)}", hint="name it table, or schema.table"
            )
        return live

    def refers(self, child: MappedTable, column: str, parent: MappedTable, target: str) -> _Refers:
        """How a column refers to another, compared as PostgreSQL's own key would compare them."""
        theirs, wanted = child.names[column], parent.names[target]
        assert theirs is not None  # noqa: S101 - the caller has used the columns
        assert wanted is not None  # noqa: S101
        comparison = self.catalog.comparison(child.live.column(theirs), parent.live.column(wanted))
        return operator.eq if comparison is None else comparison.compare

    def also_deleted(self) -> tuple[Table, ...]:
        """The tables of which triggers may delete further rows.

        Raises:
            ConfigurationError: the live database has no such table.
        """
        return tuple(self.any_table(name) for name in self.config.allowed_deletions)

    def without_undo(self) -> tuple[Table, ...]:
        """The tables whose rows need not come back.

        Raises:
            ConfigurationError: the live database has no such table.
        """
        return tuple(self.any_table(name) for name in self.config.without_undo)

    def undeclared_keys(self) -> tuple[ForeignKey, ...]:
        """The application's keys that the live database does not declare."""
        found: list[ForeignKey] = []
        for ours in tables.metadata.sorted_tables:
            for key in ours.foreign_keys:
                child, parent = self.find(ours.name), self.find(key.column.table.name)
                if child is None or parent is None:
                    continue
                column, target = child.names[key.parent.name], parent.names[key.column.name]
                if column is None or target is None:
                    continue
                declared = any(
                    known.child == child.live.oid and known.parent == parent.live.oid and column in known.columns
                    for known in self.catalog.foreign_keys
                )
                if not declared:
                    name = f"{child.live.name}.{column}"
                    comparison = self.catalog.comparison(child.live.column(column), parent.live.column(target))
                    problem = None
                    if not self.catalog.is_unique(parent.live, [target]):
                        problem = f"{parent.live.label}.{target} is not unique, so a value of it is not one row's"
                    found.append(
                        ForeignKey(
                            name,
                            child.live.oid,
                            (column,),
                            parent.live.oid,
                            (target,),
                            "no action",
                            declared=False,
                            problem=problem,
                            comparisons=() if comparison is None else (comparison,),
                        )
                    )
        return tuple(found)


def _check_type(live: Table, theirs: str, ours: sa.Column[Any]) -> None:
    """
    Raises:
        ConfigurationError: a moment is to be read from a column of another type, or a flag is.
    """
    found = live.type_of(theirs)
    if isinstance(ours.type, sa.DateTime):
        wanted, fits = "a date or a timestamp", live.holds_moments(theirs)
        # A platform may have a flag in the place of this moment.
        fits |= ours.name == "email_verified_at" and found == "boolean"
    elif isinstance(ours.type, sa.Boolean):
        wanted, fits = "a boolean", found == "boolean"
    else:
        return
    if not fits:
        raise ConfigurationError(
            f"{live.label}.{theirs} is {found}, and {ours.table.name}.{ours.name} is {wanted}",
            hint=f"map another column under tables.{ours.table.name}.columns in housekeeping.yaml, or null",
        )


def _must_be_declared(ours: str, column: str, live: Table, expected: Collection[str | None]) -> bool:
    """Whether an optional column may exist under another name, and would keep something."""
    if column in tables.FILE_COLUMNS.get(ours, ()):
        return True
    return column in tables.KEEPING_COLUMNS.get(ours, ()) and bool(live.similar(column, expected))
