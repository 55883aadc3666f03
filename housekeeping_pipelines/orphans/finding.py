"""Which files nothing refers to, found in the database: the store's listing against every reference source.

The references are read in one snapshot that begins after the listing has ended, so that a file whose row was inserted
meanwhile is not an orphan. Nothing is deleted here, and nothing but temporary tables is written. Memory does not grow
with the number of files or references.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.deletion.guards import SourceCount
from housekeeping_pipelines.orphans import candidates, cursors, listing, unmatched, values
from housekeeping_pipelines.orphans.age_filter import AgeFilter
from housekeeping_pipelines.orphans.candidates import Findings, Orphans
from housekeeping_pipelines.orphans.values import Missing
from housekeeping_pipelines.stores.references import count_values, reference_keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from housekeeping_pipelines.orphans.search import FindKept, Scan
    from housekeeping_pipelines.stores.references import ReferenceSource

# Candidates per call of `find_kept`.
KEEP_BATCH_SIZE = 20_000
# Values that are looked up to learn whether a source names files of a store of which only a folder is listed.
LOOKED_UP = 200
# References without a file are warned of from so many on, and from this share of a source's values.
MANY_MISSING, MANY_MISSING_SHARE = 10, 0.1


def find_orphans(connection: sa.Connection, scan: Scan) -> Orphans:
    """Find the files that nothing refers to, and the references that have no file.

    Args:
        connection: a dedicated session, whose temporary tables hold the result; its transaction is committed.

    Raises:
        Refused: a guard.
        ValueError: there is no source.
        sqlalchemy.exc.DBAPIError: the references cannot be read, so nothing is known to be an orphan.
        Unavailable, StorageRefused, ConfigurationError: the store cannot be listed completely.
    """
    storage = scan.storage
    keys = reference_keys(scan.sources)
    storage.check()
    cursors.end_transaction(connection)
    listing.create(
        connection, [unmatched.LISTING, unmatched.UNMATCHED, candidates.ORPHANS, candidates.YOUNG, *values.TABLES]
    )
    listed = listing.load_listing(connection, storage, unmatched.LISTING, scan.kind, scan.on_scanned)
    by_name = storage if isinstance(storage, listing.NamesInChunks) else None
    if by_name is not None:
        guards.check_no_inner_links(storage.label, by_name.inner_links)
    if not listed.scanned:
        return Orphans(connection, scan, Findings())
    with closing(AgeFilter(connection, scan.floor, None if by_name is None else by_name.examine)) as age_filter:
        with unmatched.snapshot(connection):
            age_filter.feed(unmatched.match(keys, scan.kind))
            totals = {
                index: count_values(connection, source) for index, source in enumerate(scan.sources) if source.guarded
            }
        age_filter.finish()
    values.read_unmatched(connection, scan.sources)
    with connection.begin():
        missing = values.missing(connection, scan.sources, scan.kind.prefix)
        volumes = {} if by_name is None else unmatched.count_on_volumes(connection, scan.kind, by_name.volumes)
        unrecognised = unmatched.count_unrecognised(connection)
        unmatched.LISTING.drop(connection, checkfirst=False)
    sources = [_count(connection, scan, index, total, missing) for index, total in totals.items()]
    labels = {source.label for source in sources}
    sources += [
        SourceCount(label, 0, 0, named_before=moment, declared=False)
        for label, moment in scan.named_before.items()
        if label not in labels
    ]
    scan.check_sources(sources, storage.label, scan.limits)
    for volume, total in volumes.items():
        with cursors.transaction(connection):
            unnamed = sum(candidates.count(connection, each, volume) for each in (candidates.ORPHANS, candidates.YOUNG))
        guards.check_volume(f"{storage.label}/{volume}", total, unnamed, scan.limits)
    kept = _strike_kept(connection, scan.find_kept)
    with cursors.transaction(connection):
        orphaned = candidates.count(connection, candidates.ORPHANS)
        young = candidates.count(connection, candidates.YOUNG)
    findings = Findings(
        scanned=listed.scanned,
        orphaned=orphaned,
        young=young,
        unrecognised=unrecognised + listed.unreadable + kept.excluded,
        held=kept.held,
        in_use=kept.in_use,
        missing_count=sum(each.values for each in missing.values()),
        missing=_samples(missing),
        sources=tuple(sources),
        warnings=(*_warnings(listed), *_warnings_of_missing(sources, storage.label)),
    )
    scan.check_share(f"entries of {storage.label}", findings.orphaned, listed.recognised, scan.limits)
    for volume, total in volumes.items():
        with cursors.transaction(connection):
            there = candidates.count(connection, candidates.ORPHANS, volume)
        scan.check_share(f"entries of {storage.label}/{volume}", there, total, scan.limits)
    return Orphans(connection, scan, findings)


def _count(
    connection: sa.Connection, scan: Scan, index: int, total: int, missing: Mapping[int, Missing]
) -> SourceCount:
    source, without_file = scan.sources[index], missing.get(index, Missing())
    named = total - without_file.rows
    if scan.kind.prefix:
        # Nothing is known of values that name files outside the prefix.
        named = total if _names_anything(connection, scan, source) else 0
    return SourceCount(source.label, total, named, without_file.sample[:3], scan.named_before.get(source.label))


def _names_anything(connection: sa.Connection, scan: Scan, source: ReferenceSource) -> bool:
    with cursors.transaction(connection):
        some = connection.scalars(sa.select(source.values().c.value).limit(LOOKED_UP)).all()
    names = {name for value in some for reading in source.read(value) for name in reading.names()}
    return bool(scan.stored(names))


def _strike_kept(connection: sa.Connection, find_kept: FindKept | None) -> candidates.KeptCounts:
    """Strike candidates that are kept for another reason; returns how many."""
    held = in_use = excluded = 0
    if find_kept is None:
        return candidates.KeptCounts()
    for names in candidates.names_in_batches(connection, KEEP_BATCH_SIZE):
        kept = find_kept(names)
        if keep := kept.held | kept.in_use | kept.excluded:
            candidates.strike(connection, keep)
            held, in_use, excluded = held + len(kept.held), in_use + len(kept.in_use), excluded + len(kept.excluded)
    return candidates.KeptCounts(held, in_use, excluded)


def _samples(missing: Mapping[int, Missing]) -> tuple[str, ...]:
    different = sorted({value for each in missing.values() for value in each.sample}, key=str.encode)
    return tuple(different[: values.MAX_MISSING_SAMPLE])


def _warnings(listed: listing.Listed) -> tuple[str, ...]:
    if not listed.unreadable:
        return ()
    names = ", ".join(listed.shown)
    return (f"{listed.unreadable:,} files have names that are not valid UTF-8, and are kept: {names}",)


def _warnings_of_missing(sources: list[SourceCount], store: str) -> Iterator[str]:
    for source in sources:
        without_file = source.values - source.named
        if without_file >= MANY_MISSING and without_file > MANY_MISSING_SHARE * source.values:
            yield (
                f"{without_file:,} of {source.values:,} values of {source.label} name no file in {store}, such as"
                f" {', '.join(map(repr, source.sample))}"
            )
