"""Which of some names rows refer to now, and which files some values mean: asked right before files are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.deletion.store import InUse
from housekeeping_pipelines.stores.readings import canonical, spellings
from housekeeping_pipelines.stores.readings import meant as meant_by
from housekeeping_pipelines.stores.references import reference_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from housekeeping_pipelines.stores.readings import Naming
    from housekeeping_pipelines.stores.references import ReferenceSource

# Values fetched from the server at a time.
FETCH_SIZE = 10_000


def in_use(connection: sa.Connection, sources: Sequence[ReferenceSource], names: Sequence[str]) -> InUse:
    """What rows refer to, of the names, by statements in the connection's transaction."""
    asked = _Asked(names)
    keys = reference_keys(sources).subquery()
    exact = sa.select(keys.c.key).where(keys.c.key == sa.any_(_texts(asked.canonical))).distinct()
    for key in connection.scalars(exact):
        asked.found(key)
    for depth, of_depth in asked.by_depth().items():
        _find_suffixes(connection, keys, depth, of_depth, asked)
    to_be_read = sa.select(keys.c.source, keys.c.value).where(keys.c.key.is_(None))
    with connection.execute(to_be_read.execution_options(yield_per=FETCH_SIZE)) as rows:
        for row in rows:
            _read(sources[row.source], row.value, asked)
    return asked.answer


def meant(
    naming: Naming, values: Collection[str], stored: Callable[[Collection[str]], set[str]]
) -> dict[str, set[str]]:
    """The names in a store that each value means.

    Args:
        stored: returns those of some names that the store has.
    """
    readings = {value: naming.read(value) for value in values}
    there: dict[str, set[str]] = {}

    def ask(names: Iterable[str]) -> None:
        forms = {form: name for name in names for form in spellings(name)}
        for form in stored(forms) if forms else ():
            there.setdefault(forms[form], set()).add(form)

    def decide(value: str) -> set[str]:
        names = meant_by(readings[value], there)
        return {form for name in names for form in there[name]}

    # Nearly every value is a name as it is, or by its first reading: the others are asked about only if need be.
    ask({name for each in readings.values() for reading in each[:1] for name in reading.likely()})
    unknown = [value for value in values if not decide(value)]
    ask({name for value in unknown for reading in readings[value] for name in reading.names()} - there.keys())
    return {value: decide(value) for value in values}


class _Asked:
    """The names, by their canonical form, and what is known of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.answer = InUse()
        self.canonical: dict[str, list[str]] = {}
        for name in names:
            self.canonical.setdefault(canonical(name), []).append(name)

    def by_depth(self) -> dict[int, list[str]]:
        """The names in canonical form by the number of their parts."""
        found: dict[int, list[str]] = {}
        for name in self.canonical:
            found.setdefault(name.count("/") + 1, []).append(name)
        return found

    def found(self, name: str, unless: Collection[str] = ()) -> None:
        """A name is meant, or would be if the store had none of `unless`."""
        for asked in self.canonical.get(name, ()):
            if unless:
                longer = frozenset(form for each in unless for form in spellings(each))
                self.answer.unless.setdefault(asked, []).append(longer)
            else:
                self.answer.names.add(asked)


def _find_suffixes(
    connection: sa.Connection, keys: sa.Subquery, depth: int, names: Iterable[str], asked: _Asked
) -> None:
    """Plain values whose last parts are one of the names: they may be paths from another root."""
    last = sa.func.substring(keys.c.key, rf"([^/]+(?:/[^/]+){{{depth - 1}}})$")
    longer = sa.select(keys.c.key, last).where(
        sa.not_(keys.c.certain), last == sa.any_(_texts(names)), keys.c.key != last
    )
    for key, name in connection.execute(longer.distinct()):
        parts = key.split("/")
        asked.found(name, ["/".join(parts[start:]) for start in range(len(parts) - depth)])


def _read(source: ReferenceSource, value: str, asked: _Asked) -> None:
    likelier: set[str] = set()
    for reading in source.read(value):
        names = reading.names()
        if not names.isdisjoint(asked.canonical):
            for name in reading.exact & asked.canonical.keys():
                asked.found(name, likelier)
            for chain in reading.chains:
                for index, name in enumerate(chain):
                    asked.found(name, likelier.union(chain[:index]))
        likelier |= reading.literal


def _texts(values: Iterable[str]) -> sa.BindParameter[Any]:
    return sa.bindparam(None, list(values), ARRAY(sa.Text), unique=True)
