"""
Sums over all rows, under MLflow's names: `<feedback>/mean`, `/min`, `/max`, `/median`, `/variance`, `/p90`.

Only values that are numbers enter (bool and yes/no as 1 and 0): no error, no missing value, no `not_applicable`. Eight
bytes are kept of each value, however long the stream is.
"""

from __future__ import annotations

import math
import statistics
import warnings
from array import array
from typing import TYPE_CHECKING, Any, Final, cast

from otel_scorer.reporting.report import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.scorers.base import Scorer

__all__ = ["Tally"]

_P90: Final = 0.9


class Tally:
    """
    Adds up.

    Args:
        scorers: Whose `aggregations` count; the mean where one does not say.
    """

    def __init__(self, scorers: Iterable[Scorer]) -> None:
        self._wanted: dict[str, list[Any]] = {
            made.name: ["mean"] if made.aggregations is None else list(made.aggregations) for made in scorers
        }
        # By feedback name: the values, and the names of the scorers that said them.
        self._values: dict[str, array[float]] = {}
        self._said_by: dict[str, dict[str, None]] = {}

    def add(self, decisions: Iterable[Decision]) -> None:
        """Take the decisions about one row."""
        for decision in decisions:
            for feedback in decision.feedbacks:
                if feedback.error is None and (number := number_of(feedback.value)) is not None:
                    values = self._values.get(feedback.name)
                    if values is None:
                        values = self._values[feedback.name] = array("d")
                        self._said_by[feedback.name] = {}
                    values.append(number)
                    self._said_by[feedback.name][decision.scorer] = None

    @property
    def metrics(self) -> dict[str, float]:
        """The sums so far. An aggregation that is a function and fails is left out, with a warning."""
        metrics: dict[str, float] = {}
        for name, values in self._values.items():
            for aggregation in self._aggregations(name):
                ours = _FUNCTIONS.get(aggregation)
                label = f"{name}/{_label(aggregation)}"
                try:
                    # As a list the values take four times the memory.
                    metrics[label] = float(aggregation(values.tolist()) if ours is None else ours(values))
                except Exception as error:  # noqa: BLE001 - user code; what was scored must not be lost over it
                    warnings.warn(f"No {label}: {type(error).__name__}: {error}", UserWarning, stacklevel=2)
        return metrics

    def _aggregations(self, name: str) -> list[Any]:
        """
        Return how a feedback is summed up: as everybody wants who said it, each way once.

        What has another name than its scorer always has its mean: there MLflow asks nobody.
        """
        wanted: list[Any] = []
        for scorer in self._said_by[name]:
            is_its_own = scorer in {name, name.partition("/")[2]}
            for each in (*([] if is_its_own else ["mean"]), *self._wanted.get(scorer, ["mean"])):
                if each not in wanted:
                    wanted.append(each)
        return wanted


def _label(aggregation: Any) -> str:
    return aggregation if isinstance(aggregation, str) else getattr(aggregation, "__name__", "aggregation")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _p90(values: Sequence[float]) -> float:
    """Return the 90th percentile, between two values in proportion: numpy's default, which MLflow uses."""
    ordered = sorted(values)
    place = _P90 * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


_FUNCTIONS: Final = cast(
    "dict[str, Callable[[Sequence[float]], float]]",
    {
        "min": min,
        "max": max,
        "mean": _mean,
        "median": statistics.median,
        # Of the rows themselves, not of a population that they stand for: as numpy and MLflow.
        "variance": statistics.pvariance,
        "p90": _p90,
    },
)
