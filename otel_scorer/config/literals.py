"""Secrets of destinations that are written in a configuration file itself: they come from the environment or a file."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["written_secrets"]

Place: TypeAlias = tuple[int | str, ...]

# What headers are called that let somebody in; docs/operating.md says so too.
_SECRET: Final = re.compile(r"authorization|cookie|token|secret|password|credential|api[-_.]?key", re.IGNORECASE)


def written_secrets(settings: Mapping[str, Any], filled_in: Collection[Place]) -> list[Place]:
    """
    Return the headers in a file whose names say that they are secrets, and whose values stand there.

    Args:
        settings: What the file says, valid or not.
        filled_in: Where `${...}` stood.
    """
    places = [("exporters", name) for name in _mapping(settings.get("exporters"))] + [("telemetry", "metrics")]
    return [
        (*place, "headers", header)
        for place in places
        for header in _headers(settings, place)
        if (*place, "headers", header) not in filled_in
    ]


def _headers(settings: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[str]:
    found: Any = settings
    for key in (*place, "headers"):
        found = _mapping(found).get(key)
    for name, value in _mapping(found).items():
        if value not in {None, ""} and _SECRET.search(str(name)):
            yield name


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
