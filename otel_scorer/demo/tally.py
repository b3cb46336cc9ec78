"""Sums of the verdicts that arrived, by feedback name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_scorer.demo.backend import Verdict

__all__ = ["Tally", "Totals"]


@dataclass(slots=True)
class Totals:
    """
    Verdicts of one name.

    Attributes:
        scored: How many came, without errors.
        passed: Labelled `pass`.
        failed: Labelled `fail`.
        no_value: With neither value nor error.
        errors: With an error instead of a value.
        numbers: How many have a number (1 and 0 for pass and fail).
        total: Sum of these.
    """

    scored: int = 0
    passed: int = 0
    failed: int = 0
    no_value: int = 0
    errors: int = 0
    numbers: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float | None:
        """Mean of the numbers, or None if there is none."""
        return self.total / self.numbers if self.numbers else None


class Tally:
    """Adds verdicts up."""

    def __init__(self) -> None:
        self.by_name: dict[str, Totals] = {}

    def add(self, verdict: Verdict) -> None:
        """Count one verdict."""
        totals = self.by_name.setdefault(verdict.name, Totals())
        if verdict.error_type is not None:
            totals.errors += 1
            return
        totals.scored += 1
        totals.passed += verdict.label == "pass"
        totals.failed += verdict.label == "fail"
        totals.no_value += verdict.value is None
        if verdict.score is not None:
            totals.numbers += 1
            totals.total += verdict.score
