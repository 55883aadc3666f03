"""Random platforms: tables with keys of every kind, constraints, triggers and rows, from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from housekeeping_pipelines_tests.deletion.support import OLD, YOUNG

MAX_TABLES, MAX_ROWS = 6, 24

_FUNCTIONS = {
    "write_journal": "INSERT INTO journal (entry) VALUES (TG_TABLE_NAME || TG_OP); RETURN NULL",
    "touch": "NEW.touched := now(); RETURN NEW",
    "rewrite": "NEW.note := upper(NEW.note); RETURN NEW",
    "refuse": "IF NEW.note LIKE '%7%' THEN RAISE EXCEPTION 'no sevens'; END IF; RETURN NEW",
    "keep": "IF OLD.note LIKE '%5%' THEN RETURN NULL; END IF; RETURN OLD",
}
_PREPARATION = (
    "CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s; \"fine\"')",
    "CREATE DOMAIN word AS varchar(40) CHECK (VALUE <> 'never')",
    "CREATE TABLE journal (id bigserial PRIMARY KEY, entry text)",
    *(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body}; END$$"
        for name, body in _FUNCTIONS.items()
    ),
)

# Types of keys, with an expression over the number of the row.
_KEY_TYPES = {
    "int": "{n}",
    "bigint": "{n}::bigint * 4000000000",
    "numeric(9,2)": "{n} + 0.25",
    "text": "'row ' || {n} || ' of \"it''s\", {{x}}\\'",
    'text COLLATE "C"': "'Straße ' || {n}",
    "uuid": "lpad(to_hex({n}), 32, '0')::uuid",
    "word": "('word ' || {n})::word",
    "char(12)": "'c' || {n}",
    "date": "date '2020-01-01' + {n}::int",
    "timestamptz": "timestamptz '2020-01-01 00:00:00.123456+00' + {n} * interval '1 hour'",
    "bytea": "decode(lpad(to_hex({n}), 8, '0'), 'hex')",
    "int4range": "int4range({n}::int, {n}::int + 1)",
}
_ACTIONS = ("CASCADE", "CASCADE", "NO ACTION", "RESTRICT", "SET NULL", "SET NULL", "SET DEFAULT")
_TRIGGERS = {
    "journal": "AFTER {event} ON {table} FOR EACH ROW EXECUTE FUNCTION write_journal()",
    "touch": "BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION touch()",
    "rewrite": "BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION rewrite()",
    "refuse": "BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()",
    "keep": "BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION keep()",
}


@dataclass
class _Table:
    name: str
    key: list[tuple[str, str]]
    rows: int
    columns: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    partitioned: bool = False


@dataclass
class RandomSchema:
    """A platform from a seed; `t0` has an age, and is cleaned.

    Attributes:
        statements: make it, each in a transaction of its own; triggers come after the rows, which are as no trigger
            would leave them.
    """

    seed: int
    statements: list[str] = field(default_factory=list)
    _tables: list[_Table] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        rng = self._rng
        self.statements += _PREPARATION
        for number in range(rng.randint(1, MAX_TABLES)):
            self._add_table(number)
        for table in self._tables:
            self.statements += self._make(table)
        # Keys that come later may lead to any table, and form circles through SET NULL.
        for _ in range(rng.randint(0, 2)):
            self._add_late_key()
        for table in self._tables:
            self.statements += self._triggers(table)
            if rng.random() < 0.15:
                self.statements.append(self._deferred_trigger(table))

    def _add_table(self, number: int) -> None:
        rng = self._rng
        kinds = rng.choices(list(_KEY_TYPES), k=2 if rng.random() < 0.25 else 1)
        key = [(f"k{position}", kind) for position, kind in enumerate(kinds)]
        table = _Table(f"t{number}", key, rng.randint(3, MAX_ROWS))
        table.partitioned = rng.random() < 0.12 and all(kind not in ("int4range",) for kind in kinds)
        for name, kind in key:
            table.columns.append(f"{name} {kind} NOT NULL")
            table.values.append(_KEY_TYPES[kind].format(n="i"))
        table.columns += ["at timestamptz", "note text", "touched timestamptz", "feeling mood", "extra jsonb"]
        # About half is old, so that nothing is refused for its share.
        old = f"CASE WHEN i * 7 % 10 < {rng.randint(1, 5)} THEN timestamptz '{OLD}' ELSE timestamptz '{YOUNG}' END"
        table.values += [
            old,
            "'note ' || i",
            "timestamptz '2001-02-03 04:05:06+00'",
            "(ARRAY['sad', 'ok', 'it''s; \"fine\"'])[1 + i % 3]::mood",
            "jsonb_build_object('n', i, 'x', NULL)",
        ]
        parents = rng.sample(self._tables, k=min(len(self._tables), rng.choice((0, 1, 1, 1, 2))))
        if self._tables and not parents and rng.random() < 0.7:
            parents = [self._tables[0]]
        for position, parent in enumerate(parents):
            self._refer(table, parent, f"r{position}")
        if rng.random() < 0.2:
            self._refer(table, table, "self")
        if rng.random() < 0.2:
            table.columns.append("doubled int GENERATED ALWAYS AS (length(note) * 2) STORED")
        if rng.random() < 0.2:
            table.columns.append("counter bigint GENERATED ALWAYS AS IDENTITY")
        self._tables.append(table)

    def _refer(self, table: _Table, parent: _Table, prefix: str) -> None:
        """A key from new columns of a table to a parent, which may be the table itself."""
        rng = self._rng
        names = [f"{prefix}_{name}" for name, _ in parent.key]
        nullable = parent is table or rng.random() < 0.6
        action = rng.choice(_ACTIONS)
        if not nullable and action.startswith("SET"):
            action = "CASCADE"
        row = f"(1 + (i * {rng.randint(1, 9)}) % {parent.rows})"
        if parent is table:
            row = "greatest(1, i - 1)"
        # All columns of a key are null, or none.
        for (_, kind), name in zip(parent.key, names, strict=True):
            table.columns.append(f"{name} {kind}{'' if nullable else ' NOT NULL'}")
            value = _KEY_TYPES[kind].format(n=row)
            table.values.append(f"CASE WHEN i % 4 = 0 THEN NULL ELSE {value} END" if nullable else value)
        if rng.random() < 0.1:
            # A key that only the application knows: nothing follows it.
            return
        deferrable = rng.choice(("", "", "", " DEFERRABLE", " DEFERRABLE INITIALLY DEFERRED"))
        targets = ", ".join(name for name, _ in parent.key)
        table.constraints.append(
            f"FOREIGN KEY ({', '.join(names)}) REFERENCES {parent.name} ({targets}) ON DELETE {action}{deferrable}"
        )

    def _make(self, table: _Table) -> list[str]:
        key = ", ".join(name for name, _ in table.key)
        lines = ", ".join([*table.columns, f"PRIMARY KEY ({key})", *table.constraints])
        made = [f"CREATE TABLE {table.name} ({lines})" + (f" PARTITION BY HASH ({key})" if table.partitioned else "")]
        if table.partitioned:
            made += [
                f"CREATE TABLE {table.name}_{part} PARTITION OF {table.name}"
                f" FOR VALUES WITH (MODULUS 2, REMAINDER {part})"
                for part in range(2)
            ]  # fmt: skip
        given = [each for each in table.columns if "GENERATED" not in each]
        names = ", ".join(each.split(" ")[0] for each in given)
        made.append(
            f"INSERT INTO {table.name} ({names}) SELECT {', '.join(table.values)}"
            f" FROM generate_series(1, {table.rows}) AS s(i) ORDER BY i"
        )
        return made

    def _triggers(self, table: _Table) -> list[str]:
        rng = self._rng
        found = []
        for name, definition in _TRIGGERS.items():
            # What a key clears of a row that stays, a trigger notes in the row, and no undo takes that back.
            clears = name == "touch" and any("ON DELETE SET" in each for each in table.constraints)
            if rng.random() < 0.07 and not clears:
                event = rng.choice(("INSERT", "DELETE", "UPDATE", "INSERT OR DELETE"))
                found.append(f"CREATE TRIGGER {name} " + definition.format(table=table.name, event=event))
        return found

    def _deferred_trigger(self, table: _Table) -> str:
        event = self._rng.choice(("INSERT", "DELETE", "INSERT OR UPDATE OR DELETE"))
        return (
            f"CREATE CONSTRAINT TRIGGER later AFTER {event} ON {table.name} DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION write_journal()"
        )

    def _add_late_key(self) -> None:
        rng = self._rng
        child, parent = rng.choice(self._tables), rng.choice(self._tables)
        if child.partitioned or parent.partitioned:
            return
        names = [f"late{len(self.statements)}_{name}" for name, _ in parent.key]
        self.statements += [
            f"ALTER TABLE {child.name} ADD COLUMN {name} {kind}"
            for name, (_, kind) in zip(names, parent.key, strict=True)
        ]
        targets = ", ".join(name for name, _ in parent.key)
        row = "1 + (length(note) * 3) % " + str(parent.rows)
        dangling = rng.random() < 0.3
        values = ", ".join(
            f"{name} = {_KEY_TYPES[kind].format(n=f'({row})' if not dangling else '(900 + length(note))')}"
            for name, (_, kind) in zip(names, parent.key, strict=True)
        )
        self.statements.append(f"UPDATE {child.name} SET {values} WHERE length(note) % 2 = 0")
        action = rng.choice(_ACTIONS[:6]) if dangling else "SET NULL"
        key = f"FOREIGN KEY ({', '.join(names)}) REFERENCES {parent.name} ({targets}) ON DELETE {action}"
        child.constraints.append(key)
        self.statements.append(f"ALTER TABLE {child.name} ADD {key}{' NOT VALID' if dangling else ''}")
