"""References to files: columns whose values name files, as SQL that finds most of the names where the rows are.

Most values are plain: a path from the store's root with nothing to decode. PostgreSQL makes the key of these, the name
that they mean. Every other value has no key, and is read by `Naming.read`, which is many times slower.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from housekeeping_pipelines.postgres.catalog import PgType
from housekeeping_pipelines.stores.readings import Naming, Reading, canonical
from housekeeping_pipelines.stores.slugs import names_on_disk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from housekeeping_pipelines.postgres.catalog import Table

Value: TypeAlias = sa.ColumnElement[str]

# How a column holds its values: one each as text, several as an array, or anywhere in a JSON document.
Shape: TypeAlias = Literal["text", "array", "json"]

# `path`: the value is a path or an address; `slug`: it is the name before AnythingLLM made a file's name of it;
# `exact`: it is the name itself.
Transform: TypeAlias = Literal["path", "slug", "exact"]

# What a plain value has none of: characters that may be encoded, quoted or separators; a part that is empty or begins
# with a dot; a slash at the end; a scheme; a drive. In the collation C, a class is of ASCII, and takes less time than
# ranges.
_NOT_PLAIN = r"[^[:alnum:]._@~:/-]|/[./]|^[./]|/$|:/|^.:"

# What a name has none of from which AnythingLLM makes the same name.
_NOT_ITS_OWN_SLUG = "[^A-Za-z0-9._@~-]|--|^[-.]|-$"


@dataclass(frozen=True)
class ReferenceSource:
    """A column whose values refer to files.

    Attributes:
        rows: the table, or a selection of its rows.
        column: its name in the database.
        label: the column in messages: `detections.file_path`.
        json_path: what selects the values in a JSON document, in SQL/JSON.
        template: the name, with `{}` in the place of the value; None: the value is the name.
        guarded: False for what keeps files in addition: rows in the trash, outputs that are kept.
    """

    rows: sa.FromClause
    column: str
    label: str
    naming: Naming = field(default_factory=Naming)
    shape: Shape = "text"
    transform: Transform = "path"
    json_path: str | None = None
    template: str | None = None
    guarded: bool = True

    @classmethod
    def of(cls, table: Table, column: str, **more: Any) -> ReferenceSource:
        """A column of one of the platform's tables."""
        return cls(table.selectable, column, f"{table.label}.{column}", **more)

    def elsewhere(self, rows: sa.FromClause, label: str) -> ReferenceSource:
        """The same column of rows that have been deleted, which are kept from guards."""
        return replace(self, rows=rows, label=label, guarded=False)

    def values(self) -> sa.Subquery:
        """Every value in the column `value`, as text in the collation C; there is no null, and no empty text."""
        stored: sa.ColumnElement[Any] = self.rows.c[self.column]
        if self.json_path is not None:
            path = sa.cast(self.json_path, PgType("jsonpath"))
            found = sa.func.jsonb_path_query(sa.cast(stored, JSONB), path)
            stored = found.op("#>>")(sa.cast([], ARRAY(sa.Text)))
        elif self.shape == "array":
            stored = sa.func.unnest(stored)
        # Types such as `name` and `character` compare by rules of their own.
        inner = sa.select(sa.cast(stored, sa.Text).label("value")).select_from(self.rows).subquery()
        value: Value = inner.c.value
        if self.template is not None:
            before, _, after = self.template.partition("{}")
            value = sa.literal(before).concat(value).concat(after)
        # This excludes null too.
        return sa.select(sa.collate(value, "C").label("value")).where(inner.c.value != "").subquery()

    def read(self, value: str) -> list[Reading]:
        """The readings of one of its values, the likeliest first."""
        if self.transform == "exact":
            return [Reading({canonical(value)})]
        readings = self.naming.read(value)
        if self.transform == "path":
            return readings
        return [
            Reading({canonical(name) for known in each.names() for name in names_on_disk(known)}) for each in readings
        ]


