"""How much a value is once it is written out: lists that share lists may stand for more than any memory holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

__all__ = ["is_huge"]

# What a scorer may return; see `pipeline.workers`.
_LIMIT: Final = 32 << 20
# Bytes that an item counts as, beside its text: so looking through a value never takes long.
_ITEM: Final = 32
_SIMPLE: Final = frozenset({int, float, bool, type(None)})


def is_huge(value: object) -> bool:
    """Tell whether a value takes more than 32 MiB with all that is in it, or contains itself."""
    left = _LIMIT
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str | bytes):
            left -= len(item)
        elif isinstance(item, Mapping):
            inside = cast("Mapping[object, object]", item)
            left -= _ITEM * len(inside) + sum(len(key) for key in inside if isinstance(key, str))
            if left >= 0:
                todo += [each for each in inside.values() if type(each) not in _SIMPLE]
        elif isinstance(item, list | tuple | set | frozenset):
            items = cast("list[object]", item)
            left -= _ITEM * len(items)
            if left >= 0:
                todo += [each for each in items if type(each) not in _SIMPLE]
        if left < 0:
            return True
    return False
