"""Where everything that is understood of a trace was read, as plain data (`inspect --explain`)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from otel_scorer.dialects.witness import Origin
from otel_scorer.model.trace import MISSING, SpanType
from otel_scorer.reporting.findings import find_problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_scorer.dialects import ExplainingReader
    from otel_scorer.dialects.structure import Derivation
    from otel_scorer.model.trace import Span, Trace

__all__ = ["Source", "explain_trace", "instrumentations", "shown_origin", "sources", "span_origins"]


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """
    What says a value of the trace as a whole.

    Attributes:
        derivation: The value, and the span and field that say it.
        origin: What the span says it in; None if nothing says it.
    """

    derivation: Derivation
    origin: Origin | None


def span_origins(span: Span, reader: ExplainingReader) -> dict[str, Origin]:
    """Return what the values of a span are read from, its status included, less what is a tool's on other spans."""
    is_tool = span.span_type == SpanType.TOOL
    found = {
        field: origin
        for field, origin in reader.explain(span).items()
        if is_tool or not field.startswith("tool_") or field == "tool_definitions"
    }
    if span.status.otel_status_code == "UNSET" and span.failed:
        found["status"] = Origin("common", "error.type")
    elif span.failed or span.status.otel_status_code == "OK":
        found["status"] = Origin("common", "span status")
    return found


def sources(trace: Trace, reader: ExplainingReader) -> Iterator[Source]:
    """Yield every value of the trace as a whole with what says it."""
    for derivation in reader.explain_trace(trace):
        origin = None
        span, place = derivation.span, derivation.said_in
        if span is not None and derivation.value is not MISSING:
            origin = reader.explain_field(span, place) if place.isidentifier() else None
            origin = origin or Origin("common", place)
        yield Source(derivation, origin)


def instrumentations(trace: Trace) -> list[dict[str, Any]]:
    """Return who made the spans: by scope, the number of spans and the dialects that they speak."""
    found: dict[tuple[str, str], list[Span]] = {}
    for span in trace.spans:
        found.setdefault((span.scope.name, span.scope.version), []).append(span)
    return [
        {
            "scope": name,
            "version": version,
            "spans": len(spans),
            "dialects": list(dict.fromkeys(dialect for span in spans for dialect in span.read("dialects"))),
        }
        for (name, version), spans in found.items()
    ]


def explain_trace(trace: Trace, reader: ExplainingReader, *, duplicates: int = 0) -> dict[str, Any]:
    """
    Return who made the spans, what says each value of the trace, and what is wrong.

    Args:
        trace: The trace.
        reader: Its reader.
        duplicates: Copies of its spans that were received again.
    """
    return {
        "instrumentations": instrumentations(trace),
        "values": {source.derivation.field: _shown_source(source) for source in sources(trace, reader)},
        "unread": {span.span_id: keys for span in trace.spans if (keys := reader.unread(span))},
        "findings": [dataclasses.asdict(each) for each in find_problems(trace, reader, duplicates=duplicates)],
    }


def shown_origin(origin: Origin) -> dict[str, Any]:
    """Return an origin as plain data; `attributes` only where the value is made of several."""
    return {
        "dialect": origin.dialect,
        "key": origin.key,
        **({"attributes": list(origin.attributes)} if origin.attributes else {}),
    }


def _shown_source(source: Source) -> dict[str, Any] | None:
    if source.origin is None or source.derivation.span is None:
        return None
    return {
        **shown_origin(source.origin),
        "span_id": source.derivation.span.span_id,
        "rule": source.derivation.rule,
    }
