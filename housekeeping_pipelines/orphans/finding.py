"""Which files nothing refers to, found in the database: the store's listing against every reference source.

The references are read in one snapshot that begins after the listing has ended, so that a file whose row was inserted
meanwhile is not an orphan. Nothing is deleted here, and nothing but temporary tables is written. Memory does not grow
with the number of files or references.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from housekeeping_pipelines.deletion import guards
from housekeeping_pipelines.orphans import candidates, cursors, listing, unmatched
from housekeeping_pipelines.orphans.age_filter import AgeFilter
from housekeeping_pipelines.orphans.candidates import Findings, Orphans
from housekeeping_pipelines.stores.references import reference_keys

if TYPE_CHECKING:
    import sqlalchemy as sa

    from housekeeping_pipelines.orphans.search import FindKept, Scan

# Candidates per call of `find_kept`.
KEEP_BATCH_SIZE = 20_000


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
    listing.create(connection, [unmatched.LISTING, unmatched.UNMATCHED, candidates.ORPHANS])
    listed = listing.load_listing(connection, storage, unmatched.LISTING, scan.kind, scan.on_scanned)
    by_name = storage if isinstance(storage, listing.NamesInChunks) else None
    if by_name is not None:
        guards.check_no_inner_links(storage.label, by_name.inner_links)
    if not listed.scanned:
        return Orphans(connection, scan, Findings())
    with closing(AgeFilter(connection, scan.floor, None if by_name is None else by_name.examine)) as age_filter:
        with unmatched.snapshot(connection):
            guards.check_sources(connection, scan.sources, keys, storage.label, scan.limits)
            age_filter.feed(unmatched.match(keys, scan.kind))
        with connection.begin():
            unmatched.LISTING.drop(connection, checkfirst=False)
            missing_count, missing = unmatched.missing(connection)
            unrecognised = unmatched.count_unrecognised(connection)
        ages = age_filter.finish()
    held, in_use = _strike_kept(connection, scan.find_kept) if scan.find_kept is not None else (0, 0)
    findings = Findings(
        scanned=listed.scanned,
        orphaned=ages.old - held - in_use,
        young=ages.young,
        unrecognised=unrecognised + listed.unreadable,
        held=held,
        in_use=in_use,
        missing_count=missing_count,
        missing=missing,
        warnings=_warnings(listed),
    )
    guards.check_fraction(f"entries of {storage.label}", findings.orphaned, listed.recognised, scan.limits)
    return Orphans(connection, scan, findings)


def _strike_kept(connection: sa.Connection, find_kept: FindKept) -> tuple[int, int]:
    """Strike held files, and files in use for another reason, from the candidates; returns both counts."""
    held = in_use = 0
    for names in candidates.names_in_batches(connection, KEEP_BATCH_SIZE):
        kept = find_kept(names)
        if keep := kept.held | kept.in_use:
            held += candidates.strike(connection, keep) - len(kept.in_use)
            in_use += len(kept.in_use)
    return held, in_use


def _warnings(listed: listing.Listed) -> tuple[str, ...]:
    if not listed.unreadable:
        return ()
    names = ", ".join(listed.shown)
    return (f"{listed.unreadable:,} files have names that are not valid UTF-8, and are kept: {names}",)
