"""
YAML as settings are written in: duplicate keys are errors, only `true` and `false` are booleans, lines are remembered.

YAML 1.1, which the library reads by default, takes `off` for False, `12:30` for 750 and `2024-01-01` for a date. None
of that helps in a configuration file, so scalars follow the core schema of YAML 1.2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

import yaml

from otel_scorer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["YamlText"]

_SCALARS: Final = (
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars and without duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - declared so by PyYAML

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Read decimal digits; in YAML 1.1 a leading zero meant octal."""
        return int(self.construct_scalar(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        """Refuse a key that is there twice: one of the two values would be lost in silence."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return cast("dict[Any, Any]", super().construct_mapping(node, deep=deep))


_loader_class: Any = _Loader  # PyYAML's classes are not typed
for _tag, _pattern, _first in _SCALARS:
    _loader_class.add_implicit_resolver(_tag, _pattern, list(_first))
_loader_class.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class YamlText:
    """A parsed YAML document that knows where each value was written."""

    def __init__(self, text: str, name: str) -> None:
        """
        Parse a document.

        Args:
            text: The document.
            name: What to call it in messages.

        Raises:
            ConfigError: It is not YAML, or has a key twice.
        """
        loader: Any = _Loader(text)  # PyYAML's classes are not typed
        try:
            self._root: Any = loader.get_single_node()
            self.value: Any = None if self._root is None else loader.construct_document(self._root)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
            raise ConfigError(f"{name}{where}: not usable as YAML: {error.problem or error.context}") from error
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise ConfigError(f"{name}: not usable as YAML: {str(error).splitlines()[0]}") from error
        finally:
            loader.dispose()

    def line_of(self, path: Sequence[str | int]) -> int | None:
        """Return the line (from 1) of the deepest part of a path that is written in the document."""
        node, line = self._root, None
        for step in path:
            if isinstance(node, yaml.MappingNode):
                pairs = [pair for pair in node.value if pair[0].value == str(step)]
                if not pairs:
                    break
                line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            else:
                break
        return line
