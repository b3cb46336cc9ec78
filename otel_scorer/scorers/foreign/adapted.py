"""What an adapter makes of a scorer of another package, and what all adapters need for it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, TypeAlias, cast

from otel_scorer.model.feedback import AssessmentSource, AssessmentSourceType
from otel_scorer.scorers.foreign.case import ABSENT, Case

__all__ = ["Adapted", "Judge", "judge_of", "source_of", "state_of"]

Judge: TypeAlias = Callable[[Case], Any]
"""Judges a case and returns what a scorer may return, or a coroutine of it."""

# What may stand in the state of a scorer and says nothing about what it does.
_SECRET_WORDS: Final = ("key", "token", "secret", "password")


@dataclass(frozen=True, slots=True)
class Adapted:
    """
    A scorer of another package, as the rest of otel_scorer knows scorers.

    Attributes:
        function: Called to judge, with the parameters of a scorer.
        options: Its `ScorerOptions`; `name` at least.
        code: The class or function whose source makes its version.
        state: What else makes its version: settings, and the version of the package.
    """

    function: Callable[..., Any]
    options: Mapping[str, Any]
    code: Any
    state: Mapping[str, object] = field(default_factory=dict[str, object])


def judge_of(judge: Judge, *, is_async: bool) -> Callable[..., Any]:
    """Return a function with the parameters of a scorer that hands its arguments to `judge` as a case."""

    def call(inputs: Any = ABSENT, outputs: Any = ABSENT, expectations: Any = ABSENT, trace: Any = None) -> Any:
        return judge(Case(inputs, outputs, expectations, trace))

    if not is_async:
        return call

    @functools.wraps(call)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        return await call(*args, **kwargs)

    return call_async


def source_of(scorer: object, package: str, model: object = None, *, is_judge: bool = False) -> AssessmentSource:
    """Return the source of a foreign scorer's feedback: the model if a model judges, else package and class."""
    own = f"{package}:{type(scorer).__name__}"
    if is_judge or model is not None:
        return AssessmentSource(AssessmentSourceType.LLM_JUDGE, model if isinstance(model, str) and model else own)
    return AssessmentSource(AssessmentSourceType.CODE, own)


def state_of(scorer: object, distribution: str) -> dict[str, object]:
    """Return the settings of a foreign scorer: its public attributes that are no secrets."""
    held = cast("Mapping[str, object]", getattr(scorer, "__dict__", {}))
    state = {
        name: value
        for name, value in held.items()
        if not name.startswith("_") and not any(word in name.lower() for word in _SECRET_WORDS)
    }
    with contextlib.suppress(PackageNotFoundError):
        state[f"version of {distribution}"] = version(distribution)
    return state
