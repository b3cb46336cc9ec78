"""
A scorer that shows a model what the tools of a trace were asked and what they said. Needs `pip install openai`.

    otel-scorer score traces.jsonl --scorers examples/tool_judge.py

This is where a mapping of your own goes: which spans a judge sees, and what of each. Keys: see llm_judge.py.
"""

import json
from functools import cache

import openai
from llm_judge import api_key
from pydantic import BaseModel, ValidationError

from otel_scorer import AssessmentError, AssessmentSource, Feedback, Span, Trace, scorer

MODEL = "gpt-5-mini"
INSTRUCTIONS = """You are given a question and the tool calls that an assistant made to answer it.
Say for each call whether it helps to answer the question.
Reply with JSON only: {"calls": [{"id": "the call's id", "helps": true or false, "reason": "one sentence"}]}"""


class Call(BaseModel):
    id: str
    helps: bool
    reason: str


class Verdicts(BaseModel):
    calls: list[Call]


def as_judge_input(span: Span) -> dict[str, object]:
    """What the judge sees of a TOOL span, whatever the instrumentation called it."""
    return {
        "id": span.span_id,
        "tool": span.name,
        "arguments": span.inputs,
        "result": span.outputs,
        "failed": span.status.status_code != "OK",
    }


@cache
def client() -> openai.OpenAI:
    return openai.OpenAI(api_key=api_key(), timeout=10, max_retries=1)


@scorer(timeout=30)
def tool_call_helps(inputs: str, trace: Trace) -> list[Feedback] | Feedback:
    """Did each tool call help? Every verdict is on the span of its call."""
    tools = trace.search_spans(span_type="TOOL")
    if not tools:
        return Feedback(value=None, rationale="No tool was called")
    question = json.dumps({"question": inputs, "calls": [as_judge_input(tool) for tool in tools]}, ensure_ascii=False)
    try:
        answer = client().chat.completions.create(
            model=MODEL,
            messages=[{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": question}],
        )
        verdicts = Verdicts.model_validate_json(answer.choices[0].message.content or "")
    except openai.APIStatusError as error:
        return Feedback(error=AssessmentError(type(error).__name__, f"The model's server said {error.status_code}"))
    except ValidationError as error:
        return Feedback(error=error)
    judged = {call.id: call for call in verdicts.calls}
    source = AssessmentSource(source_type="LLM_JUDGE", source_id=MODEL)
    return [
        Feedback(
            value=judged[tool.span_id].helps, rationale=judged[tool.span_id].reason, source=source, span_id=tool.span_id
        )
        if tool.span_id in judged
        else Feedback(error=AssessmentError("MISSING_CALL", "The model did not judge this call"), span_id=tool.span_id)
        for tool in tools
    ]
