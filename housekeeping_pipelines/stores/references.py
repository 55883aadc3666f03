"""References to files: columns of the platform's tables, and how their values become file names.

A transform is an SQL expression over the column's text, so that files are compared in the database, where the rows are.
If a value may stand for several names, each is a key: a superfluous key keeps a file, a lacking one would delete it.
Keys are compared byte by byte; apart from the slug, neither case nor Unicode form is normalized.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, array

from housekeeping_pipelines.stores import slugs

if TYPE_CHECKING:
    from housekeeping_pipelines.postgres.catalog import Table

Value: TypeAlias = sa.ColumnElement[str]


# Returns the names that a value stands for, each an expression over it; null and the empty string are not names.
Transform: TypeAlias = Callable[[Value], Sequence[Value]]


def exact(value: Value) -> Sequence[Value]:
    """The value itself is the name."""
    return [value]


@dataclass(frozen=True)
class ReferenceSource:
    """A column whose values refer to files.

    Attributes:
        column: its name in the database.
    """

    table: Table
    column: str
    transform: Transform = exact

    @property
    def label(self) -> str:
        """The column in messages: `detections.file_path`."""
        return f"{self.table.label}.{self.column}"


slugify: Transform = slugs.names_on_disk


def join_to_root(root: Path) -> Transform:
    """Turns a path, absolute or relative to `root`, into the name under it; a path that leads out of it is not a name.

    `.`, `..` and `//` are resolved in the text. An absolute path may also begin with the root's real path.
    """
    lexical = os.path.abspath(root)  # noqa: PTH100 - resolves '..' as the expressions do, without looking at links
    aliases = list(dict.fromkeys([lexical, os.path.realpath(root)]))
    return lambda value: [_under(alias.rstrip("/"), value, first=alias == lexical) for alias in aliases]


def reference_keys(sources: Sequence[ReferenceSource]) -> sa.CompoundSelect[Any]:
    """Every key of every source in the column `key`; keys may be null, and may repeat.

    `value` is the value that the key was made from, and `names` the number of its different keys; they are null and 1
    where the transform yields a single key.

    Raises:
        ValueError: there is no source.
    """
    if not sources:
        raise ValueError("no reference source")
    return sa.union_all(*(_keys(source) for source in sources))


def referred_to(connection: sa.Connection, sources: Sequence[ReferenceSource], names: Sequence[str]) -> set[str]:
    """Those of the names that a row refers to now, by one statement in the connection's transaction."""
    keys = reference_keys(sources).subquery()
    wanted = sa.bindparam("names", list(names), ARRAY(sa.Text))
    return set(connection.scalars(sa.select(keys.c.key).where(keys.c.key == sa.any_(wanted)).distinct()))


def _keys(source: ReferenceSource) -> sa.Select[Any]:
    """The keys of one source, cast to text: types such as `name` and `character` compare by rules of their own."""
    stored: sa.ColumnElement[Any] = source.table.selectable.c[source.column]
    texts = sa.select(sa.collate(sa.cast(stored, sa.Text), "C").label("value")).select_from(source.table.selectable)
    value = texts.subquery().c.value
    # This excludes null too, which would be slow to resolve.
    given = value != ""
    keys = [sa.func.nullif(key, "") for key in source.transform(value)]
    if len(keys) == 1:
        # Naming the expression twice would evaluate it twice.
        return sa.select(
            keys[0].label("key"), sa.cast(sa.null(), sa.Text).label("value"), sa.literal(1).label("names")
        ).where(given)
    each = sa.func.unnest(array(keys)).table_valued("name", name="each").render_derived()
    names = sa.select(sa.func.count(each.c.name.distinct())).scalar_subquery()
    return sa.select(sa.func.unnest(array(keys)).label("key"), value.label("value"), names.label("names")).where(given)


def _under(root: str, value: Value, *, first: bool) -> Value:
    """The name under `root` of a path that is absolute or relative to it; null if the path is not under `root`.

    Args:
        first: whether to return a relative path with nothing to resolve; it is the same under every alias of `root`.
    """
    inside = root + "/"
    rest = sa.func.substr(value, len(inside) + 1)
    absolute = sa.func.starts_with(value, "/")
    resolved = _resolved(sa.case((absolute, value), else_=sa.literal(inside).concat(value)))
    # Most paths have nothing to resolve; testing for that takes a fraction of the time of resolving.
    return sa.case(
        (_plain(value), value if first else sa.null()),
        (sa.and_(sa.func.starts_with(value, inside), _plain(rest)), rest),
        (sa.and_(absolute, _plain(sa.func.substr(value, 2))), sa.null()),
        (sa.func.starts_with(resolved, inside), sa.func.substr(resolved, len(inside) + 1)),
        else_=sa.null(),
    )


def _plain(path: Value) -> sa.ColumnElement[bool]:
    """Whether a path is relative, and none of its parts is empty or begins with a dot."""
    between = sa.literal("/").concat(path).concat("/")
    return sa.and_(between.not_like("%//%"), between.not_like("%/.%"))


def _resolved(path: Value) -> Value:
    """An absolute path without `.`, `..` and `//`.

    A part is kept if the path never again rises above it. The depth of a part is the number of parts before it less the
    number of `..`; a `..` at the root has no effect.
    """
    parts = sa.func.unnest(sa.func.string_to_array(path, "/")).table_valued(
        sa.column("part", sa.Text), with_ordinality="place", name="parts"
    ).render_derived()  # fmt: skip
    step = sa.case((parts.c.part == "..", -1), else_=1)
    heights = (
        sa.select(parts.c.part, parts.c.place, sa.func.sum(step).over(order_by=parts.c.place).label("height"))
        .where(parts.c.part.not_in(["", "."]))
        .subquery()
    )
    lowest = sa.func.min(heights.c.height).over(order_by=heights.c.place)
    depths = sa.select(
        heights.c.part, heights.c.place, (heights.c.height - sa.func.least(0, lowest)).label("depth")
    ).subquery()
    later = sa.func.min(depths.c.depth).over(order_by=depths.c.place, rows=(1, None))
    walk = sa.select(depths.c.part, depths.c.place, depths.c.depth, later.label("later")).subquery()
    kept = sa.func.string_agg(walk.c.part, aggregate_order_by(sa.literal("/"), walk.c.place))
    stays = sa.and_(walk.c.part != "..", sa.func.coalesce(walk.c.later >= walk.c.depth, sa.true()))
    return sa.literal("/").concat(sa.select(kept).where(stays).scalar_subquery())
