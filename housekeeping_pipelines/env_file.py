"""`.env`, read so that a line which is not understood is an error: the default in its place may be another database."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from dotenv.main import resolve_variables
from dotenv.parser import parse_stream

from housekeeping_pipelines.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def read_env_file(path: Path) -> dict[str, str]:
    """The variables that a file sets; none if it does not exist.

    Raises:
        ConfigurationError: it is not UTF-8, or a line does not set a variable; the text names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"{path.name} cannot be read: {error.strerror}", hint=f"check {path}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path.name} is not UTF-8", hint=f"save {path} as UTF-8") from None
    bindings = list(parse_stream(io.StringIO(text)))
    for binding in bindings:
        if binding.error:
            # The rest of the line may be a secret.
            raise ConfigurationError(
                f"{path.name}, line {binding.original.line} does not set a variable", hint=f"write NAME=value in {path}"
            )
    given = [(binding.key, binding.value) for binding in bindings if binding.key is not None]
    return {name: value for name, value in resolve_variables(given, override=True).items() if value is not None}
