"""
Scorers: the `@scorer` decorator, the `Scorer` class, and how any callable becomes one.

A scorer says what it wants by its parameters' names (`inputs`, `outputs`, `expectations`, `trace`, `span`) and returns
bool, int, float, str, `Feedback`, a list of `Feedback`, or None. The contract is MLflow's.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, cast, overload

from otel_scorer.errors import ScorerError
from otel_scorer.model.trace import MISSING
from otel_scorer.scorers.arguments import Signature
from otel_scorer.scorers.evidence import Evidence
from otel_scorer.scorers.foreign import Adapted, adapter_of
from otel_scorer.scorers.lifecycle import Registrable
from otel_scorer.scorers.options import OPTION_NAMES, ScorerDefinitionError, ScorerOptions, ScorerType
from otel_scorer.scorers.turn import Turn
from otel_scorer.scorers.versions import digest

if TYPE_CHECKING:
    from otel_scorer.model.trace import Span, Trace
    from otel_scorer.scorers.passing import PassIf

__all__ = ["Scorer", "ScorerDefinitionError", "ScorerOptions", "as_scorer", "as_scorers", "scorer"]

_LAMBDA: Final = "lambda"


class Scorer(Registrable, ScorerOptions, metaclass=ScorerType):
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
        early = dict(_state(self))
        super().__init__(**data)
        for key, value in early.items():
            _state(self).setdefault(key, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Judge. Called by hand, a scorer returns exactly what its code returned."""
        msg = f"Scorer class {type(self).__name__!r} has no `__call__`"
        # The contract, no gap: MLflow's base class raises this, and code that catches it must go on to work.
        raise NotImplementedError(msg)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in type(self).model_fields or name.startswith("_"):
            super().__setattr__(name, value)
        else:
            _state(self)[name] = value

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
    def is_stateful(self) -> bool:
        """Whether an instance holds more than its fields; that state is per process and lost with it."""
        held = (name for name in _state(self) if not name.startswith("_"))
        return bool(type(self).__private_attributes__) or any(name not in type(self).model_fields for name in held)

    @property
    def signature(self) -> Signature:
        """What the scorer asks for, read once."""
        state = _state(self)
        if "_signature" not in state:
            state["_signature"] = Signature.of(self.code, self.name)
        return cast("Signature", state["_signature"])

    @property
    def turn(self) -> Turn:
        """Keeps calls on this instance from overlapping; shared with shallow copies, as the state is."""
        return cast("Turn", _state(self).setdefault("_turn", Turn()))

    @property
    def scorer_version(self) -> str:
        """`version`, or 12 hex digits made from the scorer's definition and its own fields."""
        return self.version or digest(*self._definition())

    def _definition(self) -> tuple[Any, Mapping[str, object]]:
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in OPTION_NAMES}
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
            if name not in OPTION_NAMES:
                msg = f"Scorer {self.name!r} has no option {name!r}; there are {', '.join(sorted(OPTION_NAMES))}"
                raise ScorerError(msg)
        checked = ScorerOptions.model_validate({"name": self.name, **options})
        _ = self.turn  # made now, so that the copy has the same one
        changed = self.model_copy()
        _state(changed).update({name: getattr(checked, name) for name in options})
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


def _state(made: Scorer) -> dict[str, Any]:
    """Return the instance's dict, where attributes lie that are no fields. pydantic's stubs call it a read-only one."""
    return cast("dict[str, Any]", made.__dict__)


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
        _state(self)["_function"] = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Scorer:
        """Return the scorer; one that was made of a method is bound to its object."""
        if instance is None or next(iter(inspect.signature(self._function).parameters), None) != "self":
            return self
        options = {name: getattr(self, name) for name in OPTION_NAMES}
        return FunctionScorer(cast("Any", self._function).__get__(instance, owner), **options)

    @property
    def code(self) -> Callable[..., Any]:
        return self._function

    def _definition(self) -> tuple[Any, Mapping[str, object]]:
        return self._function, {}


