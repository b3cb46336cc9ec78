"""
A dialect of your own: the attribute keys of a framework that otel_scorer does not know.

Name it in the package that has it, and every way of running scorers understands the framework's spans:

    [project.entry-points."otel_scorer.dialects"]
    acme = "acme_dialect:DIALECT"
"""

from otel_scorer.dialects import Attribute, Dialect, EventAttribute, NameRule, SpanTypeKey, attributes
from otel_scorer.dialects.values import json_value


def text(value: object) -> object:
    """Return the text in `acme.answer`: a decoder gets the raw value and returns what it means."""
    decoded = json_value(value)
    return decoded["text"] if isinstance(decoded, dict) and "text" in decoded else decoded


DIALECT = Dialect(
    name="acme",
    # How its spans are recognised: by instrumentation scope, or by an attribute that nobody else has.
    scopes=("acme.tracing", "acme.tracing.*"),
    keys=("acme.kind",),
    # What its spans are.
    span_types=(SpanTypeKey("acme.kind", {"step": "CHAIN", "call": "TOOL", "completion": "CHAT_MODEL"}),),
    name_rules=(NameRule.of("^acme agent ", "AGENT"),),
    # Where its values are, best source first.
    fields={
        "inputs": attributes("acme.question", "acme.prompt", decode=json_value),
        "outputs": (Attribute("acme.answer", text),),
        "tool_name": attributes("acme.function"),
        "tool_args": attributes("acme.arguments", decode=json_value),
        "tool_result": (EventAttribute("acme.returned", "value"),),
        "model": attributes("acme.model"),
        "input_tokens": attributes("acme.tokens.in"),
        "output_tokens": attributes("acme.tokens.out"),
        "session_id": attributes("acme.chat"),
    },
    # `otel-scorer inspect --explain` says this where a span of this dialect lacks its content.
    capture="set ACME_RECORD_CONTENT=1",
)
