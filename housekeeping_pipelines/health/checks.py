"""What `housekeeping check` tries, and what it says to do about what it finds. It changes nothing."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from housekeeping_pipelines.application import tables
from housekeeping_pipelines.application.config import HousekeepingConfig, load_config
from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.deletion.drain import stuck
from housekeeping_pipelines.deletion.guards import check_privileges
from housekeeping_pipelines.deletion.pause import paused_reason
from housekeeping_pipelines.deletion.plan import make_plan
from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError, Refused
from housekeeping_pipelines.execution.report import MAX_FAILED
from housekeeping_pipelines.migrations import HEAD, current_revision
from housekeeping_pipelines.postgres import errors as database_errors
from housekeeping_pipelines.postgres.addresses import dagster_url, platform_url
from housekeeping_pipelines.postgres.catalog import Catalog
from housekeeping_pipelines.postgres.engine import make_engine, opened
from housekeeping_pipelines.resources.vectors import Vectors
from housekeeping_pipelines.retention import policies
from housekeeping_pipelines.sessions.policies import Expiry, expired_sessions
from housekeeping_pipelines.stores.stores import Stores
from housekeeping_pipelines.stores.uses import BUCKET, MEDIA, UPLOADS, PlatformUses
from housekeeping_pipelines.watched_documents.queue import Queue
from housekeeping_pipelines.watched_documents.sources.opening import Sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.settings import Settings

Status = Literal["ok", "warning", "failed", "skipped"]

# The oldest that the engine's tests have been run on.
MINIMUM_SERVER_VERSION = 150_000

# Which of the platform's tables a task cannot do without.
_NEEDS = {
    "delete_old_conversations": ("conversations", "chat_messages"),
    "cleanup_orphaned_messages": ("chat_messages", "conversations"),
    "cleanup_inactive_users": ("users",),
    "generate_statistics": ("users", "conversations", "chat_messages"),
    "cleanup_files": ("upload_sessions", "processed_documents"),
    "cleanup_orphan_documents": ("parsed_files",),
    "orphan_cleanup": ("detections", "security_events"),
    "sync_watched_documents": ("documents", "document_sync_queues", "document_sync_runs"),
    "cleanup_orphan_vectors": ("documents",),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `hint` says what to do. A task that cannot run is a warning: the others can."""

    name: str
    status: Status
    message: str
    hint: str | None = None
    latency_ms: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """`{name, status, message, hint, latency_ms}`."""
        return asdict(self)


def check_all(settings: Settings) -> list[Check]:
    """Try everything; never raises for what a user can cause."""
    checks: list[Check] = []
    config = HousekeepingConfig()
    try:
        config = load_config(settings.housekeeping_config)
        there = settings.housekeeping_config.exists()
        text = f"{len(config.tables)} tables mapped, {len(config.retention)} rules" if there else "none; default names"
        checks.append(Check("housekeeping.yaml", "ok", text))
    except HousekeepingError as error:
        checks.append(_failed("housekeeping.yaml", error))
    try:
        checks += _check_platform(settings, config)
    except HousekeepingError as error:
        checks.append(_failed("database", error))
    checks.append(_check_dagster_storage(settings))
    checks += _check_stores(settings)
    return checks


def _failed(name: str, error: HousekeepingError) -> Check:
    return Check(name, "failed", error.message, error.hint)


