"""`housekeeping check`: tries every component, and says what it finds and what to do about it.

Each capability has checks of its own. These are of the components that belong to none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.application import tables
from housekeeping_pipelines.application.config import HousekeepingConfig, load_config
from housekeeping_pipelines.clock import utc_now
from housekeeping_pipelines.deletion.pause import paused_reason
from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError
from housekeeping_pipelines.execution.checking import Check, Stopwatch, Surroundings
from housekeeping_pipelines.migrations import HEAD, current_revision
from housekeeping_pipelines.postgres.addresses import dagster_url, platform_url
from housekeeping_pipelines.postgres.engine import dagster_connection, make_engine, opened
from housekeeping_pipelines.postgres.requirements import clock_problem, pooler_problem, schema_problem, server_problem
from housekeeping_pipelines.stores.checks import check_stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from housekeeping_pipelines.settings import Settings
    from housekeeping_pipelines.tasks.capability import Capability
    from housekeeping_pipelines.tasks.jobs import Task

# The oldest that the engine's tests have been run on.
MINIMUM_SERVER_VERSION = 150_000


def check_all(
    settings: Settings, make_capabilities: Callable[[Settings, HousekeepingConfig], Sequence[Capability]]
) -> list[Check]:
    """Try everything. An error that a user causes becomes a finding."""
    checks: list[Check] = []
    config = HousekeepingConfig()
    try:
        config = load_config(settings)
        capabilities = make_capabilities(settings, config)
        there = settings.housekeeping_config.exists()
        text = f"{len(config.tables)} tables mapped, {len(config.retention)} rules" if there else "none; default names"
        checks.append(Check("housekeeping.yaml", "ok", text))
    except HousekeepingError as error:
        checks.append(Check.of("housekeeping.yaml", error))
        config = HousekeepingConfig()
        capabilities = make_capabilities(settings, config)
    try:
        checks += _check_platform(settings, config, capabilities)
    except HousekeepingError as error:
        checks.append(Check.of("database", error))
    checks.append(_check_dagster_storage(settings))
    checks += check_stores(settings)
    return checks


def _check_platform(
    settings: Settings, config: HousekeepingConfig, capabilities: Sequence[Capability]
) -> Iterator[Check]:
    engine, watch = make_engine(platform_url(settings)), Stopwatch()
    with opened(engine), engine.connect() as connection:
        connection.execute(sa.text("SET TRANSACTION READ ONLY"))
        version = connection.execute(
            sa.text("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
        ).one()
        latency = watch.latency_ms
        where = "embedded" if settings.database_url is None else engine.url.host or "local"
        old = version[0] < MINIMUM_SERVER_VERSION
        yield Check(
            "database",
            "failed" if old else "ok",
            f"PostgreSQL {version[1]}, {where}, database {engine.url.database}",
            "upgrade to PostgreSQL 15 or newer" if old else None,
            latency,
        )
        if (problem := server_problem(connection)) is not None:
            yield Check("database privileges", "failed", problem.message, problem.hint)
        if (problem := pooler_problem(engine)) is not None:
            yield Check("database sessions", "failed", problem.message, problem.hint)
        if (problem := clock_problem(connection, utc_now())) is not None:
            yield Check("clock", "failed", problem.message, problem.hint)
        yield from _check_schema(connection, settings)
        yield _check_pgvector(connection, needed=settings.vector_store_url is None)
        surroundings = Surroundings(
            settings, config, connection, utc_now(), has_schema=current_revision(connection) == HEAD
        )
        yield from _check_tables(surroundings, capabilities)
        for capability in capabilities:
            found = [finding for check in capability.checks for finding in check(surroundings)]
            yield from found
            named = {finding.name for finding in found}
            for task in capability.tasks:
                if f"task {task.name}" not in named:
                    yield _check_task(surroundings, task)


def _check_schema(connection: sa.Connection, settings: Settings) -> Iterator[Check]:
    revision = current_revision(connection)
    if revision is None:
        if (problem := schema_problem(connection)) is not None:
            yield Check("schema housekeeping", "failed", problem.message, problem.hint)
        else:
            yield Check(
                "schema housekeeping", "warning", "not made yet", "`housekeeping migrate`, or the first run, makes it"
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


def _check_task(surroundings: Surroundings, task: Task) -> Check:
    """Whether the platform has the tables of a task that has no check of its own."""
    try:
        for name in task.tables:
            surroundings.platform.table(name)
    except ConfigurationError as error:
        return Check.disabled(task.name, error)
    return Check(f"task {task.name}", "ok", f"works on {', '.join(task.tables) or 'our own tables'}")


def _check_tables(surroundings: Surroundings, capabilities: Sequence[Capability]) -> Iterator[Check]:
    platform, mapped = surroundings.platform, surroundings.config.tables
    needed = {name for capability in capabilities for task in capability.tasks for name in task.tables}
    for ours in sorted(needed | set(mapped)):
        try:
            table = platform.table(ours)
        except ConfigurationError as error:
            yield Check.of(f"table {ours}", error, status="failed" if ours in mapped else "warning")
            continue
        missing = [
            f"no {column} ({tables.OPTIONAL_COLUMNS[ours][column]})"
            for column, theirs in table.names.items()
            if theirs is None and tables.OPTIONAL_COLUMNS.get(ours, {}).get(column) not in (None, "not needed")
        ]
        text = table.live.label if table.live.label == ours else f"is {table.live.label}"
        yield Check(f"table {ours}", "ok", "; ".join([text, *missing]))


def _check_dagster_storage(settings: Settings) -> Check:
    watch = Stopwatch()
    try:
        url = dagster_url(settings)
        with dagster_connection(url, timeout_seconds=10) as connection:
            runs = None
            if connection.scalar(sa.text("SELECT to_regclass('runs')")) is not None:
                runs = connection.scalar(sa.text("SELECT count(*) FROM runs"))
    except HousekeepingError as error:
        return Check.of("Dagster's storage", error)
    text = f"database {url.database}, " + (f"{runs:,} runs" if runs is not None else "made by the first run")
    return Check("Dagster's storage", "ok", text, latency_ms=watch.latency_ms)
