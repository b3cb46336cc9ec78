"""
What a scorer asks for, read from its signature once, and how it is given that on every call.

A parameter gets what its name says (`inputs`, `outputs`, `expectations`, `trace`, `span`) in the shape that its
annotation says. What nobody recorded is missing, which is not None: see `Signature.fit`.
"""

from __future__ import annotations

import ast
import inspect
import types
import typing
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, cast

from otel_scorer.errors import ScorerError
from otel_scorer.model.trace import MISSING
from otel_scorer.scorers.text import text_of

__all__ = ["OFFERED", "Arguments", "NotApplicableError", "Parameter", "Shape", "Signature"]

Offer = Literal["inputs", "outputs", "expectations", "trace", "span"]

OFFERED: Final[tuple[Offer, ...]] = ("inputs", "outputs", "expectations", "trace", "span")
"""The parameter names that a scorer can use."""

Arguments = tuple[list[Any], dict[str, Any]]

_FITTED: Final = frozenset({"inputs", "outputs", "expectations"})
_WRAP_KEYS: Final = {"inputs": "input", "outputs": "output", "expectations": "expectation"}
_TEXT_NAMES: Final = frozenset({"str"})
_DICT_NAMES: Final = frozenset({"dict", "Dict", "Mapping", "MutableMapping"})


class NotApplicableError(ScorerError):
    """Something that a scorer cannot do without was not recorded."""


