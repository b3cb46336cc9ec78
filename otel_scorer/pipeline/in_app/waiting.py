"""A closed unit of an application on its way through the scorers, with the spans that wait for what they say."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_scorer.model.decision import Decision
    from otel_scorer.pipeline.in_app.units import ClosedUnit

__all__ = ["RecentDecisions", "WaitingUnit", "count_closed", "estimated_size", "ids_of"]

# Traces whose decisions are known for a while.
_REMEMBERED: Final = 1024

# A SpanContext is a tuple, and its properties cost as much as everything else that is done for a span.
_TRACE_ID: Final = 0
_SPAN_ID: Final = 1
# Estimated bytes of a span, and of one of its attributes: really measuring them would take a walk through all values.
_SPAN_SIZE: Final = 1024
_ATTRIBUTE_SIZE: Final = 256


@dataclass(slots=True, eq=False)
class WaitingUnit:
    """
    A closed unit that is being scored.

    Attributes:
        number: Units are numbered as they close.
        unit: The unit.
        held: Its spans that have not been sent yet.
        decisions: What was decided while something was held, by number of the choice.
    """

    number: int
    unit: ClosedUnit[ReadableSpan]
    held: list[ReadableSpan]
    decisions: dict[int, Decision] = field(default_factory=dict[int, "Decision"])

    @property
    def trace_id(self) -> int:
        """128 bits."""
        return int.from_bytes(self.unit.trace_id, "big")

    def let_go(self) -> tuple[list[ReadableSpan], list[Decision]]:
        """Hand over what is held and the verdicts for it: those that come later find nothing to ride on."""
        held, self.held = self.held, []
        return held, [self.decisions[index] for index in sorted(self.decisions)]


class RecentDecisions:
    """What was decided about the traces that were scored last. Not thread-safe."""

    def __init__(self) -> None:
        self._traces: OrderedDict[int, dict[tuple[int, int], Decision]] = OrderedDict()

    def add(self, waiting: WaitingUnit, index: int, decision: Decision) -> None:
        """Remember a decision, by unit and number of the choice."""
        trace_id = waiting.trace_id
        self._traces.setdefault(trace_id, {})[waiting.number, index] = decision
        self._traces.move_to_end(trace_id)
        if len(self._traces) > _REMEMBERED:
            self._traces.popitem(last=False)

    def of(self, trace_id: int) -> list[Decision]:
        """Return what is known about a trace, in the order of its units and choices."""
        known = self._traces.get(trace_id, {})
        return [known[key] for key in sorted(known)]


def estimated_size(span: ReadableSpan) -> int:
    """Return about how many bytes of memory a span is worth."""
    return _SPAN_SIZE + _ATTRIBUTE_SIZE * len(span.attributes or ())


def count_closed(unit: ClosedUnit[ReadableSpan]) -> None:
    """Count a unit; not where units are closed: that is the application's thread as often as not."""
    count("assembler.closed", reason=unit.reason.value)
    count("assembler.spans", len(unit.spans))


def ids_of(span: ReadableSpan) -> tuple[int, int]:
    """Return the trace id and the span id of a span."""
    context = span.context
    return (0, 0) if context is None else (context[_TRACE_ID], context[_SPAN_ID])
