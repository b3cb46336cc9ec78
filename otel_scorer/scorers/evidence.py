"""What there is to judge: the values that a scorer's parameters can ask for, looked up only when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_scorer.model.trace import MISSING

if TYPE_CHECKING:
    from otel_scorer.model.trace import Span, Trace
    from otel_scorer.scorers.arguments import Offer

__all__ = ["Evidence"]


class Evidence:
    """
    What one call of a scorer can see.

    Args:
        trace: The trace; None where there is only a row of values.
        span: The target span. Its inputs and outputs then take the place of the trace's.
        inputs: Given inputs, which win over those of the trace.
        outputs: Given outputs, likewise.
        expectations: Given expectations; by default those that are attached to the trace.
    """

    __slots__ = ("_expectations", "_inputs", "_outputs", "span", "trace")

    def __init__(
        self,
        trace: Trace | None,
        span: Span | None = None,
        inputs: Any = MISSING,
        outputs: Any = MISSING,
        expectations: Any = MISSING,
    ) -> None:
        self.trace = trace
        self.span = span
        self._inputs = inputs
        self._outputs = outputs
        self._expectations = expectations

    def look_up(self, name: Offer) -> Any:
        """Return the value that a parameter called `name` gets, or MISSING."""
        if name == "trace":
            return MISSING if self.trace is None else self.trace
        if name == "inputs":
            return self._read("inputs") if self._inputs is MISSING else self._inputs
        if name == "outputs":
            return self._read("outputs") if self._outputs is MISSING else self._outputs
        if name == "expectations":
            return self._attached() if self._expectations is MISSING else self._expectations
        return self._target()

    def _read(self, name: Any) -> Any:
        if self.span is not None:
            return self.span.read(name)
        return MISSING if self.trace is None else self.trace.read(name)

    def _attached(self) -> Any:
        if self.trace is None:
            return MISSING
        found = {item.name: item.value for item in self.trace.search_assessments(type="expectation")}
        return found or MISSING

    def _target(self) -> Any:
        if self.span is not None:
            return self.span
        root = None if self.trace is None else self.trace.root
        return MISSING if root is None else root