class Shape(StrEnum):
    """The shape in which a parameter wants its value."""

    AS_IS = "as_is"
    TEXT = "text"
    DICT = "dict"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a scorer that otel_scorer fills in, or would have to."""

    name: str
    shape: Shape
    optional: bool
    has_default: bool
    positional: bool
    default: Any = None


@dataclass(frozen=True, slots=True)
class Signature:
    """
    What a scorer asks for.

    Attributes:
        parameters: Those that get a value, in order.
        unknown: Required parameters that nobody can fill.
        takes_all: Whether `**kwargs` wants what no parameter names.
    """

    parameters: tuple[Parameter, ...]
    unknown: tuple[str, ...]
    takes_all: bool

    @classmethod
    def of(cls, function: Callable[..., object], owner: str) -> Signature:
        """
        Read the signature of `function`.

        Args:
            function: Any callable; a bound method has lost its `self`.
            owner: The scorer's name, for messages.

        Raises:
            ScorerError: It has no signature that Python can tell.
        """
        try:
            found = inspect.signature(function)
        except (TypeError, ValueError) as error:
            msg = f"Scorer {owner!r}: Python cannot tell the parameters of {function!r}; put it into a function"
            raise ScorerError(msg) from error
        namespaces = _namespaces(function)
        parameters: list[Parameter] = []
        unknown: list[str] = []
        takes_all = False
        for parameter in found.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_all = True
            elif parameter.name in OFFERED and parameter.kind is not parameter.VAR_POSITIONAL:
                parameters.append(_parameter(parameter, namespaces))
            elif parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is not parameter.empty:
                # Positional-only parameters are filled from the left, so this one must be passed to reach the next.
                parameters.append(Parameter(parameter.name, Shape.AS_IS, False, True, True, parameter.default))
            elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.default is parameter.empty:
                unknown.append(parameter.name)
        return cls(tuple(parameters), tuple(unknown), takes_all)

    @property
    def wants(self) -> frozenset[str]:
        """The offered names that reach the scorer."""
        return frozenset(OFFERED) if self.takes_all else frozenset(parameter.name for parameter in self.parameters)

    def fit(self, look_up: Callable[[Offer], Any]) -> Arguments:
        """
        Return what to call the scorer with.

        A missing value becomes the parameter's default; None where the annotation is Optional or `**kwargs` takes it.

        Args:
            look_up: Returns the value of an offered name, or MISSING. Asked only for what the scorer wants.

        Raises:
            NotApplicableError: A value is missing that the scorer needs.
            TypeError: The scorer needs a parameter that otel_scorer does not know.
        """
        if self.unknown:
            msg = (
                f"The scorer needs {_quoted(self.unknown)}, which nobody can give it; "
                f"it can have {_quoted(OFFERED)}, and everything else needs a default"
            )
            raise TypeError(msg)
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for parameter in self.parameters:
            value = parameter.default
            if parameter.name in OFFERED:
                value = _fitted(parameter, look_up(cast("Offer", parameter.name)))
            if parameter.positional:
                positional.append(value)
            else:
                named[parameter.name] = value
        if self.takes_all:
            taken = {parameter.name for parameter in self.parameters}
            for name in OFFERED:
                if name not in taken:
                    value = look_up(name)
                    named[name] = None if value is MISSING else value
        return positional, named


def _fitted(parameter: Parameter, value: Any) -> Any:
    if value is MISSING:
        if parameter.has_default:
            return parameter.default
        if parameter.optional:
            return None
        msg = f"the scorer needs {parameter.name!r}, which nobody recorded"
        raise NotApplicableError(msg)
    if parameter.shape is Shape.AS_IS or (value is None and parameter.optional):
        return value
    if parameter.shape is Shape.TEXT:
        return text_of(value, cast("Any", parameter.name))
    return value if isinstance(value, Mapping) else {_WRAP_KEYS[parameter.name]: value}


def _parameter(parameter: inspect.Parameter, namespaces: tuple[dict[str, Any], dict[str, Any]]) -> Parameter:
    shape, optional = _read_annotation(parameter.annotation, namespaces)
    has_default = parameter.default is not parameter.empty
    return Parameter(
        parameter.name,
        shape if parameter.name in _FITTED else Shape.AS_IS,
        optional or (has_default and parameter.default is None),
        has_default,
        parameter.kind is parameter.POSITIONAL_ONLY,
        parameter.default if has_default else None,
    )


def _read_annotation(annotation: Any, namespaces: tuple[dict[str, Any], dict[str, Any]]) -> tuple[Shape, bool]:
    """Return the shape that an annotation asks for, and whether it allows None."""
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    if not isinstance(annotation, str):
        return _read_type(annotation)
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return _read_type(typing.get_type_hints(holder, *namespaces)["it"])
    except Exception:  # noqa: BLE001 - evaluating an annotation can fail in any way; then its text must do
        return _read_text(annotation)


def _read_type(annotation: Any) -> tuple[Shape, bool]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _read_type(annotation.__origin__)
    if origin in {typing.Union, types.UnionType}:
        members = typing.get_args(annotation)
        rest = [member for member in members if member is not types.NoneType]
        shape = _read_type(rest[0])[0] if len(rest) == 1 else Shape.AS_IS
        return shape, len(rest) < len(members)
    if annotation is None or annotation is types.NoneType:
        return Shape.AS_IS, True
    plain = origin or annotation
    if isinstance(plain, typing.NewType):
        return _read_type(plain.__supertype__)
    if isinstance(plain, str):
        return _read_text(plain)
    if plain is str:
        return Shape.TEXT, False
    if plain in {dict, Mapping, MutableMapping} or typing.is_typeddict(plain):
        return Shape.DICT, False
    return Shape.AS_IS, False


def _read_text(annotation: str) -> tuple[Shape, bool]:
    """Read an annotation that names what cannot be imported now (`if TYPE_CHECKING:`), by its text alone."""
    try:
        return _read_node(ast.parse(annotation.strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        return Shape.AS_IS, False


def _read_node(node: ast.expr) -> tuple[Shape, bool]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _read_union([node.left, node.right])
    if isinstance(node, ast.Subscript):
        arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        name = _last_name(node.value)
        if name == "Optional":
            return _read_node(arguments[0])[0], True
        if name == "Union":
            return _read_union(arguments)
        if name == "Annotated":
            return _read_node(arguments[0])
        return _named_shape(name), False
    if isinstance(node, ast.Constant):
        return _read_text(node.value) if isinstance(node.value, str) else (Shape.AS_IS, node.value is None)
    return _named_shape(_last_name(node)), False


def _read_union(members: list[ast.expr]) -> tuple[Shape, bool]:
    read = [(_read_node(member), isinstance(member, ast.Constant) and member.value is None) for member in members]
    rest = [found for found, is_none in read if not is_none]
    optional = len(rest) < len(read) or any(allows_none for _, allows_none in rest)
    return (rest[0][0] if len(rest) == 1 else Shape.AS_IS), optional


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _named_shape(name: str) -> Shape:
    return Shape.TEXT if name in _TEXT_NAMES else Shape.DICT if name in _DICT_NAMES else Shape.AS_IS


def _namespaces(function: Callable[..., object]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the globals and the closure in which the annotations of `function` were written."""
    target: Any = function
    while not isinstance(target, types.FunctionType):
        inner = (
            getattr(target, "__wrapped__", None)
            or getattr(target, "func", None)
            or getattr(target, "__func__", None)
            or getattr(type(target), "__call__", None)
        )
        if inner is None or inner is target or isinstance(inner, types.WrapperDescriptorType | types.MethodWrapperType):
            return {}, {}
        target = inner
    target = inspect.unwrap(target)
    if not isinstance(target, types.FunctionType):
        return {}, {}
    return target.__globals__, _closure(target)


def _closure(function: types.FunctionType) -> dict[str, Any]:
    closure: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            closure[name] = cell.cell_contents
        except ValueError:  # a name that is bound only later, such as the scorer's own
            continue
    return closure


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)
