"""Scorers that look at a trace from every side."""

import json

from otel_scorer import AssessmentError, Feedback, scorer


@scorer
def answer(outputs: str) -> str:
    return outputs


@scorer
def question(inputs: str) -> Feedback:
    return Feedback(value=len(inputs), rationale=inputs)


@scorer
def shape(inputs, outputs) -> Feedback:
    return Feedback(value=f"{type(inputs).__name__} to {type(outputs).__name__}", rationale=repr((inputs, outputs)))


@scorer
def as_dict(outputs: dict[str, object]) -> list[Feedback]:
    return [Feedback(name="keys", value=sorted(outputs)), Feedback(name="number", value=len(outputs))]


@scorer
def overview(trace) -> Feedback:
    calls = [(call.name, call.arguments, call.result, call.failed) for call in trace.tool_calls]
    seen = {
        "state": str(trace.info.state),
        "service": trace.service_name,
        "types": [span.span_type for span in trace.spans],
        "names": [span.name for span in trace.search_spans()],
        "calls": calls,
        "models": len(trace.llm_calls),
        "usage": None if trace.usage is None else [trace.usage.input_tokens, trace.usage.output_tokens],
        "session": trace.session_id,
        "user": trace.user_id,
        "model": trace.model,
        "evaluations": [(made.name, made.value) for made in trace.evaluations],
    }
    return Feedback(value=len(trace.spans), rationale=json.dumps(seen, sort_keys=True, default=str))


@scorer
def with_expectations(outputs: str, expectations=None) -> bool:
    return expectations is None


@scorer
def needs_expectations(outputs, expectations) -> bool:
    return True


@scorer
def first_tool(trace):
    calls = trace.tool_calls
    if not calls:
        return None
    return Feedback(name="tool", value=calls[0].name, span_id=calls[0].span.span_id)


@scorer
def failing(trace):
    raise ValueError(f"{len(trace.spans)} spans")


@scorer
def unsure(trace):
    return Feedback(error=AssessmentError("UNSURE", "cannot say"), rationale="hm")


@scorer(span_types=["TOOL", "LLM", "CHAT_MODEL"])
def per_span(span):
    return Feedback(value=f"{span.name} {span.status.status_code}", rationale=repr((span.inputs, span.outputs)))
