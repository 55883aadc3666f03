"""An account that owns anything stays, whether or not a key says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from housekeeping_pipelines.application import tables
from housekeeping_pipelines.application.config import HousekeepingConfig
from housekeeping_pipelines.application.platform import Platform
from housekeeping_pipelines.retention import policies
from housekeeping_pipelines_tests.deletion.support import OLD, column, delete, sql

if TYPE_CHECKING:
    from datetime import datetime

    import sqlalchemy as sa

    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.postgres.catalog import Catalog


@pytest.fixture
def platform(engine: sa.Engine) -> sa.Engine:
    """Accounts 1 to 3, never used; of the platform's other tables, there are none."""
    tables.metadata.create_all(engine, tables=[tables.metadata.tables["users"]])
    sql(
        engine,
        "INSERT INTO users (id, username, email, date_joined) OVERRIDING SYSTEM VALUE"
        f" SELECT i, 'user' || i, 'x', '{OLD}' FROM generate_series(1, 3) i",
    )
    return engine


def clean(engine: sa.Engine, **inactive_users: Any) -> Any:
    config = HousekeepingConfig.model_validate({"inactive_users": inactive_users})

    def policy(catalog: Catalog, now: datetime) -> RowPolicy:
        return policies.inactive_users(Platform(catalog, config), now, older_than_days=7)

    return delete(engine, policy, allow_large_deletion=True)


@pytest.mark.parametrize("name", ["user_id", "userId", "owner_id", "author", "created_by", "uploaded_by_id", "user"])
@pytest.mark.parametrize("kind", ["bigint", "int", "text", "varchar(20)", "numeric"])
def test_a_column_without_a_key_counts(platform: sa.Engine, name: str, kind: str) -> None:
    sql(platform, f'CREATE TABLE notes (id int PRIMARY KEY, "{name}" {kind})', "INSERT INTO notes VALUES (1, '2')")
    report = clean(platform)
    assert (report.status, report.deleted) == ("succeeded", {"users": 2})
    assert column(platform, "SELECT id FROM users") == [2]
    assert f"owns nothing in notes.{name}" in report.sample[0].reason
    assert column(platform, "SELECT id FROM notes") == [1]


@pytest.mark.parametrize("definition", ["user_name text", "account_id bigint", "user_id timestamptz", "user_id float8"])
def test_a_column_that_holds_no_accounts_does_not(platform: sa.Engine, definition: str) -> None:
    sql(platform, f"CREATE TABLE notes (id int PRIMARY KEY, {definition})")
    assert clean(platform).deleted == {"users": 3}


def test_uuids_and_the_name_of_the_users_table(platform: sa.Engine) -> None:
    sql(
        platform,
        "DROP TABLE users",
        "CREATE TABLE auth_users (id uuid PRIMARY KEY, is_active bool, date_joined timestamptz)",
        f"INSERT INTO auth_users SELECT ('00000000-0000-0000-0000-00000000000' || i)::uuid, false, '{OLD}'"
        " FROM generate_series(1, 4) i",
        "CREATE TABLE notes (id int PRIMARY KEY, auth_user_id uuid)",
        "INSERT INTO notes VALUES (1, '00000000-0000-0000-0000-000000000001')",
        "CREATE TABLE texts (id int PRIMARY KEY, owner text)",
        "INSERT INTO texts VALUES (1, '00000000-0000-0000-0000-000000000002')",
    )
    config = HousekeepingConfig.model_validate({"tables": {"users": {"name": "auth_users"}}})

    def policy(catalog: Catalog, now: datetime) -> RowPolicy:
        return policies.inactive_users(Platform(catalog, config), now, older_than_days=7)

    assert delete(platform, policy, allow_large_deletion=True).deleted == {"auth_users": 2}


def test_a_column_can_be_ignored_by_name(platform: sa.Engine) -> None:
    sql(
        platform,
        "CREATE TABLE audit_log (id int PRIMARY KEY, user_id bigint)",
        "INSERT INTO audit_log SELECT i, i FROM generate_series(1, 3) i",
    )
    assert clean(platform).deleted == {}
    assert clean(platform, ignored_columns=["audit_log.user_id"]).deleted == {"users": 3}
    assert column(platform, "SELECT count(*) FROM audit_log") == [3]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"account_tables": ["profiles"]}, "no key leads from profiles to users"),
        ({"account_tables": ["emails", "profiles"]}, "no key leads from profiles to users"),
        ({"account_tables": ["nowhere"]}, "there is no table nowhere"),
        ({"ignored_columns": ["profiles.owner"]}, "profiles has no column owner"),
        ({"ignored_columns": ["user_id"]}, "there is no table "),
    ],
)
def test_what_cannot_be_meant_is_refused(platform: sa.Engine, given: dict[str, Any], message: str) -> None:
    sql(
        platform,
        "CREATE TABLE profiles (id int PRIMARY KEY, user_id bigint)",
        "CREATE TABLE emails (id int PRIMARY KEY, user_id bigint REFERENCES users)",
    )
    report = clean(platform, **given)
    assert (report.status, report.error_type, report.deleted) == ("failed", "ConfigurationError", {})
    assert message in str(report.message)


def test_many_columns_are_counted_and_not_all_named(platform: sa.Engine) -> None:
    sql(platform, *(f"CREATE TABLE t{i} (id int PRIMARY KEY, user_id bigint)" for i in range(9)))
    report = clean(platform)
    assert "t0.user_id, t1.user_id, t2.user_id, t3.user_id, t4.user_id, t5.user_id and 3 more columns" in (
        report.sample[0].reason
    )
