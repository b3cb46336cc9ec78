"""Secrets of destinations that are written in a configuration file itself: they come from the environment or a file."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["written_secrets"]

Place: TypeAlias = tuple[int | str, ...]

# What headers and keys are called that let somebody in; docs/operating.md says so too.
_SECRET: Final = re.compile(r"authorization|cookie|token|secret|password|credential|api[-_.]?key", re.IGNORECASE)


def written_secrets(settings: Mapping[str, Any], filled_in: Collection[Place]) -> list[Place]:
    """
    Return the headers and keys of exporters whose names say that they are secrets, and whose values stand in the file.

    Args:
        settings: What the file says, valid or not.
        filled_in: Where `${...}` stood.
    """
    exporters = [("exporters", name) for name in _mapping(settings.get("exporters"))]
    sections = [*exporters, *((*place, "headers") for place in [*exporters, ("telemetry", "metrics")])]
    return [
        (*section, key)
        for section in sections
        for key in _secrets(settings, section)
        if (*section, key) not in filled_in
    ]


def _secrets(settings: Mapping[str, Any], section: tuple[str, ...]) -> Iterator[str]:
    found: Any = settings
    for key in section:
        found = _mapping(found).get(key)
    for name, value in _mapping(found).items():
        if value not in (None, "") and _SECRET.search(str(name)):
            yield name


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
