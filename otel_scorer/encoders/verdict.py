"""
A feedback as OpenTelemetry attributes: the one place that says how values, labels and errors are written.

Every encoding (evaluation span, attributes, events, logs, metrics) starts from the `Verdict` that is made here.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Final

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.model.feedback import Feedback

__all__ = [
    "MAX_NAME",
    "STACK_TRACE",
    "AttributeScalar",
    "Explanations",
    "Verdict",
    "attribute_name",
    "value_text",
    "verdicts_of",
]

AttributeScalar = str | bool | int | float

_CAPPED_CHARACTERS: Final = 2_048
_FULL_CHARACTERS: Final = 32_768
_TRUNCATED: Final = " [truncated]"
# What scorers make up beside explanations, in characters: backends index labels, and refuse or cut long names.
_NAME_CHARACTERS: Final = 256
_LABEL_CHARACTERS: Final = 1_024
_ITEM_CHARACTERS: Final = 4_096
_METADATA_ITEMS: Final = 64
MAX_NAME: Final = 128
STACK_TRACE: Final = "exception.stacktrace"
"""Key of a stack trace in the metadata of a verdict."""
_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9_.\-/]+")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LABELS: Final = {True: "pass", False: "fail"}
# Trace id and span id, each after its length.
_IDS: Final = struct.Struct(">I16sI8s")
_NO_ID: Final = bytes(8)
_VERDICT_WORDS: Final = {"yes": 1.0, "no": 0.0}


class Explanations(StrEnum):
    """
    How much of a rationale is sent, as it may quote user data: `FULL` is 32,768 characters, `CAPPED` 2,048.

    `STACK_TRACES` is as `FULL`, and errors have their stack trace as metadata: its last 10,000 characters.
    """

    STACK_TRACES = "stack_traces"
    FULL = "full"
    CAPPED = "capped"
    OFF = "off"


@dataclass(slots=True)  # not frozen: that would triple the time it takes to make one
class Verdict:
    """
    One feedback, ready to be written. Nobody changes one.

    Attributes:
        name: Name of the feedback (`gen_ai.evaluation.name`).
        score: bool and yes/no as 1.0/0.0, numbers as they are; None where the value is no number.
        label: `pass`/`fail` for bool, yes/no and where `pass_if` decides; any other text as it is; None for numbers.
        explanation: The rationale, or the message of an error, cut to size.
        error_type: Code of the error, if the scorer failed.
        value: The value in its own type; lists and dicts as JSON text; None if there is none.
        source_type: `CODE`, `LLM_JUDGE` or `HUMAN`.
        source_id: Who said it.
        metadata: What the scorer added, as text.
        scorer: Name of the scorer.
        scorer_version: Its version.
        revision: 1, or higher when late spans led to scoring again.
        index: Which one it is among the feedbacks of this name in its decision.
        span_id: The span that the verdict is about, 16 hex digits; None: the trace.
    """

    name: str
    score: float | None
    label: str | None
    explanation: str | None
    error_type: str | None
    value: AttributeScalar | None
    source_type: str
    source_id: str
    metadata: tuple[tuple[str, str], ...]
    scorer: str
    scorer_version: str
    revision: int
    index: int
    span_id: str | None

    def gen_ai(self) -> dict[str, AttributeScalar]:
        """Return the attributes that OTel GenAI defines for `gen_ai.evaluation.result`."""
        attributes: dict[str, AttributeScalar] = {"gen_ai.evaluation.name": self.name}
        if self.score is not None:
            attributes["gen_ai.evaluation.score.value"] = self.score
        if self.label is not None:
            attributes["gen_ai.evaluation.score.label"] = self.label
        if self.explanation is not None:
            attributes["gen_ai.evaluation.explanation"] = self.explanation
        if self.error_type is not None:
            attributes["error.type"] = self.error_type
        return attributes

    def evaluation_id(self, trace_id: bytes, target_id: bytes) -> bytes:
        """
        Return 8 bytes that identify this verdict on this target: the same on every replica and every retry.

        First 8 bytes of SHA-256 over the length-prefixed trace id, target id, scorer name and version, feedback name,
        index (4 bytes) and revision (4 bytes); hashed again should they all be zero.
        """
        rest = _identity(self.scorer, self.scorer_version, self.name, self.index, self.revision)
        digest = sha256(_IDS.pack(16, trace_id, 8, target_id) + rest).digest()
        while (found := digest[:8]) == _NO_ID:
            digest = sha256(digest).digest()
        return found


def verdicts_of(decision: Decision, explanations: Explanations = Explanations.FULL) -> list[Verdict]:
    """Return the verdicts of a decision, in the scorer's order. Decisions without feedback have none."""
    feedbacks, passed = decision.feedbacks, decision.passed
    if not feedbacks:
        return []
    if len(passed) != len(feedbacks):
        passed = (None,) * len(feedbacks)
    if len(feedbacks) == 1:
        return [_verdict(decision, feedbacks[0], _name(feedbacks[0]), passed[0], 0, explanations)]
    # Counted by name alone: the trace and its root, say, are two targets on one span.
    seen: Counter[str] = Counter()
    verdicts: list[Verdict] = []
    for feedback, has_passed in zip(feedbacks, passed, strict=True):
        name = _name(feedback)
        verdicts.append(_verdict(decision, feedback, name, has_passed, seen[name], explanations))
        seen[name] += 1
    return verdicts


