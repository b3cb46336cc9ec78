"""How the values of one feedback are spread, as a small picture."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otel_scorer.reporting.report import Summary

__all__ = ["distribution"]

_WIDTH: Final = 180
_HEIGHT: Final = 28
_BINS: Final = 18
_MIN_BAR: Final = 2


def distribution(summary: Summary) -> str:
    """Return an SVG image: a histogram of numbers, else a bar of passed, failed, other, no value and errors."""
    if summary.numbers and not summary.is_verdict and min(summary.numbers) < max(summary.numbers):
        return _image(_histogram(summary.numbers), _told(summary))
    return _image(_stack(summary), _told(summary))


def _image(shapes: Iterator[str], told: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(told)}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}"><title>{escape(told)}</title>{"".join(shapes)}</svg>'
    )


def _parts(summary: Summary) -> dict[str, int]:
    other = summary.values - summary.passed - summary.failed
    return {
        "passed": summary.passed,
        "failed": summary.failed,
        "other values": max(0, other),
        "no value": summary.no_value,
        "errors": summary.errors,
        "not scored": summary.outcomes.total(),
    }


_CLASSES: Final = {
    "passed": "pass",
    "failed": "fail",
    "other values": "value",
    "no value": "none",
    "errors": "error",
    "not scored": "none",
}


def _told(summary: Summary) -> str:
    told = [f"{number} {name}" for name, number in _parts(summary).items() if number]
    if summary.numbers and not summary.is_verdict:
        told.append(f"from {min(summary.numbers):.4g} to {max(summary.numbers):.4g}")
    return ", ".join(told) or "nothing"


def _stack(summary: Summary) -> Iterator[str]:
    parts = {name: number for name, number in _parts(summary).items() if number}
    total = sum(parts.values())
    left = 0.0
    for name, number in parts.items():
        width = _WIDTH * number / total
        yield _bar(_CLASSES[name], left, 8, max(width - 1, 1), 12)
        left += width


def _histogram(numbers: Sequence[float]) -> Iterator[str]:
    low, high = min(numbers), max(numbers)
    bins = [0] * _BINS
    for number in numbers:
        # Halves first: the difference of two numbers may be too large to be one.
        share = (number / 2 - low / 2) / (high / 2 - low / 2)
        bins[min(_BINS - 1, int(share * _BINS))] += 1
    width, most = _WIDTH / _BINS, max(bins)
    for position, number in enumerate(bins):
        if number:
            height = max(_MIN_BAR, _HEIGHT * number / most)
            yield _bar("value", position * width, _HEIGHT - height, width - 1, height)


def _bar(kind: str, left: float, top: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}"/>'
