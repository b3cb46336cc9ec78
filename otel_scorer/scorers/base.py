"""
Scorers: the `@scorer` decorator, the `Scorer` class, and how any callable becomes one.

A scorer says what it wants by its parameters' names (`inputs`, `outputs`, `expectations`, `trace`, `span`) and returns
bool, int, float, str, `Feedback`, a list of `Feedback`, or None. The contract is MLflow's.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, cast, overload

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic._internal._model_construction import ModelMetaclass
from pydantic.errors import PydanticUserError

from otel_scorer.errors import ScorerError
from otel_scorer.model.trace import MISSING
from otel_scorer.scorers.arguments import Signature
from otel_scorer.scorers.evidence import Evidence
from otel_scorer.scorers.passing import PassIf, parse_condition
from otel_scorer.scorers.turn import Turn
from otel_scorer.scorers.versions import digest

if TYPE_CHECKING:
    from otel_scorer.model.trace import Span, Trace

__all__ = ["Scorer", "ScorerDefinitionError", "ScorerOptions", "as_scorer", "as_scorers", "scorer"]

Aggregation = Literal["min", "max", "mean", "median", "variance", "p90"] | Callable[..., Any]

_LAMBDA: Final = "lambda"


class ScorerDefinitionError(ScorerError, TypeError):
    """A scorer class or function is written in a way that cannot work."""


class _ScorerType(ModelMetaclass):
    """Says in scorer words what pydantic says about class attributes that every instance would share."""

    def __new__(  # noqa: D102 - see the class
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> type:
        try:
            return super().__new__(mcs, name, bases, namespace, **options)
        except PydanticUserError as error:
            if error.code != "model-field-missing-annotation":
                raise
            _refuse_unannotated(name, str(error))


def _refuse_unannotated(class_name: str, complaint: str) -> NoReturn:
    found = re.search(r"`(\w+) = |Field '(\w+)'", complaint)
    attribute = "an attribute" if found is None else f"`{found[1] or found[2]}`"
    field = "name" if found is None else found[1] or found[2]
    msg = (
        f"Scorer class {class_name!r} sets {attribute} without a type annotation, so all its instances would share it. "
        f"Annotate it to make it a field (`{field}: list = []`), set it in `__init__` after `super().__init__(...)` "
        f"(`self.{field} = []`), or keep it private with `pydantic.PrivateAttr`"
    )
    raise ScorerDefinitionError(msg)


class ScorerOptions(BaseModel):
    """
    What can be said of every scorer, in code, by `with_options`, or in YAML.

    Attributes:
        name: Name of the scorer, and of feedback that has none of its own.
        description: What it judges, for people.
        aggregations: How `evaluate` sums its values up; default: the mean.
        timeout: Seconds for one call; 0: no limit; None: the limit of whoever runs it.
        version: Its version; default: a digest of its definition.
        pass_if: When a value passes: a callable, or text such as `">= 0.7"`.
        sample_rate: Share of the traces that it sees, 0 to 1.
        filter: CEL expression that a trace (or span) must fulfil.
        span_types: Judge every span of these types, instead of the trace.
        concurrent: Calls on this instance may overlap in a process.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="ignore", protected_namespaces=())

    name: str = Field(min_length=1)
    description: str | None = None
    aggregations: list[Aggregation] | None = None
    timeout: float | None = None
    version: str | None = None
    pass_if: PassIf | None = None
    sample_rate: float = Field(default=1.0, ge=0.0, le=1.0)
    filter: str | None = None
    span_types: tuple[str, ...] = ()
    concurrent: bool = False

    @field_validator("timeout", "sample_rate", mode="before", check_fields=False)
    @classmethod
    def _is_a_number(cls, value: object) -> object:
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)):
            return value
        msg = f"must be a finite number, got {value!r}"
        raise ValueError(msg)

    @field_validator("timeout", check_fields=False)
    @classmethod
    def _is_not_negative(cls, value: float | None) -> float | None:
        if value is not None and value < 0:
            msg = f"must be 0 (no limit) or more seconds, got {value!r}"
            raise ValueError(msg)
        return value

    @field_validator("span_types", mode="before", check_fields=False)
    @classmethod
    def _is_a_sequence(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else () if value is None else value

    @field_validator("pass_if", check_fields=False)
    @classmethod
    def _can_be_read(cls, value: PassIf | None) -> PassIf | None:
        if isinstance(value, str):
            parse_condition(value)
        return value


_OPTION_NAMES: Final = frozenset(ScorerOptions.model_fields)


class Scorer(ScorerOptions, metaclass=_ScorerType):
    """
    Judges traces. Subclass it, give `name` a default, add typed fields, and write `__call__`.

    ```python
    class MinimumLength(Scorer):
        name: str = "minimum_length"
        characters: int = 50

        def __call__(self, outputs: str) -> bool:
            return len(outputs) >= self.characters
    ```

    `__call__` may be `async def`. State may be set in `__init__`; it is per instance and per process, and calls on one
    instance do not overlap unless `concurrent` is true.
    """

    def __init__(self, **data: Any) -> None:
        # Attributes that a subclass set before it called us would be lost: pydantic starts with an empty dict.
        early = dict(self.__dict__)
        super().__init__(**data)
        for key, value in early.items():
            self.__dict__.setdefault(key, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Judge. Called by hand, a scorer returns exactly what its code returned."""
        msg = f"Scorer class {type(self).__name__!r} has no `__call__`"
        raise NotImplementedError(msg)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in type(self).model_fields or name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.__dict__[name] = value

    @property
    def code(self) -> Callable[..., Any]:
        """What is called to judge: the function, or the bound `__call__`."""
        return self.__call__

    @property
    def is_async(self) -> bool:
        """Whether a call returns a coroutine."""
        code = self.code
        layers = (code, inspect.unwrap(code), getattr(code, "__call__", None))  # noqa: B004 - its code, not whether
        return any(inspect.iscoroutinefunction(layer) for layer in layers)

    @property
    def signature(self) -> Signature:
        """What the scorer asks for, read once."""
        found = self.__dict__.get("_signature")
        if found is None:
            found = self.__dict__["_signature"] = Signature.of(self.code, self.name)
        return cast("Signature", found)

    @property
    def turn(self) -> Turn:
        """Keeps calls on this instance from overlapping; shared with shallow copies, as the state is."""
        return cast("Turn", self.__dict__.setdefault("_turn", Turn()))

    @property
    def scorer_version(self) -> str:
        """`version`, or 12 hex digits made from the scorer's definition and its own fields."""
        return self.version or digest(*self._definition())

    def _definition(self) -> tuple[Any, Mapping[str, object]]:
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in _OPTION_NAMES}
        return type(self), own

    def with_options(self, **options: Any) -> Self:
        """
        Return a copy with some options changed; it shares the state of the original.

        Args:
            options: Any of `ScorerOptions`.

        Raises:
            ScorerError: There is no such option.
            pydantic.ValidationError: A value cannot be meant.
        """
        for name in options:
            if name not in _OPTION_NAMES:
                msg = f"Scorer {self.name!r} has no option {name!r}; there are {', '.join(sorted(_OPTION_NAMES))}"
                raise ScorerError(msg)
        checked = ScorerOptions.model_validate({"name": self.name, **options})
        _ = self.turn  # made now, so that the copy has the same one
        changed = self.model_copy()
        changed.__dict__.update({name: getattr(checked, name) for name in options})
        changed.__pydantic_fields_set__.update(options)
        return changed

    def run(
        self,
        *,
        inputs: Any = MISSING,
        outputs: Any = MISSING,
        expectations: Any = MISSING,
        trace: Trace | None = None,
        span: Span | None = None,
    ) -> Any:
        """
        Call the scorer with what it asks for of these, and return what it returned.

        What is not given is looked up in the trace. A coroutine scorer is run to its end; where an event loop is
        running already, call the scorer itself and await it.

        Raises:
            NotApplicableError: Something that the scorer needs is missing.
            ScorerError: The scorer is a coroutine function and this thread runs an event loop.
        """
        evidence = Evidence(trace, span, inputs=inputs, outputs=outputs, expectations=expectations)
        positional, named = self.signature.fit(evidence.look_up)
        result = self.code(*positional, **named)
        return run_to_end(result, self.name) if inspect.iscoroutine(result) else result


def run_to_end(coroutine: Any, name: str) -> Any:
    """
    Run a coroutine in this thread.

    Raises:
        ScorerError: An event loop runs here already.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    coroutine.close()
    msg = f"Scorer {name!r} is a coroutine, and this thread runs an event loop: await it instead"
    raise ScorerError(msg)


class FunctionScorer(Scorer):
    """A scorer made of a callable."""

    if TYPE_CHECKING:
        # In the instance's dict, not a private attribute of pydantic's: those cost a microsecond to read.
        _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any], /, **options: Any) -> None:
        super().__init__(**options)
        functools.update_wrapper(cast("Any", self), function, updated=())
        self.__dict__["_function"] = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Scorer:
        """Return the scorer; one that was made of a method is bound to its object."""
        if instance is None or next(iter(inspect.signature(self._function).parameters), None) != "self":
            return self
        options = {name: getattr(self, name) for name in _OPTION_NAMES}
        return FunctionScorer(cast("Any", self._function).__get__(instance, owner), **options)

    @property
    def code(self) -> Callable[..., Any]:
        return self._function

    def _definition(self) -> tuple[Any, Mapping[str, object]]:
        return self._function, {}


@overload
def scorer(
    func: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    version: str | None = None,
    aggregations: list[Any] | None = None,
    pass_if: PassIf | None = None,
    timeout: float | None = None,
    sample_rate: float | None = None,
    filter: str | None = None,
    span_types: Iterable[str] | None = None,
    concurrent: bool | None = None,
) -> Scorer: ...


@overload
def scorer(
    func: None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    version: str | None = None,
    aggregations: list[Any] | None = None,
    pass_if: PassIf | None = None,
    timeout: float | None = None,
    sample_rate: float | None = None,
    filter: str | None = None,
    span_types: Iterable[str] | None = None,
    concurrent: bool | None = None,
) -> Callable[[Callable[..., Any]], Scorer]: ...


def scorer(
    func: Callable[..., Any] | None = None, **options: Any
) -> Scorer | Callable[[Callable[..., Any]], Scorer]:
    """
    Make a scorer of a function: `@scorer`, `@scorer(name=..., ...)`, or `scorer(any_callable, ...)`.

    Args:
        func: Any callable: function, coroutine function, method, lambda, partial, callable object.
        options: See `ScorerOptions`. `name` defaults to the function's.

    Raises:
        ScorerDefinitionError: `func` cannot be called.
        pydantic.ValidationError: An option cannot be meant.
    """
    unknown = sorted(set(options) - _OPTION_NAMES)
    if unknown:
        msg = f"scorer() has no option {unknown[0]!r}; there are {', '.join(sorted(_OPTION_NAMES))}"
        raise ScorerDefinitionError(msg)
    given = {key: value for key, value in options.items() if value is not None}
    if func is None:
        return lambda function: _scorer_of(function, given)
    return _scorer_of(func, given)


def _scorer_of(function: Any, options: Mapping[str, Any]) -> Scorer:
    if isinstance(function, type):
        _refuse_class(function)
    if isinstance(function, Scorer):
        return function.with_options(**options) if options else function
    if not callable(function):
        msg = f"A scorer is a callable or a Scorer, got {function!r}"
        raise ScorerDefinitionError(msg)
    return FunctionScorer(function, **{**options, "name": options.get("name") or _name_of(function)})


def _refuse_class(given: type) -> NoReturn:
    kind = "scorer class" if issubclass(given, Scorer) else "class"
    msg = f"{given.__name__} is a {kind}; give an instance of it: {given.__name__}(...)"
    raise ScorerDefinitionError(msg)


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = cast("functools.partial[object]", function).func
    name = getattr(function, "__name__", None) or getattr(function, "name", None)
    if not isinstance(name, str):
        name = type(function).__name__
    return _LAMBDA if name == "<lambda>" else name


def as_scorer(function: Callable[..., Any]) -> Scorer:
    """
    Return a callable as a scorer; a Scorer is returned as it is.

    Raises:
        ScorerError: It is a class, cannot be called, has no readable signature, or was not initialised.
    """
    found = _scorer_of(function, {})
    if not hasattr(found, "__pydantic_fields_set__"):
        msg = f"{type(found).__name__}.__init__ must call super().__init__(name=...)"
        raise ScorerDefinitionError(msg)
    _ = found.signature  # read now: what cannot be read is reported where the scorer is given
    return found


def as_scorers(functions: Iterable[Callable[..., Any]]) -> list[Scorer]:
    """
    Return callables as scorers, in their order.

    Lambdas without a name are called `lambda`, `lambda_2` and so on. Scorers of the same name are kept, with a warning.

    Raises:
        ScorerError: One of them is no scorer, or `functions` is no list.
    """
    if isinstance(functions, str | Mapping) or callable(functions) or not isinstance(functions, Iterable):
        msg = f"`scorers` must be a list of scorers, got {type(functions).__name__}"
        raise ScorerDefinitionError(msg)
    scorers: list[Scorer] = []
    lambdas = 0
    for function in functions:
        made = as_scorer(function)
        if made.name == _LAMBDA and isinstance(made, FunctionScorer):
            lambdas += 1
            made = made if lambdas == 1 else made.with_options(name=f"{_LAMBDA}_{lambdas}")
        scorers.append(made)
    names = [made.name for made in scorers]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        warnings.warn(f"{names.count(name)} scorers are called {name!r}; all of them run", UserWarning, stacklevel=2)
    return scorers
