"""A call of a tool is a value, and asks for nothing that nobody reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from otel_scorer.model.decode import spans_from_raw
from otel_scorer.model.tool_call import CallDetail
from otel_scorer.model.trace import Span, ToolCall
from otel_scorer.testing import make_raw, make_span


@dataclass
class Told:
    """Tells what it was made with, and remembers what it was asked."""

    arguments: Any = None
    result: Any = None
    call_id: str | None = None
    asked: list[str] = field(default_factory=list)

    def find(self, spans: Sequence[Span], detail: CallDetail) -> Any:
        assert spans
        self.asked.append(detail)
        return getattr(self, detail)


def a_span(status: Any = "OK") -> Span:
    [span] = spans_from_raw(make_raw(make_span("tool", status=status)))
    return span


def test_only_what_is_read_is_asked_for() -> None:
    told = Told({"q": 1}, "found", "id-1")
    call = ToolCall("search", [a_span("ERROR")], told)

    assert (call.name, call.failed, call.span.name, told.asked) == ("search", True, "tool", [])
    assert (call.result, told.asked) == ("found", ["result"])
    assert (call.arguments, call.call_id, told.asked) == ({"q": 1}, "id-1", ["result", "arguments", "call_id"])


@pytest.mark.parametrize(
    ("statuses", "failed"),
    [
        (["OK"], False),
        (["UNSET", "OK"], False),
        (["ERROR", "OK"], True),
        (["UNSET", "UNSET", "ERROR"], True),
        (["OK", "ERROR"], True),
    ],
)
def test_a_call_failed_if_one_of_its_spans_did(statuses: list[str], failed: bool) -> None:
    spans = [a_span(status) for status in statuses]

    call = ToolCall("search", spans, Told())

    assert (call.failed, call.span, call.spans) == (failed, spans[0], tuple(spans))


def test_calls_are_compared_by_value() -> None:
    span = a_span()
    call = ToolCall("search", [span], Told({"q": 1}, "found", "id-1"))

    assert call == ToolCall("search", [span], Told({"q": 1}, "found", "id-1"))
    assert len({call, ToolCall("search", [span], Told({"q": 1}, "found", "id-1"))}) == 1
    for other in (
        ToolCall("book", [span], Told({"q": 1}, "found", "id-1")),
        ToolCall("search", [a_span()], Told({"q": 1}, "found", "id-1")),
        ToolCall("search", [span], Told({"q": 2}, "found", "id-1")),
        ToolCall("search", [span], Told({"q": 1}, "nothing", "id-1")),
        ToolCall("search", [span], Told({"q": 1}, "found", "id-2")),
        "search",
    ):
        assert call != other


def test_a_call_shows_all_that_is_known() -> None:
    span = a_span()

    shown = repr(ToolCall("search", [span], Told({"q": 1}, "found")))

    assert shown == (
        f"ToolCall(name='search', arguments={{'q': 1}}, result='found', failed=False, call_id=None, span={span!r})"
    )


@pytest.mark.parametrize("name", ["name", "arguments", "result", "failed", "call_id", "span", "spans", "other"])
def test_a_call_cannot_be_changed(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(ToolCall("search", [a_span()], Told()), name, None)
