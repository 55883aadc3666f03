"""Vectors in PostgreSQL with pgvector, an HNSW index over all of them.

`document_generations` points at the current generation of each document: a switch writes one row. A search reads
pointers and vectors in one statement, and so in one snapshot.

The first write creates the tables, not a migration: a column's dimension is the embedder's, and everything else must
work on a server without pgvector.
"""

from __future__ import annotations

import json
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from housekeeping_pipelines.errors import ConfigurationError, Unavailable
from housekeeping_pipelines.migrations import ensure_schema
from housekeeping_pipelines.postgres import errors as database_errors
from housekeeping_pipelines.postgres.locks import lock_for_transaction
from housekeeping_pipelines.resources.vector_store import Generation, Hit, Space, StoredDocument
from housekeeping_pipelines.resources.vector_store.checking import check_ids, check_space, check_vector, sanitized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from housekeeping_pipelines.resources.vector_store import Chunk, Vector

# pgvector indexes `vector` up to 2,000 dimensions and `halfvec` up to 4,000 (its documentation, "HNSW").
MAX_VECTOR, MAX_HALFVEC = 2000, 4000
# The first version that continues the index scan until enough rows pass a join.
ITERATIVE_SCAN = (0, 8)

# In binary: writing and parsing 384 numbers as text takes longer than anything but the index.
COPY = (
    "COPY housekeeping.document_vectors (document, generation, position, hash, content, metadata, embedding)"
    " FROM STDIN (FORMAT BINARY)"
)
COPY_START, COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"

_STREAM_BATCH_SIZE = 1000
# A batch locks each of its documents, and the server's lock table has room for some thousands.
_DELETE_BATCH_SIZE = 500

_CURRENT = """
    FROM housekeeping.document_generations g
    JOIN housekeeping.document_vectors v ON v.document = g.document AND v.generation = g.generation
"""
_SWITCH = sa.text("""
    INSERT INTO housekeeping.document_generations (document, generation, switched_at)
    SELECT :d, :g, now() WHERE EXISTS
        (SELECT FROM housekeeping.document_vectors WHERE document = :d AND generation = :g)
    ON CONFLICT (document) DO UPDATE SET generation = excluded.generation, switched_at = excluded.switched_at
""")


