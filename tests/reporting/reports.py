"""Reports for tests: about a real trace, about many made ones, and with the worst that a trace can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from otel_scorer.evaluation import load_traces, score_traces
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentError, Feedback
from otel_scorer.model.trace import Trace
from otel_scorer.reporting.report import Report, build_report
from otel_scorer.reporting.subject import Evidence, Subject, row_subject, trace_subject
from otel_scorer.scorers.base import scorer
from otel_scorer.scorers.loading import load_scorers
from otel_scorer.testing import make_span, make_trace

CAPTURE = Path(__file__).resolve().parents[1] / "captures" / "openinference_openai.json"
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> <!-- ]]> "
    "&amp; \u202etxt.exe\u202c \x1b[31m\x00 \ud800 `${1}` ' \u2028 مرحبا"
)


@scorer
def broken(trace: Trace) -> bool:
    raise ValueError("boom")


def captured_report(**settings: Any) -> Report:
    """Return a report on three real traces: passed, failed, numbers and errors."""
    scorers = [*load_scorers(["tool_errors", "latency"]), broken]
    scored = score_traces(load_traces(CAPTURE), scorers)
    return build_report(((trace_subject(each.trace), each.decisions) for each in scored), **settings)


def decision(feedback: Feedback | None, *, passed: bool | None = None, name: str = "made", trace: int = 1) -> Decision:
    feedbacks = () if feedback is None else (feedback,)
    return Decision(
        f"{trace:032x}", None, name, "1", Outcome.SCORED, feedbacks=feedbacks, passed=(passed,) * len(feedbacks)
    )


def hostile_report() -> Report:
    """Return a report in which everything that a trace or a scorer can name is hostile."""
    text = HOSTILE.replace("\ud800", "")  # what protobuf can carry
    trace = make_trace(
        make_span(
            text,
            attributes={"input.value": text, "output.value": text, text: text},
            status="ERROR",
            message=text,
        ),
        service=text,
        close_reason="idle",
    )
    said = Feedback(HOSTILE, HOSTILE, rationale=HOSTILE, metadata={HOSTILE: HOSTILE})
    error = Feedback("error", error=AssessmentError(HOSTILE, HOSTILE, HOSTILE))
    decisions = [decision(said, name=HOSTILE), decision(error), decision(None, name="none")]
    return build_report(
        [(trace_subject(trace), decisions)], fail_under=[(HOSTILE, 1.0)], problems=[HOSTILE], title=HOSTILE
    )


def large_report(subjects: int) -> Report:
    """Return a report on many rows with three verdicts each: a hundredth fails, a thousandth is an error."""

    def one(number: int) -> tuple[Subject, list[Decision]]:
        fine = number % 100 != 0
        third = Feedback("third", error="away") if number % 1000 == 1 else Feedback("third", "warm")
        decisions = [
            decision(Feedback("first", fine, rationale=f"because of {number}"), passed=fine, name="first"),
            decision(Feedback("second", number / subjects), name="second"),
            decision(third, name="third"),
        ]
        return row_subject(number, lambda: Evidence(None, {"q": f"question {number}"}, "answer " * 20)), decisions

    return build_report(map(one, range(subjects)))
