"""The base of every part of the configuration: strict about its keys, and helpful about those that are unknown."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

__all__ = ["Empty", "Section", "children", "nearest"]

Empty = BeforeValidator(lambda value: [] if value is None else value)
"""For lists: a key without a value means an empty list."""


class Section(BaseModel):
    """Keys of one level of the configuration file."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_means_defaults(cls, value: object) -> object:
        return {} if value is None else value


def children(section: type[Section]) -> dict[str, type[Section]]:
    """Return the fields of a section that are sections themselves."""
    found: dict[str, type[Section]] = {}
    for name, field in section.model_fields.items():
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            found[name] = annotation
    return found


def key_paths(section: type[Section], prefix: str = "") -> list[str]:
    """Return the full path of every key below a section."""
    nested = children(section)
    paths: list[str] = []
    for name in section.model_fields:
        path = f"{prefix}{name}"
        paths.append(path)
        if name in nested:
            paths += key_paths(nested[name], path + ".")
    return paths


def nearest(key: str, siblings: list[str], prefix: str, root: type[Section]) -> str | None:
    """
    Return the full path of the known key that was probably meant.

    Args:
        key: What was written.
        siblings: The keys that are known in its place.
        prefix: Full path of its place, with a dot at the end unless it is empty.
        root: The whole configuration: a key may be right and its place wrong.
    """
    plain = key.replace("-", "_").lower()
    close = difflib.get_close_matches(plain, siblings, n=1, cutoff=0.6)
    if close:
        return prefix + close[0]
    by_name: dict[str, str] = {}
    for path in key_paths(root):
        by_name.setdefault(path.rpartition(".")[2], path)
    elsewhere = difflib.get_close_matches(plain, by_name, n=1, cutoff=0.75)
    return by_name[elsewhere[0]] if elsewhere else None
