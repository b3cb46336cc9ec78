"""Packages with dialects, as pip would have installed them, and spans that speak them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_scorer.testing import make_request, make_span

if TYPE_CHECKING:
    from pathlib import Path

    from otel_scorer.model.trace import AttributeValue

ACME_TRACE = bytes(15) + b"\x07"
TAUGHT_TRACE = bytes(15) + b"\x08"


def install(folder: Path, name: str, code: str, **points: str) -> None:
    """Put a module, and a distribution that names parts of it in entry points, in a folder of `sys.path`."""
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    metadata = folder / f"{name}-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", encoding="utf-8")
    lines = "".join(f"{point} = {value}\n" for point, value in points.items())
    (metadata / "entry_points.txt").write_text(f"[otel_scorer.dialects]\n{lines}", encoding="utf-8")


def acme_request() -> bytes:
    """Return a trace of the example in `examples/acme_dialect.py`."""
    call = make_span("call", trace=7, span=3, parent=1, start=2, attributes=_CALL)
    call.events.add(name="acme.returned").attributes.add(key="value").value.string_value = "18 C"
    return make_request(
        make_span("acme agent travel", trace=7, span=1, end=9, attributes={"acme.question": "Weather?"}),
        make_span("completion", trace=7, span=2, parent=1, start=1, attributes=_COMPLETION),
        call,
        scope="acme.tracing",
    )


_COMPLETION: dict[str, AttributeValue] = {
    "acme.kind": "completion",
    "acme.prompt": "hi",
    "acme.answer": '{"text": "18 C"}',
    "acme.model": "acme-1",
    "acme.tokens.in": 5,
    "acme.tokens.out": 2,
    "acme.chat": "chat-1",
}
_CALL: dict[str, AttributeValue] = {
    "acme.kind": "call",
    "acme.function": "get_weather",
    "acme.arguments": '{"city": "Paris"}',
}

TEACHING = r"""
dialects:
  attributes:
    inputs: [my.prompt]
    outputs: my.answer
    tool_name: [my.tool]
    input_tokens: [my.tokens.in]
    output_tokens: [my.tokens.out]
    model: [my.model]
    session_id: [my.session]
  span_types:
    - {name: "^tool_.*", type: TOOL}
    - {attribute: my.kind, equals: 1, type: chat_model}
    - {scope: "my.*", attribute: my.role, matches: "^(agent|planner)$", type: AGENT}
"""


def taught_request() -> bytes:
    """Return a trace of which only `TEACHING` makes sense."""
    return make_request(
        make_span("run", trace=8, span=1, end=9, attributes={"my.role": "planner", "my.prompt": "Weather?"}),
        make_span("ask", trace=8, span=2, parent=1, start=1, attributes=_ASK),
        make_span("tool_weather", trace=8, span=3, parent=1, start=2, attributes=_TOOL),
        scope="my.app",
    )


_ASK: dict[str, AttributeValue] = {
    "my.kind": 1,
    "my.model": "m-1",
    "my.tokens.in": 5,
    "my.tokens.out": "2",
    "my.session": "s",
}
_TOOL: dict[str, AttributeValue] = {"my.tool": "weather", "my.prompt": '{"city": "Paris"}', "my.answer": "18 C"}
