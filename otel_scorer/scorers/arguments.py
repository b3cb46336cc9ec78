"""
What a scorer asks for, read from its signature once, and how it is given that on every call.

A parameter gets what its name says (`inputs`, `outputs`, `expectations`, `trace`, `span`) in the shape that its
annotation says. What nobody recorded is missing, which is not None: see `Signature.fit`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from otel_scorer.errors import ScorerError
from otel_scorer.model.read_only import copied
from otel_scorer.model.trace import MISSING
from otel_scorer.scorers.annotations import Namespaces, Shape, namespaces_of, read_annotation
from otel_scorer.scorers.mlflow_form import mlflow_form
from otel_scorer.scorers.text import text_of

if TYPE_CHECKING:
    from otel_scorer.model.trace import Span, Trace

__all__ = ["OFFERED", "Arguments", "NotApplicableError", "Offer", "Parameter", "Shape", "Signature"]

Offer = Literal["inputs", "outputs", "expectations", "trace", "span"]

OFFERED: Final[tuple[Offer, ...]] = ("inputs", "outputs", "expectations", "trace", "span")
"""The parameter names that a scorer can use."""

_OFFERS: Final[dict[str, Offer]] = {name: name for name in OFFERED}

Arguments: TypeAlias = tuple[list[Any], dict[str, Any]]

_VIEWS: Final[frozenset[Offer]] = frozenset({"trace", "span"})
_WRAP_KEYS: Final[dict[Offer, str]] = {"inputs": "input", "outputs": "output", "expectations": "expectation"}


class NotApplicableError(ScorerError):
    """Something that a scorer cannot do without was not recorded."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """
    One parameter of a scorer that otel_scorer fills in.

    Attributes:
        name: Its name.
        offer: What it is given; None: always its default, to reach a positional-only parameter behind it.
        shape: The shape in which it wants its value.
        optional: Whether None will do.
        default: Its default, or MISSING.
        positional: Whether it must be passed by position.
    """

    name: str
    offer: Offer | None
    shape: Shape
    optional: bool
    default: Any
    positional: bool


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
        namespaces = namespaces_of(function)
        parameters: list[Parameter] = []
        unknown: list[str] = []
        takes_all = False
        for parameter in found.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_all = True
            elif parameter.kind is parameter.VAR_POSITIONAL:
                continue
            elif (offer := _OFFERS.get(parameter.name)) is not None:
                parameters.append(_parameter(parameter, offer, namespaces))
            elif parameter.default is parameter.empty:
                unknown.append(parameter.name)
            elif parameter.kind is parameter.POSITIONAL_ONLY:
                parameters.append(_parameter(parameter, None, namespaces))
        return cls(tuple(parameters), tuple(unknown), takes_all)

    @property
    def wants(self) -> frozenset[str]:
        """The offered names that reach the scorer."""
        return frozenset(OFFERED) if self.takes_all else frozenset(parameter.name for parameter in self.parameters)

    @property
    def needs(self) -> tuple[str, ...]:
        """The offered names that it cannot do without."""
        return tuple(
            parameter.name
            for parameter in self.parameters
            if parameter.offer is not None and parameter.default is MISSING and not parameter.optional
        )

    @property
    def complaint(self) -> str | None:
        """Why it can never be called, in words that follow its name; None if it can."""
        if not self.unknown:
            return None
        session = "; only single traces are scored, never sessions" if "session" in self.unknown else ""
        return (
            f"needs {_quoted(self.unknown)}, which nobody can give it; "
            f"it can have {_quoted(OFFERED)}, and everything else needs a default{session}"
        )

    def fit(self, look_up: Callable[[Offer], Any]) -> Arguments:
        """
        Return what to call the scorer with.

        What a scorer does to its values touches nobody else's: lists and dicts are copies. A missing value becomes the
        parameter's default; None where the annotation is Optional or `**kwargs` takes it.

        Args:
            look_up: Returns the value of an offered name, or MISSING. Asked only for what the scorer wants.

        Raises:
            NotApplicableError: A value is missing that the scorer needs.
            TypeError: The scorer needs a parameter that otel_scorer does not know.
        """
        if self.unknown:
            msg = f"The scorer {self.complaint}"
            raise TypeError(msg)
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for parameter in self.parameters:
            offer = parameter.offer
            if offer is None:
                value = parameter.default
            else:
                value = look_up(offer)
                # Nobody can change a view, so it need not be copied.
                if value is MISSING or parameter.shape is not Shape.AS_IS or offer not in _VIEWS:
                    value = _fitted(parameter, offer, value)
            if parameter.positional:
                positional.append(value)
            else:
                named[parameter.name] = value
        if self.takes_all:
            taken = {parameter.name for parameter in self.parameters}
            for name in OFFERED:
                if name not in taken:
                    value = look_up(name)
                    named[name] = None if value is MISSING else copied(value)
        return positional, named


def _fitted(parameter: Parameter, offer: Offer, value: Any) -> Any:
    if value is MISSING:
        return _instead(parameter)
    if parameter.shape is Shape.AS_IS or (value is None and parameter.optional):
        return copied(value)
    if parameter.shape is Shape.TEXT:
        return text_of(value, offer)
    if parameter.shape is Shape.MLFLOW:
        return mlflow_form(cast("Trace | Span", value))
    if isinstance(value, Mapping):
        return copied(cast("Mapping[str, Any]", value))
    return {_WRAP_KEYS[offer]: copied(value)}


def _instead(parameter: Parameter) -> Any:
    """Return what a parameter gets whose value nobody recorded."""
    if parameter.default is not MISSING:
        return parameter.default
    if parameter.optional:
        return None
    msg = f"the scorer needs {parameter.name!r}, which nobody recorded"
    raise NotApplicableError(msg)


def _parameter(parameter: inspect.Parameter, offer: Offer | None, namespaces: Namespaces) -> Parameter:
    shape, optional = read_annotation(parameter.annotation, namespaces)
    default = MISSING if parameter.default is parameter.empty else parameter.default
    return Parameter(
        parameter.name,
        offer,
        shape if (offer in _WRAP_KEYS) is (shape is not Shape.MLFLOW) else Shape.AS_IS,
        optional or default is None,
        default,
        parameter.kind is parameter.POSITIONAL_ONLY,
    )


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)
