"""Addresses of PostgreSQL as others write them: libpq, SQLAlchemy, asyncpg, Prisma and the platforms' own consoles."""

from __future__ import annotations

import re
from urllib.parse import unquote

import sqlalchemy as sa

ACCEPTED = "accepted: postgresql://USER:PASSWORD@HOST:PORT/DATABASE"

# Parameters of libpq (PostgreSQL's manual, "Parameter Key Words").
_LIBPQ = frozenset(
    "host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout client_encoding"  # noqa: SIM905 - sixty names
    " options application_name fallback_application_name keepalives keepalives_idle keepalives_interval"
    " keepalives_count tcp_user_timeout replication gssencmode sslmode requiressl sslnegotiation sslcompression sslcert"
    " sslkey sslkeylogfile sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer"
    " ssl_min_protocol_version ssl_max_protocol_version min_protocol_version max_protocol_version krbsrvname gsslib"
    " gssdelegation scram_client_key scram_server_key service servicefile target_session_attrs load_balance_hosts"
    " oauth_issuer oauth_client_id oauth_client_secret oauth_scope".split()
)
# What only concerns the pools and caches of another driver: Prisma's, asyncpg's, node-postgres' and Rails'.
_OF_OTHER_DRIVERS = frozenset(
    "connection_limit pool_timeout socket_timeout pgbouncer statement_cache_size prepared_statement_cache_size"  # noqa: SIM905 - twenty names
    " prepared_statement_name_func max_cached_statement_lifetime max_cacheable_statement_size command_timeout timeout"
    " pool max_idle_connection_lifetime single_use_connections uselibpqcompat prepared_statements pool_size"
    " max_overflow async_fallback".split()
)
_SSL_SWITCH = {"true": "require", "1": "require", "false": "disable", "0": "disable"}
_SCHEMA_NAME = re.compile(r"\w+")


def read_address(text: str) -> sa.URL:
    """An address without a driver, as psycopg takes it.

    Raises:
        ValueError: it is none; the text says what is accepted, and never repeats a password.
    """
    try:
        url = sa.make_url(_with_hosts_in_the_query(text.strip()))
    except (sa.exc.ArgumentError, ValueError):
        raise ValueError(ACCEPTED) from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError(ACCEPTED)
    query = {name: value for name, value in url.query.items() if name not in _OF_OTHER_DRIVERS}
    if isinstance(ssl := query.pop("ssl", None), str):
        query.setdefault("sslmode", _SSL_SWITCH.get(ssl, ssl))
    if isinstance(schema := query.pop("schema", None), str):
        if not _SCHEMA_NAME.fullmatch(schema):
            raise ValueError(f"{ACCEPTED}; name the schema by ?options=-csearch_path%3DSCHEMA")
        query["options"] = f"{query.get('options', '')} -csearch_path={schema}".strip()
    if unknown := sorted(query.keys() - _LIBPQ):
        raise ValueError(f"{ACCEPTED}; libpq has no parameter {', '.join(unknown)}: leave it out")
    database = url.database or _one(query.pop("dbname", None))
    if not database:
        raise ValueError(ACCEPTED)
    host = url.host
    if host and ("%" in host or host.startswith("/")):
        # A folder with the server's socket, which stands percent-encoded where a host would.
        query["host"], host = unquote(host), None
    return sa.URL.create("postgresql", url.username, url.password, host or None, url.port, database, query)


def _with_hosts_in_the_query(text: str) -> str:
    """Several hosts, which libpq writes with commas, as SQLAlchemy takes them: in the query, each with its port."""
    scheme, separator, rest = text.partition("://")
    place = re.search(r"[/?]", rest)
    authority, tail = (rest[: place.start()], rest[place.start() :]) if place else (rest, "")
    user, at, hosts = authority.rpartition("@")
    if "," not in hosts:
        return text
    pairs = [each.rpartition(":") if ":" in each else (each, "", "5432") for each in hosts.split(",")]
    given = f"host={','.join(host for host, _, _ in pairs)}&port={','.join(port for _, _, port in pairs)}"
    path, _, query = tail.partition("?")
    return f"{scheme}{separator}{user}{at}{path or '/'}?{'&'.join(filter(None, (query, given)))}"


def _one(value: object) -> str | None:
    return value if isinstance(value, str) else None
