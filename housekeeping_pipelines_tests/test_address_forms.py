"""Addresses as other drivers and consoles write them work as they are, or are refused with what to write."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from housekeeping_pipelines.address_forms import ACCEPTED, read_address
from housekeeping_pipelines.postgres.engine import make_engine

if TYPE_CHECKING:
    from housekeeping_pipelines_tests.support import Installation


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("postgres://u:p@h:5433/d", "postgresql://u:p@h:5433/d"),
        (" postgresql+asyncpg://u:p@h/d?ssl=require&statement_cache_size=0 ", "postgresql://u:p@h/d?sslmode=require"),
        ("postgresql+psycopg2://u@h/d?sslmode=verify-full", "postgresql://u@h/d?sslmode=verify-full"),
        (
            "postgresql://u:p@h/d?schema=shop&connection_limit=5&pool_timeout=2&pgbouncer=true",
            "postgresql://u:p@h/d?options=-csearch_path%3Dshop",
        ),
        ("postgresql://u:a%40b%2F@h/d?ssl=false", "postgresql://u:a%40b%2F@h/d?sslmode=disable"),
        ("postgresql://%2Fvar%2Frun%2Fpostgresql/d", "postgresql:///d?host=%2Fvar%2Frun%2Fpostgresql"),
        ("postgresql://u@a:1,b:2/d?target_session_attrs=primary",
         "postgresql://u@/d?host=a%2Cb&port=1%2C2&target_session_attrs=primary"),
        ("postgresql://a,b/d", "postgresql:///d?host=a%2Cb&port=5432%2C5432"),
        ("postgresql://u@h?dbname=d", "postgresql://u@h/d"),
        ("postgresql://[::1]:5433/d", "postgresql://[::1]:5433/d"),
    ],
)  # fmt: skip
def test_a_form_of_another_driver_is_read(given: str, read: str) -> None:
    url = read_address(given)
    assert url == sa.make_url(read)
    assert url.render_as_string(hide_password=False) == read


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mysql://u:secret@h/d", ACCEPTED),
        ("prisma://accelerate.example/?api_key=secret", ACCEPTED),
        ("host=h dbname=d password=secret", ACCEPTED),
        ("postgresql://u:secret@h/", ACCEPTED),
        ("postgresql://u:secret@h/d?sslmod=require", "libpq has no parameter sslmod: leave it out"),
        ("postgresql://u:secret@h/d?schema=a%22b", "name the schema by ?options=-csearch_path%3DSCHEMA"),
    ],
)
def test_what_is_not_read_is_refused_with_what_to_write(given: str, said: str) -> None:
    with pytest.raises(ValueError, match="accepted") as caught:
        read_address(given)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_addresses_connect(engine: sa.Engine) -> None:
    folder, port = str(engine.url.query["host"]), engine.url.query.get("port", "5432")
    database = engine.url.database
    for address in (
        f"postgresql://postgres@{quote(folder, safe='')}:{port}/{database}?schema=public&connection_limit=1",
        f"postgresql://postgres@/{database}?host=%2Fnowhere,{quote(folder, safe='')}&port={port},{port}",
        f"postgresql://postgres@127.0.0.1:1,{quote(folder, safe='')}:{port}/{database}",
    ):
        with make_engine(read_address(address)).connect() as connection:
            assert connection.scalar(sa.text("SELECT current_database()")) == database


def test_a_wrong_address_is_one_line(installation: Installation) -> None:
    done = installation.run("check", DATABASE_URL="postgresql://u:secret@h/d?sslmod=require")
    assert done.returncode == 2
    assert "libpq has no parameter sslmod" in done.stderr
    assert "secret" not in done.stderr + done.stdout
