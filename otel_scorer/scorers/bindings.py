"""Which names of a module stand for one thing only: a variable of a loop is another scorer each time."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ["is_bound_once"]

_SCOPES: Final = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)
_LOOPS: Final = (ast.For, ast.AsyncFor, ast.While)
# Numbers of what is no block inside a module; those of blocks are never negative.
_MODULE: Final = -1
_LOOPED: Final = -2


def is_bound_once(module: ModuleType, name: str) -> bool:
    """
    Tell whether whoever imports a module finds the same thing under a name as the module itself while it ran.

    It does not if a loop binds the name, or two statements of one block do. A module without source is believed.
    """
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, ValueError, SyntaxError):
        return True
    times = Counter(block for bound, block in _bindings(tree, block=_MODULE, looped=False) if bound == name)
    return times[_LOOPED] == 0 and all(count == 1 for count in times.values())


def _bindings(node: ast.AST, *, block: int, looped: bool) -> Iterator[tuple[str, int]]:
    """Yield each name that is bound in the scope of `node`, with a number for the block of statements that binds it."""
    for _, value in ast.iter_fields(node):
        held = cast("list[object]", value) if isinstance(value, list) else [value]
        # The list lives as long as the tree does, so no other block has its id.
        inner = id(held) if held and isinstance(held[0], ast.stmt) else block
        for child in held:
            if not isinstance(child, ast.AST):
                continue
            name = _bound(child)
            if name is not None:
                yield name, _LOOPED if looped else inner
            if not isinstance(child, _SCOPES):
                yield from _bindings(child, block=inner, looped=looped or isinstance(child, _LOOPS))


def _bound(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    return node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else None
