"""What the catalog says of some tables, as one text: it differs when a migration has changed them.

Rows of pg_constraint, pg_trigger and pg_rewrite are taken whole: nothing writes them but the definition of a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterable

_MEMBERS = """
    WITH given AS (SELECT unnest(CAST(:oids AS oid[])) AS oid), members AS (
        SELECT oid FROM given UNION SELECT tree.relid::oid FROM given, LATERAL pg_partition_tree(given.oid) AS tree
    )
    SELECT md5(string_agg(part, chr(10) ORDER BY part)) FROM (
"""

_SHAPE = """
    SELECT format('table %s %s', c.oid, c.relrowsecurity) AS part FROM pg_class c JOIN members m ON m.oid = c.oid
    UNION ALL
    SELECT format('column %s %s %s %s %s %s %s %s', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod,
                  a.attnotnull, a.attgenerated, a.attidentity)
    FROM pg_attribute a JOIN members m ON m.oid = a.attrelid WHERE a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT format('constraint %s', c) FROM pg_constraint c
    WHERE c.conrelid IN (SELECT oid FROM members) OR c.confrelid IN (SELECT oid FROM members)
    UNION ALL
    SELECT format('trigger %s', t) FROM pg_trigger t JOIN members m ON m.oid = t.tgrelid WHERE NOT t.tgisinternal
    UNION ALL
    SELECT format('rule %s', md5(r::text)) FROM pg_rewrite r JOIN members m ON m.oid = r.ev_class
    UNION ALL
    SELECT format('inheritance %s', i) FROM pg_inherits i
    WHERE i.inhparent IN (SELECT oid FROM members) OR i.inhrelid IN (SELECT oid FROM members)
"""

_SURROUNDINGS = """
    UNION ALL
    SELECT format('%s %s', current_user, current_setting('server_version_num'))
    UNION ALL
    SELECT format('index %s', pg_get_indexdef(i.indexrelid)) FROM pg_index i JOIN members m ON m.oid = i.indrelid
    UNION ALL
    SELECT format('function %s %s', p.oid, md5(p.prosrc))
    FROM pg_trigger t JOIN members m ON m.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid WHERE NOT t.tgisinternal
    UNION ALL
    SELECT format('privileges %s %s %s', c.oid, c.relacl, c.relreplident)
    FROM pg_class c JOIN members m ON m.oid = c.oid
    UNION ALL
    SELECT format('publication %s %s %s', p.pubname, p.puballtables, p.pubdelete) FROM pg_publication p
"""

_OF_SHAPE = sa.text(f"{_MEMBERS} {_SHAPE}) AS parts")
_OF_ALL = sa.text(f"{_MEMBERS} {_SHAPE} {_SURROUNDINGS}) AS parts")


def shape(connection: sa.Connection, oids: Iterable[int]) -> str:
    """The columns, keys, triggers, rules and partitions of tables: what a plan was made of."""
    return str(connection.scalar(_OF_SHAPE, {"oids": sorted(oids)}))


def surroundings(connection: sa.Connection, oids: Iterable[int]) -> str:
    """The shape, and everything else that decides whether a row can be deleted and inserted again."""
    return str(connection.scalar(_OF_ALL, {"oids": sorted(oids)}))
