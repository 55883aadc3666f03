"""Whether a policy fits the live tables, for `housekeeping check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from housekeeping_pipelines.deletion.guards import check_privileges, check_published
from housekeeping_pipelines.deletion.plan import make_plan
from housekeeping_pipelines.errors import HousekeepingError, Refused
from housekeeping_pipelines.execution.checking import Check
from housekeeping_pipelines.postgres import errors as database_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from housekeeping_pipelines.deletion.policy import RowPolicy
    from housekeeping_pipelines.execution.checking import Surroundings


def check_policy(task: str, make_policy: Callable[[], RowPolicy], surroundings: Surroundings) -> Check:
    """Whether a task could run, and what its plan warns of."""
    connection = surroundings.connection
    try:
        policy = make_policy()
        plan = make_plan(surroundings.platform.catalog, policy.table, policy.undeclared, policy.follows)
        check_privileges(connection, plan, trashed=surroundings.trashed)
        check_published(connection, plan)
        # Planned, not executed: a comparison of types that do not fit is found without reading a row.
        statement = sa.select(sa.literal(1)).select_from(policy.table.selectable).where(policy.condition)
        compiled = statement.compile(dialect=connection.dialect)
        with connection.begin_nested():
            connection.exec_driver_sql(f"EXPLAIN {compiled.string}", compiled.params)
    except HousekeepingError as error:
        # A platform may lack a table; what it has must be usable.
        return Check.disabled(task, error, status="failed" if isinstance(error, Refused) else "warning")
    except sa.exc.DBAPIError as error:
        return Check(f"task {task}", "failed", f"disabled: {database_errors.describe(error)}")
    warnings = plan.warnings()
    return Check(
        f"task {task}", "warning" if warnings else "ok", f"takes {plan.describe()}", "; ".join(warnings) or None
    )