def attribute_name(name: str) -> str:
    """
    Return a feedback's name as part of an attribute key.

    The rule: runs of anything but ASCII letters, digits, `_`, `.`, `-` and `/` become one `_`; at most 128 characters;
    an empty name is `unnamed`.
    """
    return _UNUSUAL.sub("_", name)[:MAX_NAME] or "unnamed"


@lru_cache(maxsize=1024)
def _identity(scorer: str, version: str, name: str, index: int, revision: int) -> bytes:
    """Return what of an evaluation's identity repeats from trace to trace."""
    texts = (text.encode("utf-8", "replace") for text in (scorer, version, name))
    return b"".join(map(_prefixed, (*texts, index.to_bytes(4, "big"), revision.to_bytes(4, "big"))))


def _prefixed(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


def _verdict(  # noqa: PLR0917 - the parts of one verdict, called from one place
    decision: Decision,
    feedback: Feedback,
    name: str,
    passed: bool | None,  # noqa: FBT001
    index: int,
    explanations: Explanations,
) -> Verdict:
    error, source = feedback.error, feedback.source
    explanation, error_type, value = feedback.rationale, None, None
    if error is not None:
        explanation = error.error_message or explanation
        error_type = _capped(error.error_code or "_OTHER", _NAME_CHARACTERS, "error")
    else:
        value = feedback.value
        if decision.outcome is Outcome.FAILED or decision.outcome is Outcome.TIMED_OUT:
            error_type = str(decision.outcome)
    score, label = _score(value)
    if passed is not None and value is not None:
        label = _LABELS[passed]
    metadata = _metadata(feedback.metadata) if feedback.metadata else ()
    if explanations is Explanations.STACK_TRACES and error is not None and error.stack_trace:
        trace = _capped(error.stack_trace, _FULL_CHARACTERS, "metadata")
        metadata = (*(item for item in metadata if item[0] != STACK_TRACE), (STACK_TRACE, trace))
    # By position: keywords would cost as much as the object.
    return Verdict(
        name,
        score,
        label if label is None else _capped(label, _LABEL_CHARACTERS, "label"),
        _cut(explanation, explanations),
        error_type,
        value if value is None or isinstance(value, bool) else _scalar(value),
        "CODE" if source is None else str(source.source_type),
        decision.scorer if source is None else _capped(source.source_id, _NAME_CHARACTERS, "source"),
        metadata,
        decision.scorer,
        decision.scorer_version,
        decision.revision,
        index,
        feedback.span_id or decision.span_id,
    )


def _name(feedback: Feedback) -> str:
    """Return the name of a feedback without control characters: that of a span, in lists, terminals and addresses."""
    name = feedback.name
    if not name.isprintable():
        name = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", name)
    return _capped(name, _NAME_CHARACTERS, "name")


def _score(value: object) -> tuple[float | None, str | None]:
    if value is True or value is False:
        return (1.0 if value else 0.0), _LABELS[value]
    if isinstance(value, int | float):
        return _double(value), None
    if isinstance(value, str):
        word = _VERDICT_WORDS.get(value.strip().lower())
        return (None, value) if word is None else (word, _LABELS[bool(word)])
    return None, None


def _double(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    # Plus zero makes 0.0 of -0.0: the two are equal, so a cache of encoded attributes would send either for the other.
    return number + 0.0 if math.isfinite(number) else None


def _scalar(value: object) -> AttributeScalar | None:
    if isinstance(value, float):
        return _double(value)
    if value is None or isinstance(value, bool | int):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return _capped(text, _FULL_CHARACTERS, "value")


def _metadata(given: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    items = [
        (_capped(str(key), _NAME_CHARACTERS, "metadata"), _capped(str(item), _ITEM_CHARACTERS, "metadata"))
        for key, item in islice(given.items(), _METADATA_ITEMS)
    ]
    if len(given) > _METADATA_ITEMS:
        count("encoder.truncated", field="metadata")
        items.append(("truncated", f"{len(given) - _METADATA_ITEMS} more"))
    return tuple(items)


def value_text(value: AttributeScalar) -> str:
    """Return a value as text: Jaeger and MLflow only compare strings."""
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        return str(value)
    except ValueError:  # Python writes integers of more than 4300 digits in hexadecimal only
        return f"{value:#x}"


def _cut(text: str | None, explanations: Explanations) -> str | None:
    if not text or explanations is Explanations.OFF:
        return None
    return _capped(text, _CAPPED_CHARACTERS if explanations is Explanations.CAPPED else _FULL_CHARACTERS, "explanation")


def _capped(text: str, limit: int, field: str) -> str:
    if "\0" in text:  # databases of backends refuse it, and with it all that shares the request
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if len(text) <= limit:
        return text
    count("encoder.truncated", field=field)
    return text[: limit - len(_TRUNCATED)] + _TRUNCATED
