"""
Scorers of other packages, run unchanged: one module per package, none of which is a dependency.

A package is recognised by the names of an object's base classes, never by importing it: whoever has an object of it has
imported it already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_scorer.scorers.foreign import (
    autoevals_scorers,
    deepeval_metrics,
    mlflow_scorers,
    phoenix_evaluators,
    pydantic_evaluators,
)
from otel_scorer.scorers.foreign.adapted import Adapted

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ADAPTERS", "Adapted", "Adapter", "adapter_of", "adapter_of_class"]


class Adapter(NamedTuple):
    """
    How the scorers of one package are recognised and made ours.

    Attributes:
        package: How the names of its modules begin.
        bases: Names of the classes that its scorers derive from.
        adapt: Makes one of ours.
    """

    package: tuple[str, ...]
    bases: frozenset[str]
    adapt: Callable[[Any], Adapted]

    def recognises(self, given: type) -> bool:
        """Return whether a class is a scorer class of this package, or derives from one."""
        return any(base.__name__ in self.bases and base.__module__.startswith(self.package) for base in given.__mro__)


ADAPTERS: Final = (
    # First: MLflow has wrappers around metrics of other packages, which are scorers of MLflow.
    Adapter(("mlflow.",), frozenset({"Scorer"}), mlflow_scorers.adapt),
    Adapter(("deepeval.",), frozenset({"BaseMetric", "BaseConversationalMetric"}), deepeval_metrics.adapt),
    Adapter(("phoenix.evals.",), frozenset({"Evaluator"}), phoenix_evaluators.adapt),
    Adapter(("pydantic_evals.",), frozenset({"Evaluator"}), pydantic_evaluators.adapt),
    # Older versions keep the base class in a package of its own.
    Adapter(("autoevals.", "braintrust_core."), frozenset({"Scorer"}), autoevals_scorers.adapt),
)
"""In the order in which they are asked."""


def adapter_of(given: object) -> Adapter | None:
    """Return who can adapt an object; None if it is a scorer of no other package that is known."""
    return None if isinstance(given, type) else adapter_of_class(type(given))


def adapter_of_class(given: type) -> Adapter | None:
    """Return who can adapt the instances of a class."""
    if given.__module__ == "builtins":
        return None
    return next((adapter for adapter in ADAPTERS if adapter.recognises(given)), None)