def _check_platform(settings: Settings, config: HousekeepingConfig) -> Iterator[Check]:
    engine = make_engine(platform_url(settings))
    started = time.monotonic()
    with opened(engine), engine.connect() as connection:
        connection.execute(sa.text("SET TRANSACTION READ ONLY"))
        version = connection.execute(
            sa.text("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
        ).one()
        latency = (time.monotonic() - started) * 1000
        where = "embedded" if settings.database_url is None else engine.url.host or "local"
        old = version[0] < MINIMUM_SERVER_VERSION
        yield Check(
            "database",
            "failed" if old else "ok",
            f"PostgreSQL {version[1]}, {where}, database {engine.url.database}",
            "upgrade to PostgreSQL 15 or newer" if old else None,
            round(latency, 1),
        )
        yield from _check_schema(connection, settings)
        yield _check_pgvector(connection, needed=settings.vector_store_url is None)
        catalog = Catalog(connection)
        platform = Platform(catalog, config)
        yield from _check_tables(platform)
        yield from _check_tasks(platform, trashed=settings.trash_retention_days > 0)
        yield from _check_orphan_tasks(settings, config, connection)
        yield from _check_document_tasks(settings, platform, engine)
        if current_revision(connection) == HEAD and (left := stuck(connection)):
            count = (
                f"{len(left)} or more files" if len(left) >= MAX_FAILED else f"{len(left)} of the files to be removed"
            )
            text = f"{count} failed again and again, such as {left[0][0]}: {left[0][1]}"
            yield Check("outbox", "warning", text, "mend storage, and run `housekeeping run drain_file_outbox`")


def _check_schema(connection: sa.Connection, settings: Settings) -> Iterator[Check]:
    revision = current_revision(connection)
    if revision is None:
        may = connection.scalar(sa.text("SELECT has_database_privilege(current_database(), 'CREATE')"))
        database, user = connection.engine.url.database, connection.engine.url.username
        if may:
            yield Check(
                "schema housekeeping", "warning", "not made yet", "`housekeeping migrate`, or the first run, makes it"
            )
        else:
            yield Check(
                "schema housekeeping",
                "failed",
                f"not made yet, and user {user!r} may not make it",
                f'let an administrator run: GRANT CREATE ON DATABASE "{database}" TO "{user}"',
            )
        return
    if revision != HEAD:
        yield Check("schema housekeeping", "warning", f"version {revision}, not {HEAD}", "run `housekeeping migrate`")
        return
    yield Check("schema housekeeping", "ok", f"version {revision}")
    if settings.housekeeping_paused:
        yield Check("pause", "warning", "HOUSEKEEPING_PAUSED is true: nothing is deleted", "set it to false")
    elif (reason := paused_reason(connection)) is not None:
        yield Check("pause", "warning", f"paused: {reason}", "run `housekeeping resume`")


def _check_pgvector(connection: sa.Connection, *, needed: bool) -> Check:
    version = connection.scalar(sa.text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    available = connection.scalar(sa.text("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"))
    if version:
        return Check("pgvector", "ok", f"version {version}")
    if available:
        return Check("pgvector", "ok", f"version {available} available, not used yet")
    if not needed:
        return Check("pgvector", "skipped", "not installed on the server; VECTOR_STORE_URL names another store")
    return Check(
        "pgvector",
        "warning",
        "not installed on the server: documents cannot be watched",
        "install pgvector there, or set VECTOR_STORE_URL",
    )


def _check_tables(platform: Platform) -> Iterator[Check]:
    needed = sorted({name for names in _NEEDS.values() for name in names} | set(platform.config.tables))
    for ours in needed:
        try:
            table = platform.table(ours)
        except ConfigurationError as error:
            asked_for = ours in platform.config.tables
            yield Check(f"table {ours}", "failed" if asked_for else "warning", error.message, error.hint)
            continue
        missing = [
            f"no {column} ({tables.OPTIONAL_COLUMNS[ours][column]})"
            for column, theirs in table.names.items()
            if theirs is None and tables.OPTIONAL_COLUMNS.get(ours, {}).get(column) not in (None, "not needed")
        ]
        text = table.live.label if table.live.label == ours else f"is {table.live.label}"
        yield Check(f"table {ours}", "ok", "; ".join([text, *missing]))


def _check_tasks(platform: Platform, *, trashed: bool) -> Iterator[Check]:
    """Whether each task's policy fits the live tables, and what its plan warns of."""
    now = utc_now()
    made: dict[str, Any] = {
        "delete_old_conversations": partial(
            policies.conversations, platform, now, older_than_days=30, age_column="last_activity"
        ),
        "cleanup_orphaned_messages": partial(policies.orphaned_messages, platform, now),
        "cleanup_inactive_users": partial(policies.inactive_users, platform, now, older_than_days=7),
    }
    made["cleanup_files"] = partial(expired_sessions, platform, now, Expiry())
    made |= {rule.task: partial(policies.declared_rule, platform, now, rule=rule) for rule in platform.config.retention}
    for task, make in made.items():
        try:
            policy: RowPolicy = make()
            plan = make_plan(platform.catalog, policy.table, policy.undeclared, policy.follows)
            check_privileges(platform.catalog.connection, plan, trashed=trashed)
            # Planned, not executed: a comparison of types that do not fit is found without reading a row.
            statement = sa.select(sa.literal(1)).select_from(policy.table.selectable).where(policy.condition)
            compiled = statement.compile(dialect=platform.catalog.connection.dialect)
            with platform.catalog.connection.begin_nested():
                platform.catalog.connection.exec_driver_sql(f"EXPLAIN {compiled.string}", compiled.params)
        except HousekeepingError as error:
            # A platform may lack a table; what it has must be usable.
            status: Status = "failed" if isinstance(error, Refused) else "warning"
            yield Check(f"task {task}", status, f"disabled: {error.message}", error.hint)
        except sa.exc.DBAPIError as error:
            yield Check(f"task {task}", "failed", f"disabled: {database_errors.describe(error)}")
        else:
            warnings = plan.warnings()
            yield Check(
                f"task {task}", "warning" if warnings else "ok", f"takes {plan.describe()}", "; ".join(warnings) or None
            )


def _check_orphan_tasks(settings: Settings, config: HousekeepingConfig, connection: sa.Connection) -> Iterator[Check]:
    """Whether everything that refers to a store's files can be found."""
    stores = Stores(settings)
    tasks = {"cleanup_orphan_documents": UPLOADS, "orphan_cleanup": MEDIA, "cleanup_orphan_objects": BUCKET}
    for task, name in tasks.items():
        uses = PlatformUses(name, config, stores.folder(name))
        try:
            sources = uses.sources(connection)
            # A session keeps what is in its folder, and has to be found for that.
            uses.of_sessions(connection, [])
        except HousekeepingError as error:
            yield Check(f"task {task}", "warning", f"disabled: {error.message}", error.hint)
        else:
            tables = ", ".join(dict.fromkeys(source.table.label for source in sources))
            yield Check(f"task {task}", "ok", f"takes files of {name} that no row of {tables} names")


def _check_document_tasks(settings: Settings, platform: Platform, engine: sa.Engine) -> Iterator[Check]:
    """The tables, the embedder, the vector store and what the sources lack."""
    vectors = Vectors(settings)
    started = time.monotonic()
    try:
        space = vectors.embedder.space
        stands_in = "; compares words, stands in while EMBEDDING_BASE_URL is unset"
        text = f"{space.model}, {space.dimension} dimensions{'' if settings.embedding_base_url else stands_in}"
        yield Check("embedder", "ok", text, latency_ms=round((time.monotonic() - started) * 1000, 1))
        started = time.monotonic()
        store = vectors.open(lambda: engine)
        try:
            text = f"{store.label}, {store.count():,} chunks"
        finally:
            store.close()
        yield Check("vector store", "ok", text, latency_ms=round((time.monotonic() - started) * 1000, 1))
    except HousekeepingError as error:
        yield _failed("vector store", error)
    try:
        watched = Queue(platform).in_trouble(platform.catalog.connection)
    except HousekeepingError as error:
        yield Check("task sync_watched_documents", "warning", f"disabled: {error.message}", error.hint)
    except sa.exc.DBAPIError as error:
        yield Check("task sync_watched_documents", "failed", f"disabled: {database_errors.describe(error)}")
    else:
        yield Check(
            "task sync_watched_documents",
            "warning" if watched else "ok",
            f"documents that wait for a person, or fail again and again: {watched:,}"
            if watched
            else f"from {', '.join(Sources(settings).schemes())}",
            "`housekeeping watch list` says why" if watched else None,
        )


def _check_stores(settings: Settings) -> Iterator[Check]:
    stores = Stores(settings)
    configured = {
        UPLOADS: ("DIRECT_UPLOADS_PATH", settings.direct_uploads_path),
        MEDIA: ("MEDIA_PATH", settings.media_path),
        BUCKET: ("SUPABASE_URL", settings.supabase_url),
    }
    for name, (variable, given) in configured.items():
        started = time.monotonic()
        try:
            storage = stores[name].storage
            storage.check()
        except HousekeepingError as error:
            yield _failed(f"store {name}", error)
            continue
        latency = round((time.monotonic() - started) * 1000, 1)
        stands_in = f"; stands in while {variable} is unset" if given is None else ""
        kept = "" if stores[name].trash_prefix else "; what leaves it is gone for good"
        yield Check(f"store {name}", "ok", f"{storage.label}{stands_in}{kept}", latency_ms=latency)


def _check_dagster_storage(settings: Settings) -> Check:
    try:
        url = dagster_url(settings)
    except HousekeepingError as error:
        return _failed("Dagster's storage", error)
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool, connect_args={"connect_timeout": 10})
    started = time.monotonic()
    try:
        with engine.connect() as connection:
            runs = None
            if connection.scalar(sa.text("SELECT to_regclass('runs')")) is not None:
                runs = connection.scalar(sa.text("SELECT count(*) FROM runs"))
    except sa.exc.DBAPIError as error:
        found = database_errors.explain(error, url)
        hint = (found.hint or "").replace("DATABASE_URL", "DAGSTER_PG_URL")
        return Check("Dagster's storage", "failed", found.message, hint)
    finally:
        with suppress(sa.exc.DBAPIError):
            engine.dispose()
    text = f"database {url.database}, " + (f"{runs:,} runs" if runs is not None else "made by the first run")
    return Check("Dagster's storage", "ok", text, latency_ms=round((time.monotonic() - started) * 1000, 1))