class Root(NamedTuple):
    """A store's folder, and what else means the same."""

    folder: Path | None = None
    own_names: Sequence[str] = ()
    others: Sequence[str] = ()


def naming(root: Root) -> Naming:
    """How the files of a store are named in rows.

    Args:
        root: `others` are absolute paths, also of Windows, that mean the folder or bucket elsewhere.
    """
    roots: list[str] = []
    own_names = list(root.own_names)
    if root.folder is not None:
        # Not `Path.resolve`, which looks at links: `..` is resolved in the text of a value.
        lexical = os.path.abspath(root.folder)  # noqa: PTH100
        roots += [lexical, os.path.realpath(root.folder)]
        own_names += [Path(each).name for each in roots]
    roots += [other.replace("\\", "/") for other in root.others]
    return Naming(
        tuple(dict.fromkeys(canonical(each).rstrip("/") for each in roots if each.rstrip("/"))),
        tuple(dict.fromkeys(canonical(each) for each in own_names if each)),
    )


def reference_keys(sources: Sequence[ReferenceSource]) -> sa.CompoundSelect[Any]:
    """A row for each value of every source.

    The columns: `source` is the index in `sources`; `key` a name, or null where the value has to be read; `value` the
    value, or null where it is the key; `certain` is true if the value can mean nothing but its key.

    Raises:
        ValueError: there is no source.
    """
    if not sources:
        raise ValueError("no reference source")
    return sa.union_all(*(_keys(index, source) for index, source in enumerate(sources)))


def count_values(connection: sa.Connection, source: ReferenceSource) -> int:
    """How many values a source has."""
    return connection.scalar(sa.select(sa.func.count()).select_from(source.values())) or 0


def _keys(index: int, source: ReferenceSource) -> sa.Select[Any]:
    number = sa.literal(index, sa.Integer).label("source")
    values = source.values()
    if source.transform == "exact":
        nothing, true = sa.cast(sa.null(), sa.Text), sa.true().label("certain")
        return sa.select(number, values.c.value.label("key"), nothing.label("value"), true)
    value: Value = values.c.value
    if source.transform == "slug":
        base = value
        certain: sa.ColumnElement[bool] = sa.literal(True)
        plain = sa.not_(value.regexp_match(_NOT_ITS_OWN_SLUG))
    else:
        base, certain = _below_root(value, source.naming.roots)
        plain = _is_plain(base, source.naming)
    # OFFSET keeps the planner from evaluating the expressions once for each place where they are used.
    parts = sa.select(value, base.label("base"), certain.label("certain"), plain.label("plain")).offset(0)
    each = parts.subquery()
    return sa.select(
        number,
        sa.case((each.c.plain, each.c.base)).label("key"),
        sa.case((sa.and_(each.c.plain, each.c.value == each.c.base), sa.null()), else_=each.c.value).label("value"),
        sa.and_(each.c.certain, each.c.plain).label("certain"),
    )


def _below_root(value: Value, roots: Sequence[str]) -> tuple[Value, sa.ColumnElement[bool]]:
    """The part of a value below a root, and whether it begins with one; else the value without its leading slash."""
    posix = [f"{root}/" for root in roots if root.startswith("/")]
    absolute, rest = sa.func.starts_with(value, "/"), sa.func.substr(value, 2)
    if not posix:
        return sa.case((absolute, rest), else_=value), sa.literal(False)
    below = [(sa.func.starts_with(value, root), sa.func.substr(value, len(root) + 1)) for root in posix]
    # Most values are relative: these need one look alone.
    base = sa.case((sa.not_(absolute), value), *below, else_=rest)
    return base, sa.and_(absolute, sa.or_(*(begins for begins, _ in below)))


def _is_plain(base: Value, naming: Naming) -> sa.ColumnElement[bool]:
    """Whether a value means its base, or a suffix of it, and nothing else."""
    own = [sa.func.starts_with(base, f"{name}/") for name in naming.own_names]
    return sa.and_(sa.not_(base.regexp_match(_NOT_PLAIN)), *(sa.not_(each) for each in own))
