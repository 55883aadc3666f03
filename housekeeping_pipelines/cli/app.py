"""The command assembled from its parts, and the exit codes of their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
import typer

from housekeeping_pipelines.cli import output
from housekeeping_pipelines.cli.commands import dagster_processes, demo, files, holds, platform, tasks, trash, watch
from housekeeping_pipelines.errors import HousekeepingError
from housekeeping_pipelines.postgres.errors import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

# typer bundles its own copy of click and exports only some of its errors: this is the base class of usage errors.
UsageError: type[typer.BadParameter] = typer.BadParameter.__bases__[0]

USAGE = 2
INTERRUPTED = 130

app = typer.Typer(
    name="housekeeping",
    help="Keeps a chat-and-document platform clean, with undo.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (demo, platform, tasks, files, watch, trash, dagster_processes):
    part.register(app)
app.add_typer(holds.app, name="hold")


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    as_json = "--json" in arguments
    try:
        result = app(list(arguments), standalone_mode=False)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return USAGE
        message = error.format_message().replace("Value error, ", "")
        hint = f"see `{error.ctx.command_path} --help`" if error.ctx else None
        output.error("UsageError", message, hint, as_json=as_json)
        return USAGE
    except typer.Exit as error:
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        output.error("Interrupted", "interrupted", "run it again to continue; committed work is kept", as_json=as_json)
        return INTERRUPTED
    except HousekeepingError as error:
        output.error(type(error).__name__, error.message, error.hint, as_json=as_json)
        return error.exit_code
    except sa.exc.DBAPIError as error:
        output.error("DatabaseError", describe(error), None, as_json=as_json)
        return 1
    return result if isinstance(result, int) else 0