class ForeignScorer(FunctionScorer):
    """
    A scorer made of one of another package.

    Args:
        original: That one.
        adapted: What was made of it.
        options: Options that win over its own.
    """

    if TYPE_CHECKING:
        # In the instance's dict, as `_function`: who finds a reference for the store looks there.
        _original: object
        _own_options: ScorerOptions
        _adapted: Adapted

    def __init__(self, original: object, adapted: Adapted, /, **options: Any) -> None:
        super().__init__(adapted.function, **{**adapted.options, **options})
        _state(self).update(
            _original=original, _adapted=adapted, _own_options=ScorerOptions.model_validate(adapted.options)
        )

    def _definition(self) -> tuple[Any, Mapping[str, object]]:
        return self._adapted.code, self._adapted.state


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


def scorer(func: Callable[..., Any] | None = None, **options: Any) -> Scorer | Callable[[Callable[..., Any]], Scorer]:
    """
    Make a scorer of a function: `@scorer`, `@scorer(name=..., ...)`, or `scorer(any_callable, ...)`.

    Args:
        func: Any callable: function, coroutine function, method, lambda, partial, callable object; or a scorer of
            MLflow, DeepEval, Phoenix, pydantic-evals or autoevals.
        options: See `ScorerOptions`. `name` defaults to the function's.

    Raises:
        ScorerDefinitionError: `func` cannot be called.
        pydantic.ValidationError: An option cannot be meant.
    """
    unknown = sorted(set(options) - OPTION_NAMES)
    if unknown:
        msg = f"scorer() has no option {unknown[0]!r}; there are {', '.join(sorted(OPTION_NAMES))}"
        raise ScorerDefinitionError(msg)
    given = {key: value for key, value in options.items() if value is not None}
    if func is None:
        return functools.partial(_scorer_of, options=given)
    return _scorer_of(func, given)


def _scorer_of(function: Any, options: Mapping[str, Any]) -> Scorer:
    if isinstance(function, type):
        _refuse_class(function)
    if isinstance(function, Scorer):
        return function.with_options(**options) if options else function
    adapter = adapter_of(function)
    if adapter is not None:
        return ForeignScorer(function, adapter.adapt(function), **options)
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


def as_scorer(function: object) -> Scorer:
    """
    Return a callable, or a scorer of another package that is known, as a scorer; a Scorer is returned as it is.

    Raises:
        ScorerError: It is a class, cannot be called, has no readable signature, or was not initialised.
    """
    found = _scorer_of(function, {})
    if not hasattr(found, "__pydantic_fields_set__"):
        msg = f"{type(found).__name__}.__init__ must call super().__init__(name=...)"
        raise ScorerDefinitionError(msg)
    _ = found.signature  # read now: what cannot be read is reported where the scorer is given
    return found


def as_scorers(functions: Iterable[object]) -> list[Scorer]:
    """
    Return callables and scorers of other packages as scorers, in their order.

    Lambdas without a name are called `lambda`, `lambda_2` and so on. Scorers of the same name are kept, with a warning.

    Raises:
        ScorerError: One of them is no scorer or needs what nobody can give it, or `functions` is no list.
    """
    given = cast("object", functions)
    if callable(given) or not isinstance(given, Iterable) or isinstance(given, str | Mapping):
        msg = f"`scorers` must be a list of scorers, got {type(functions).__name__}"
        raise ScorerDefinitionError(msg)
    scorers: list[Scorer] = []
    lambdas = 0
    for function in functions:
        made = as_scorer(function)
        # Not for every row: what can never work is reported before anything runs.
        if made.signature.complaint is not None:
            msg = f"Scorer {made.name!r} {made.signature.complaint}"
            raise ScorerDefinitionError(msg)
        if made.name == _LAMBDA and isinstance(made, FunctionScorer):
            lambdas += 1
            made = made if lambdas == 1 else made.with_options(name=f"{_LAMBDA}_{lambdas}")
        scorers.append(made)
    names = [made.name for made in scorers]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        warnings.warn(f"{names.count(name)} scorers are called {name!r}; all of them run", UserWarning, stacklevel=2)
    return scorers
