"""
Scorers to start from. Try them on stored traces:

    otel-scorer score traces.jsonl --scorers examples/scorers.py
"""

import json
import re
from collections import Counter
from typing import Any, Optional

from otel_scorer import AssessmentError, Feedback, Scorer, Span, Trace, scorer


@scorer
def tool_call_efficiency(trace: Trace) -> Feedback:
    """Were the tools used well: no tool called twice, and none that failed?"""
    calls = trace.search_spans(span_type="TOOL")
    if not calls:
        return Feedback(value=None, rationale="No tool usage to evaluate")
    repeated = [name for name, times in Counter(call.name for call in calls).items() if times > 1]
    if repeated:
        return Feedback(value=False, rationale=f"Called more than once: {', '.join(repeated)}")
    failed = [call.name for call in calls if call.status.status_code != "OK"]
    if failed:
        return Feedback(value=False, rationale=f"Failed: {', '.join(failed)}")
    return Feedback(value=True, rationale=f"{len(calls)} tool calls, none repeated, none failed")


@scorer
def response_completeness(outputs: str) -> Feedback:
    """Does the answer look finished?"""
    text = outputs.strip()
    if len(text) < 10:
        return Feedback(value=False, rationale="Too short to be an answer")
    if text.endswith(("...", "…", ",", ":")):
        return Feedback(value=False, rationale="Breaks off in the middle")
    return Feedback(value=True, rationale="Reads like a whole answer")


@scorer
def response_length(outputs: str) -> int:
    """How many words is the answer long?"""
    return len(outputs.split())


@scorer
def contains_citation(outputs: str) -> str:
    """Does the answer name a source? "yes" and "no" are shown as pass and fail."""
    return "yes" if re.search(r"\[\d+\]|https?://", outputs) else "no"


@scorer
def comprehensive_check(inputs: Any, outputs: Any) -> list[Feedback]:
    """Several verdicts at once, each under its own name."""
    question, answer = str(inputs), str(outputs)
    words = set(re.findall(r"\w{4,}", question.lower()))
    shared = sum(word in answer.lower() for word in words)
    return [
        Feedback(name="has_answer", value=bool(answer.strip())),
        Feedback(name="relevance", value="high" if shared * 2 >= len(words) else "low"),
        Feedback(name="word_count", value=len(answer.split()), rationale="Counted at white space"),
    ]


@scorer
def is_valid_response(outputs: str) -> Feedback:
    """Is the answer JSON with a summary? An error says why there is no verdict."""
    try:
        return Feedback(value=bool(json.loads(outputs)["summary"]))
    except json.JSONDecodeError as error:
        return Feedback(error=error)
    except (KeyError, TypeError):
        return Feedback(error=AssessmentError(error_code="MISSING_FIELD", error_message="The answer has no summary"))


@scorer
def exact_match(outputs: str, expectations: dict[str, Any]) -> bool:
    """Is the answer the expected one? Where nothing is expected, as on live traces, this scorer does not apply."""
    return outputs.strip() == expectations["expected_response"].strip()


@scorer(span_types=["TOOL"], pass_if=lambda seconds: seconds < 2)
def tool_seconds(span: Span) -> float:
    """How long did each tool call take? Judges every TOOL span by itself."""
    return span.duration_ns / 1e9


class ResponseQualityScorer(Scorer):
    """A scorer with settings: give them here, or as `parameters` in the configuration."""

    name: str = "response_quality"
    min_length: int = 50
    required_sections: Optional[list[str]] = None  # noqa: UP045 - either way of writing it works

    def __call__(self, outputs: str) -> Feedback:
        problems = []
        if len(outputs) < self.min_length:
            problems.append(f"shorter than {self.min_length} characters")
        problems += [f"no section {section!r}" for section in self.required_sections or [] if section not in outputs]
        return Feedback(value=not problems, rationale="; ".join(problems) or "Long enough, and all sections are there")


class RunningAverage(Scorer):
    """A scorer that remembers: calls on one instance do not overlap, and every process starts afresh."""

    def __init__(self) -> None:
        super().__init__(name="longer_than_usual")
        self.lengths: list[int] = []

    def __call__(self, outputs: str) -> Feedback:
        usual = sum(self.lengths) / len(self.lengths) if self.lengths else len(outputs)
        self.lengths.append(len(outputs))
        return Feedback(value=len(outputs) > 2 * usual, rationale=f"{len(outputs)} characters; usual are {usual:.0f}")
