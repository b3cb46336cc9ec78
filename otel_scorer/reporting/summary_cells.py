"""One line of the summary as text: the same cells in the table, in Markdown and in HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_scorer.reporting.report import Summary

__all__ = ["HEADINGS", "cells", "percent"]

HEADINGS: Final = ("feedback", "pass rate", "mean", "range", "pass", "fail", "errors", "no value", "other")
_MAX_TEXTS: Final = 3


def cells(summary: Summary) -> list[str]:
    """Return a summary as text, cell by cell under `HEADINGS`; empty where there is nothing to say."""
    name = summary.name if summary.name == summary.scorer else f"{summary.name} ({summary.scorer})"
    mean, rate = summary.mean, summary.pass_rate
    return [
        name,
        "" if rate is None else percent(rate),
        "" if mean is None else f"{mean:.4g}",
        "" if not summary.numbers or summary.is_verdict else _range(summary.numbers),
        _number(summary.passed),
        _number(summary.failed),
        _number(summary.errors),
        _number(summary.no_value),
        ", ".join([*_texts(summary), *(f"{outcome} {number}" for outcome, number in summary.outcomes.items())]),
    ]


def percent(share: float) -> str:
    """Return a share in whole percent; 0% and 100% mean none and all."""
    rounded = f"{share:.0%}"
    if rounded == "100%" and share < 1:
        return ">99%"
    return "<1%" if rounded == "0%" and share > 0 else rounded


def _range(numbers: Sequence[float]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _texts(summary: Summary) -> list[str]:
    common = summary.texts.most_common(_MAX_TEXTS)
    left = summary.texts.total() - sum(number for _, number in common)
    return [f"{text!r} {number}" for text, number in common] + ([f"{left} other texts"] if left else [])


def _number(number: int) -> str:
    return str(number) if number else ""
