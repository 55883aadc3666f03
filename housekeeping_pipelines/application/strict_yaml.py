"""YAML read as it is written: the scalars of YAML 1.2, no key twice, and the place of each value.

YAML 1.1, which most parsers of Python read, takes `010` for 8, `1.10` for 1.1 and `on` for true, and the last of two
equal keys wins. The scalars are those of the core schema of YAML 1.2.2, section 10.3.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Path = tuple[str | int, ...]

_TAGS = "tag:yaml.org,2002:"

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

# A document nested more deeply would exceed the recursion of Python.
_MAX_DEPTH = 50
# Aliases of aliases can make a document of any size of a few lines.
_MAX_VALUES = 100_000
# Aliases of aliases can make a document of any size of a few lines.
_MAX_VALUES = 100_000


class YamlError(Exception):
    """The text is not a document of this form; the message begins with the line and the column."""


@dataclass
class Document:
    """A document and where its values are.

    Attributes:
        content: dictionaries, lists, text, numbers, booleans and null.
        places: line and column of each value by its path, counted from 1.
    """

    content: Any
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def place(self, path: Sequence[str | int]) -> str:
        """Where a value is, or the nearest that surrounds it: `line 3, column 5`."""
        for length in range(len(path), -1, -1):
            if (found := self.places.get(tuple(path[:length]))) is not None:
                return _place(*found)
        return _place(1, 1)


def read(text: str, *, as_text: Callable[[Path], bool] = lambda path: False) -> Document:
    """Read one document.

    Args:
        as_text: whether plain scalars other than null, at a path, are text as they are written.

    Raises:
        YamlError: it is not YAML, has a key twice, or has an alias, a tag or a key that is not text.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _place(mark.line + 1, mark.column + 1) if mark else "the text"
        raise YamlError(f"{place}: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise YamlError(" ".join(str(error).split())) from None
    document = Document(None)
    if root is not None:
        document.content = _Reader(document.places, as_text).value(root, ())
    return document


def _place(line: int, column: int) -> str:
    return f"line {line}, column {column}"


class _Reader:
    def __init__(self, places: dict[Path, tuple[int, int]], as_text: Callable[[Path], bool]) -> None:
        self._places = places
        self._as_text = as_text

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._places[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if len(self._places) > _MAX_VALUES:
            raise self._error(node, "it has too many values, or aliases of aliases")
        if not node.tag.startswith(_TAGS) or "/" in node.tag.removeprefix(_TAGS):
            raise self._error(node, f"the tag {node.tag} is not accepted")
        if len(self._places) > _MAX_VALUES:
            raise self._error(node, "it has too many values, or aliases of aliases")
        if not node.tag.startswith(_TAGS) or "/" in node.tag.removeprefix(_TAGS):
            raise self._error(node, f"the tag {node.tag} is not accepted")
        if len(path) > _MAX_DEPTH:
            raise self._error(node, "it is nested too deeply, or refers to itself")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*path, index)) for index, each in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
                raise self._error(key_node, "a key is not text")
            key = key_node.value
            if key in found:
                raise self._error(key_node, f"{key} stands here twice")
            found[key] = self.value(value_node, (*path, key))
        return found

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text = str(node.value)
        if isinstance(node, yaml.ScalarNode) and node.style is not None:
            return text
        if _NULL.fullmatch(text):
            return None
        if self._as_text(path):
            return text
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text):
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text

    @staticmethod
    def _error(node: yaml.Node, problem: str) -> YamlError:
        return YamlError(f"{_place(node.start_mark.line + 1, node.start_mark.column + 1)}: {problem}")