class PgVectorStore:
    """Vectors in the schema `housekeeping` of a database. See `VectorStore`."""

    def __init__(self, engine: sa.Engine, space: Space) -> None:
        """
        Args:
            engine: has a pool; every method is a short transaction of its own.

        Raises:
            ConfigurationError: the dimension is more than pgvector can index.
        """
        if not 1 <= space.dimension <= MAX_HALFVEC:
            raise ConfigurationError(
                f"{space.model} makes vectors of {space.dimension:,} dimensions; pgvector indexes {MAX_HALFVEC:,}",
                hint="choose another EMBEDDING_MODEL, or another VECTOR_STORE_URL",
            )
        self._engine, self._space = engine, space
        self._type = "vector" if space.dimension <= MAX_VECTOR else "halfvec"
        self._row = row_maker(self._type, space.dimension)
        self._ready = False
        self._iterative: bool | None = None
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        return f"pgvector in database {self._engine.url.database}"

    def check(self) -> None:
        """See `VectorStore`; missing tables are created by the first write."""
        with self._transaction() as connection:
            available = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
            if connection.scalar(sa.text(available)) is None:
                raise ConfigurationError(
                    f"the server of database {self._engine.url.database} has no pgvector",
                    hint="install its extension vector there, or set VECTOR_STORE_URL",
                )
            self._ready = self._has_tables(connection)

    def write(self, document: str, generation: str, chunks: Iterable[Chunk]) -> int:
        """See `VectorStore`."""
        check_ids(document, generation)
        self._create_missing()
        with self._transaction() as connection:
            # A concurrent writer of the same generation waits, and replaces it by the same.
            connection.execute(lock_for_transaction(f"generation {generation} of {document}"))
            if _pointer(connection, document) == generation:
                raise ValueError(f"{generation} is current of {document}")
            connection.execute(
                sa.text("DELETE FROM housekeeping.document_vectors WHERE document = :d AND generation = :g"),
                {"d": document, "g": generation},
            )
            count = 0
            driver: Any = connection.connection.driver_connection
            with driver.cursor() as cursor, cursor.copy(COPY) as copy:
                copy.write(COPY_START)
                for chunk in chunks:
                    copy.write(self._row(document, generation, sanitized(chunk, self._space)))
                    count += 1
                copy.write(COPY_END)
            return count

    def switch(self, document: str, generation: str) -> None:
        """See `VectorStore`."""
        check_ids(document, generation)
        self._create_missing()
        with self._transaction() as connection:
            connection.execute(_pointer_lock(document))
            if connection.execute(_SWITCH, {"d": document, "g": generation}).rowcount == 0:
                raise LookupError(f"nothing of {generation} was written for {document}")

    def prune(self, document: str) -> int:
        """See `VectorStore`."""
        check_ids(document)
        if not self._exists():
            return 0
        with self._transaction() as connection:
            connection.execute(_pointer_lock(document))
            others = sa.text(
                "DELETE FROM housekeeping.document_vectors v WHERE document = :d AND NOT EXISTS"
                " (SELECT FROM housekeeping.document_generations g"
                " WHERE g.document = v.document AND g.generation = v.generation)"
            )
            return connection.execute(others, {"d": document}).rowcount

    def delete(self, documents: Sequence[str]) -> int:
        """See `VectorStore`."""
        check_ids(*documents)
        if not self._exists():
            return 0
        # In one order, so that concurrent deletions cannot deadlock.
        ids = sorted(set(documents))
        return sum(self._delete(ids[at : at + _DELETE_BATCH_SIZE]) for at in range(0, len(ids), _DELETE_BATCH_SIZE))

    def _delete(self, documents: list[str]) -> int:
        names = {"ids": documents}
        ids = sa.bindparam("ids", type_=ARRAY(sa.Text))
        with self._transaction() as connection:
            for document in documents:
                connection.execute(_pointer_lock(document))
            # The pointers first: a search finds a whole document, or none of it.
            pointed = sa.text("DELETE FROM housekeeping.document_generations WHERE document = ANY (:ids)")
            connection.execute(pointed.bindparams(ids), names)
            rows = sa.text(
                "WITH gone AS (DELETE FROM housekeeping.document_vectors WHERE document = ANY (:ids)"
                " RETURNING document) SELECT count(DISTINCT document) FROM gone"
            )
            return connection.scalar(rows.bindparams(ids), names) or 0

    def current(self, document: str) -> Generation | None:
        """See `VectorStore`."""
        check_ids(document)
        row = self._one(
            "SELECT g.generation, (SELECT count(*) FROM housekeeping.document_vectors v"
            " WHERE v.document = g.document AND v.generation = g.generation)"
            " FROM housekeeping.document_generations g WHERE g.document = :d",
            d=document,
        )
        return None if row is None or not row[1] else Generation(document, row[0], row[1])

    def vectors(self, document: str, hashes: Sequence[str]) -> dict[str, Vector]:
        """See `VectorStore`."""
        check_ids(document, *hashes)
        if not self._exists():
            return {}
        statement = sa.text(
            f"SELECT DISTINCT ON (v.hash) v.hash, v.embedding::text {_CURRENT}"
            " WHERE g.document = :d AND v.hash = ANY (:hashes)"
        ).bindparams(sa.bindparam("hashes", type_=ARRAY(sa.Text)))
        with self._transaction() as connection:
            rows = connection.execute(statement, {"d": document, "hashes": list(hashes)})
            return {hash_: json.loads(text) for hash_, text in rows}

    def documents(self) -> Iterator[StoredDocument]:
        """See `VectorStore`."""
        if not self._exists():
            return
        statement = sa.text(
            "SELECT document, count(*), max(written_at) FROM housekeeping.document_vectors"
            " GROUP BY document ORDER BY document"
        )
        # A reader that stops early closes the cursor with the transaction.
        with (
            self._transaction() as connection,
            connection.execution_options(yield_per=_STREAM_BATCH_SIZE).execute(statement) as rows,
        ):
            for document, chunks, written_at in rows:
                yield StoredDocument(document, chunks, written_at)

    def count(self, document: str | None = None) -> int:
        """See `VectorStore`."""
        check_ids(*([] if document is None else [document]))
        row = self._one(f"SELECT count(*) {_CURRENT} WHERE CAST(:d AS text) IS NULL OR g.document = :d", d=document)
        return row[0] if row is not None else 0

    def search(self, vector: Vector, limit: int = 10) -> list[Hit]:
        """See `VectorStore`."""
        check_vector(vector, self._space)
        if not self._exists():
            return []
        statement = sa.text(
            "SELECT v.document, v.position, v.content, v.metadata,"
            f" 1 - (v.embedding <=> CAST(:vector AS {self._type})) {_CURRENT}"
            f" ORDER BY v.embedding <=> CAST(:vector AS {self._type}) LIMIT :limit"
        )
        with self._transaction() as connection:
            if self._scans_on(connection):
                connection.exec_driver_sql("SET LOCAL hnsw.iterative_scan = strict_order")
            rows = connection.execute(statement, {"vector": _as_text(vector), "limit": limit})
            return [Hit(row[0], row[1], row[2], row[4], row[3]) for row in rows]

    def close(self) -> None:
        """See `VectorStore`."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise database_errors.explain(error, self._engine.url) from None
        except psycopg.Error as error:
            # COPY is the driver's own.
            lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
            wrapped = sa.exc.DBAPIError("COPY", None, error, connection_invalidated=lost)
            raise database_errors.explain(wrapped, self._engine.url) from None
        except sa.exc.TimeoutError:
            raise Unavailable(f"{self.label}: no connection was free in time") from None

    def _one(self, statement: str, **parameters: Any) -> Sequence[Any] | None:
        if not self._exists():
            return None
        with self._transaction() as connection:
            return connection.execute(sa.text(statement), parameters).one_or_none()

    def _exists(self) -> bool:
        if not self._ready:
            with self._transaction() as connection:
                self._ready = self._has_tables(connection)
        return self._ready

    def _has_tables(self, connection: sa.Connection) -> bool:
        """Whether the tables exist; if so, they are of our space."""
        if connection.scalar(sa.select(sa.func.to_regclass("housekeeping.vector_space"))) is None:
            return False
        row = connection.execute(sa.text("SELECT model, dimension FROM housekeeping.vector_space")).one()
        tables = ("document_vectors", "document_generations", "vector_space")
        recreate = f"DROP TABLE {', '.join(f'housekeeping.{name}' for name in tables)}"
        check_space(self.label, Space(*row), self._space, recreate)
        return True

    def _create_missing(self) -> None:
        """Create missing tables; two processes may do so at once."""
        if self._ready:
            return
        with self._lock:
            if self._ready:
                return
            with self._transaction():
                ensure_schema(self._engine)
            with self._transaction() as connection:
                connection.execute(lock_for_transaction("vector store"))
                if not self._has_tables(connection):
                    self._create(connection)
            self._ready = True

    def _create(self, connection: sa.Connection) -> None:
        try:
            with connection.begin_nested():
                connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
        except sa.exc.DBAPIError as error:
            raise ConfigurationError(
                f"the extension pgvector cannot be created in database {self._engine.url.database}:"
                f" {database_errors.describe(error)}",
                hint="let an administrator run there: CREATE EXTENSION vector",
            ) from None
        for statement in (
            "CREATE TABLE housekeeping.vector_space (model text NOT NULL, dimension int NOT NULL)",
            f"""CREATE TABLE housekeeping.document_vectors (
                document text COLLATE "C", generation text, position int, hash text NOT NULL, content text NOT NULL,
                metadata jsonb NOT NULL, embedding {self._type}({self._space.dimension}) NOT NULL,
                written_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (document, generation, position))""",
            """CREATE TABLE housekeeping.document_generations (
                document text COLLATE "C" PRIMARY KEY, generation text NOT NULL, switched_at timestamptz NOT NULL)""",
            f"""CREATE INDEX ix_housekeeping_document_vectors_embedding ON housekeeping.document_vectors
                USING hnsw (embedding {self._type}_cosine_ops)""",
        ):
            connection.exec_driver_sql(statement)
        values = {"model": self._space.model, "dimension": self._space.dimension}
        connection.execute(sa.text("INSERT INTO housekeeping.vector_space VALUES (:model, :dimension)"), values)

    def _scans_on(self, connection: sa.Connection) -> bool:
        if self._iterative is None:
            version = connection.scalar(sa.text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")) or "0"
            self._iterative = tuple(int(part) for part in version.split(".")[:2]) >= ITERATIVE_SCAN
        return self._iterative


def _pointer(connection: sa.Connection, document: str) -> str | None:
    statement = sa.text("SELECT generation FROM housekeeping.document_generations WHERE document = :d")
    found: str | None = connection.scalar(statement, {"d": document})
    return found


def _pointer_lock(document: str) -> sa.Select[tuple[None]]:
    """Held while the current generation of a document changes, or others are deleted."""
    return lock_for_transaction(f"vectors of {document}")


def row_maker(kind: str, dimension: int) -> Callable[[str, str, Chunk], bytes]:
    """A function that encodes a document, a generation and a chunk as a row for binary `COPY`.

    The format is the one of the types' `recv` functions: a vector is its dimension, a zero, and its values.
    """
    vector = struct.Struct(f">hh{dimension}{'f' if kind == 'vector' else 'e'}")

    def row(document: str, generation: str, chunk: Chunk) -> bytes:
        about = json.dumps(dict(chunk.metadata), ensure_ascii=False)
        fields = (
            document.encode(),
            generation.encode(),
            chunk.position.to_bytes(4, "big", signed=True),
            chunk.hash.encode(),
            chunk.text.encode(),
            # The version of jsonb's binary format.
            b"\1" + about.encode(),
            vector.pack(dimension, 0, *chunk.vector),
        )
        parts = [len(fields).to_bytes(2, "big")]
        for field in fields:
            parts += (len(field).to_bytes(4, "big"), field)
        return b"".join(parts)

    return row


def _as_text(vector: Vector) -> str:
    return f"[{','.join(map(repr, vector))}]"
