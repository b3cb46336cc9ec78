"""What a scorer of another package is told: a trace, or a row of values, in the words that those packages use."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from otel_scorer.model.trace import MISSING
from otel_scorer.scorers.arguments import NotApplicableError
from otel_scorer.scorers.text import compact_json, conversation_text, text_of

if TYPE_CHECKING:
    from otel_scorer.model.trace import Document, Message, ToolCall, Trace

__all__ = ["ABSENT", "Absent", "Case", "Side"]

Side: TypeAlias = Literal["inputs", "outputs"]

_EXPECTED_KEYS: Final = ("expected_output", "expected_response", "expected", "reference", "ground_truth")


class Absent(Enum):
    """The default of a parameter that takes what there is: unlike None it cannot have been recorded."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


class Case:
    """
    One thing to judge.

    Args:
        inputs: What was asked, or `ABSENT`.
        outputs: What was answered, or `ABSENT`.
        expectations: Expected values by name, or one expected value, or `ABSENT`.
        trace: The trace; None where there is only a row of values.
    """

    def __init__(self, inputs: Any, outputs: Any, expectations: Any, trace: Trace | None) -> None:
        self._values: dict[Side, Any] = {"inputs": inputs, "outputs": outputs}
        self._expectations = expectations
        self.trace = trace

    def has(self, side: Side) -> bool:
        """Return whether somebody recorded it; None counts."""
        return self._values[side] is not ABSENT

    def raw(self, side: Side) -> Any:
        """
        Return a value as it was recorded.

        Raises:
            NotApplicableError: Nobody recorded it.
        """
        value = self._values[side]
        if value is ABSENT:
            msg = f"the scorer needs {side!r}, which nobody recorded"
            raise NotApplicableError(msg)
        return value

    def text(self, side: Side) -> str | None:
        """Return a value as text, of a conversation the last message; None if nobody recorded it."""
        value = self._values[side]
        return None if value is ABSENT or value is None else text_of(value, side)

    def value(self, side: Side) -> Any:
        """
        Return what the application itself took or gave: of a conversation the last message's text, else the value.

        Raises:
            NotApplicableError: Nobody recorded it.
        """
        value = self.raw(side)
        text = conversation_text(value, side)
        return value if text is None else text

    @property
    def expectations(self) -> Mapping[str, Any]:
        """Expected values by name."""
        given = self._expectations
        return cast("Mapping[str, Any]", given) if isinstance(given, Mapping) else {}

    @property
    def expected(self) -> Any:
        """The expected answer, under whichever of the usual names; MISSING if there is none."""
        given = self._expectations
        if given is None or given is ABSENT:
            return MISSING
        if not isinstance(given, Mapping):
            return given
        return next((self.expectations[key] for key in _EXPECTED_KEYS if key in self.expectations), MISSING)

    @property
    def expected_text(self) -> str | None:
        """The expected answer as text."""
        expected = self.expected
        return None if expected is MISSING or expected is None else text_of(expected, "outputs")

    @property
    def documents(self) -> list[Document]:
        """What retrievers returned."""
        return [] if self.trace is None else self.trace.retrieved_documents

    @property
    def retrieved_texts(self) -> list[str] | None:
        """The texts of retrieved documents, or those in `expectations["retrieval_context"]`; None if there are none."""
        given = self.texts("retrieval_context")
        return given or [document.content for document in self.documents if document.content is not None] or None

    @property
    def tool_calls(self) -> list[ToolCall]:
        """Calls of tools."""
        return [] if self.trace is None else self.trace.tool_calls

    @property
    def messages(self) -> list[Message]:
        """The conversation."""
        return [] if self.trace is None else self.trace.messages

    @property
    def seconds(self) -> float | None:
        """Duration of the root."""
        root = None if self.trace is None else self.trace.root
        return None if root is None else root.duration_ns / 1e9

    def texts(self, key: str) -> list[str] | None:
        """Return an expectation that is a list of texts; None if there is none."""
        given = self.expectations.get(key)
        if given is None:
            return None
        items = cast("list[object]", given) if isinstance(given, list | tuple) else [cast("object", given)]
        return [item if isinstance(item, str) else compact_json(item) for item in items]
