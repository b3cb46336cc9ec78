"""`${env:NAME}` and `${file:PATH}` in settings: where secrets come from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from otel_scorer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["expand"]

# `$${env:NAME}` stands for the text itself.
_REFERENCE: Final = re.compile(r"\$(\$\{[^}]*\})|\$\{([^}:]*)(?::([^}]*))?\}")

Path_ = tuple["str | int", ...]


def expand(value: Any, environ: Mapping[str, str], at: Path_ = ()) -> tuple[Any, set[Path_]]:
    """
    Replace the references in every text of a parsed document.

    It is done after parsing, so what a variable holds can never become structure.

    Args:
        value: The parsed document.
        environ: The environment.
        at: Where the value stands.

    Returns:
        The new value, and the paths of the texts that something was filled into: they may be secret.

    Raises:
        ConfigError: A variable or file is not there, or a reference is of another kind.
    """
    expanded: set[Path_] = set()
    if isinstance(value, str):
        text = _REFERENCE.sub(lambda match: _resolve(match, environ, at), value)
        return text, {at} if text != value else set()
    result: Any = value
    if isinstance(value, dict):
        result = {}
        for key, item in cast("dict[Any, Any]", value).items():
            result[key], found = expand(item, environ, (*at, key))
            expanded |= found
    elif isinstance(value, list):
        result = []
        for index, item in enumerate(cast("list[Any]", value)):
            new, found = expand(item, environ, (*at, index))
            result.append(new)
            expanded |= found
    return result, expanded


def _resolve(match: re.Match[str], environ: Mapping[str, str], at: Path_) -> str:
    escaped, kind, name = match.groups()
    if escaped:
        return cast("str", escaped)
    where = ".".join(map(str, at))
    if kind == "env" and name:
        variable, has_default, default = name.partition(":-")
        if variable in environ:
            return environ[variable]
        if has_default:
            return cast("str", default)
        raise ConfigError(f"{where}: the environment variable {variable} is not set")
    if kind == "file" and name:
        try:
            return Path(name).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
            raise ConfigError(f"{where}: cannot read the file {name}: {reason}") from error
    raise ConfigError(f"{where}: {match[0]} is neither ${{env:NAME}} nor ${{file:PATH}} (write $${{ for a plain ${{)")
