"""Spans for state machines: of so little content that thousands of them are made in a second."""

from __future__ import annotations

from otel_scorer.model import encoding
from otel_scorer.model.wire import RawSpan, ScopeRef

APP = ScopeRef.of(b"", b"")
OWN = ScopeRef.of(b"", b"\x0a\x0d\x0a\x0botel_scorer")


def a_span(  # noqa: PLR0917 - as strategies draw them, one tuple for each span
    trace: int, span: int, parent: int | None, kind: int, what: str, size: int
) -> RawSpan:
    """Return a span of so many bytes; `what` is `span`, `local root` or `own`: one of otel_scorer's."""
    parent_id = None if parent is None else parent.to_bytes(8, "big")
    is_local_root = what == "local root" and parent is not None
    scope = OWN if what == "own" else APP
    data = encoding.varint_field(6, kind) + encoding.field(5, bytes(size))
    return RawSpan(data, scope, trace.to_bytes(16, "big"), span.to_bytes(8, "big"), parent_id, is_local_root)
