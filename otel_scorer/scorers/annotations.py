"""
What a parameter's annotation asks for: text, a dict or the value as it is, and whether None will do.

Annotations may be strings (`from __future__ import annotations`) and may name what is only imported for type checkers:
what cannot be evaluated is read by its text.
"""

from __future__ import annotations

import ast
import inspect
import types
import typing
from collections.abc import Callable, Mapping, MutableMapping
from enum import StrEnum
from typing import Any, Final, TypeAlias, cast

__all__ = ["Namespaces", "Shape", "namespaces_of", "read_annotation"]

Namespaces: TypeAlias = tuple[dict[str, Any], dict[str, Any]]
"""Globals, and the closure, in which a function was written."""

Reading: TypeAlias = "tuple[Shape, bool]"


class Shape(StrEnum):
    """The shape in which a parameter wants its value. `MLFLOW`: a trace or span as MLflow's own object."""

    AS_IS = "as_is"
    TEXT = "text"
    DICT = "dict"
    MLFLOW = "mlflow"


_SHAPES: Final = ((str, Shape.TEXT), (dict, Shape.DICT), (Mapping, Shape.DICT), (MutableMapping, Shape.DICT))
_MLFLOW_MODULES: Final = frozenset({"mlflow.entities.trace", "mlflow.entities.span"})
_NAMED_SHAPES: Final = {
    "str": Shape.TEXT,
    "dict": Shape.DICT,
    "Dict": Shape.DICT,
    "Mapping": Shape.DICT,
    "MutableMapping": Shape.DICT,
}


def read_annotation(annotation: Any, namespaces: Namespaces) -> Reading:
    """Return the shape that an annotation asks for, and whether it allows None."""
    if not isinstance(annotation, str):
        return _read_type(annotation)
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return _read_type(typing.get_type_hints(holder, *namespaces)["it"])
    except Exception:  # noqa: BLE001 - evaluating an annotation can fail in any way; then its text must do
        return _read_text(annotation)


def namespaces_of(function: Callable[..., object]) -> Namespaces:
    """Return where the annotations of a callable were written; nothing for what is not written in Python."""
    target: Any = inspect.unwrap(function)
    while not isinstance(target, types.FunctionType):
        inner = _inside(target)
        if inner is None:
            return {}, {}
        target = inspect.unwrap(inner)
    return target.__globals__, _closure(target)


def _inside(target: Any) -> Any:
    """Return the function behind a partial, a method or a callable object."""
    for name in ("__wrapped__", "func", "__func__"):
        inner = getattr(target, name, None)
        if callable(inner):
            return inner
    inner = getattr(cast("type[Any]", type(target)), "__call__", None)  # noqa: B004 - its code, not whether
    return inner if isinstance(inner, types.FunctionType) else None


def _closure(function: types.FunctionType) -> dict[str, Any]:
    closure: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            closure[name] = cell.cell_contents
        except ValueError:  # a name that is bound only later, such as the scorer's own
            continue
    return closure


def _read_type(annotation: Any) -> Reading:
    if isinstance(annotation, typing.ForwardRef):
        return _read_text(annotation.__forward_arg__)
    if isinstance(annotation, str):
        return _read_text(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        return _read_type(annotation.__origin__)
    if isinstance(annotation, typing.NewType):
        return _read_type(annotation.__supertype__)
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return _union([_read_type(member) for member in typing.get_args(annotation)])
    return _type_shape(annotation), annotation is None or annotation is types.NoneType


def _type_shape(annotation: Any) -> Shape:
    plain = typing.get_origin(annotation) or annotation
    if typing.is_typeddict(plain):
        return Shape.DICT
    if getattr(plain, "__module__", "") in _MLFLOW_MODULES and plain.__name__ in {"Trace", "Span"}:
        return Shape.MLFLOW
    return next((shape for known, shape in _SHAPES if plain is known), Shape.AS_IS)


def _union(members: list[Reading]) -> Reading:
    """A union with None is its other member; a union of several leaves the value as it is."""
    rest = [shape for shape, allows_none in members if not (allows_none and shape is Shape.AS_IS)]
    return (rest[0] if len(rest) == 1 else Shape.AS_IS), any(allows_none for _, allows_none in members)


def _read_text(annotation: str) -> Reading:
    try:
        return _read_node(ast.parse(annotation.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError):
        return Shape.AS_IS, False


def _read_node(node: ast.expr) -> Reading:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([_read_node(node.left), _read_node(node.right)])
    if isinstance(node, ast.Constant):
        return _read_text(node.value) if isinstance(node.value, str) else (Shape.AS_IS, node.value is None)
    if isinstance(node, ast.Subscript):
        return _read_subscript(_last_name(node.value), node.slice)
    return _NAMED_SHAPES.get(_last_name(node), Shape.AS_IS), False


def _read_subscript(name: str, inside: ast.expr) -> Reading:
    members = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    if name == "Optional":
        return _read_node(members[0])[0], True
    if name == "Union":
        return _union([_read_node(member) for member in members])
    if name == "Annotated":
        return _read_node(members[0])
    return _NAMED_SHAPES.get(name, Shape.AS_IS), False


def _last_name(node: ast.expr) -> str:
    """Return `c` of `a.b.c`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
