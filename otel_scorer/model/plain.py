"""Objects of users as plain data: what JSON says of a pydantic model, a dataclass or a number of numpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from otel_scorer.model.assessment import as_text

__all__ = ["plain"]


def plain(value: object) -> object:
    """Return what stands for an object in JSON (`default` of `json.dumps`): its data, else its `str`. Never raises."""
    try:
        return _data(value)
    except Exception:  # noqa: BLE001 - the object is anybody's, and so is what it does when it is asked
        return as_text(value)


def _data(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, type):
        return as_text(value)
    if dataclasses.is_dataclass(value):
        # One by one: what is in them comes here by itself, and need not be copied.
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    dump: Any = getattr(value, "model_dump", None)
    if callable(dump):
        return dump()
    # Of numpy, which may not be installed; an array has no single item.
    is_scalar = type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0
    found = cast("Any", value).item() if is_scalar else value
    return found if isinstance(found, bool | int | float | str) else as_text(value)
