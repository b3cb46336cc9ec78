"""Google's Agent Development Kit 1 (`gcp.vertex.agent.*` JSON) and 2 (OTel conventions, content as log records)."""

from __future__ import annotations

import re

from otel_scorer.dialects.chat import as_messages
from otel_scorer.dialects.message_events import DetailsEvent
from otel_scorer.dialects.table import Attribute, Dialect, NamePart, NameRule, attributes
from otel_scorer.dialects.values import arguments, json_twice, json_value

__all__ = ["DIALECT"]

# What version 1 writes where there is nothing: an empty object, or, of a tool that failed, a note.
_EMPTY = ("{}", "N/A")
_UNSAID = ('{"result": "<not specified>"}',)
_ARGUMENTS = Attribute("gcp.vertex.agent.tool_call_args", arguments, ("N/A",))
_RESULT = Attribute("gcp.vertex.agent.tool_response", json_value, _UNSAID)

DIALECT = Dialect(
    name="google_adk",
    scopes=("gcp.vertex.agent",),
    keys=("gcp.vertex.agent.invocation_id", "gcp.vertex.agent.llm_request"),
    base="otel_genai",
    name_rules=(
        NameRule.of(r"^execute_tool( .*)?$", "TOOL"),
        NameRule.of(r"^(invoke_agent|agent_run)\b", "AGENT"),
        NameRule.of(r"^invocation$", "CHAIN"),
        NameRule.of(r"^call_llm$", "LLM"),
    ),
    fields={
        "inputs": (
            _ARGUMENTS,
            Attribute("gcp.vertex.agent.llm_request", json_value, _EMPTY),
            DetailsEvent("gen_ai.input.messages", as_messages("user")),
        ),
        "outputs": (
            _RESULT,
            Attribute("gcp.vertex.agent.llm_response", json_value, _EMPTY),
            DetailsEvent("gen_ai.output.messages", as_messages("assistant")),
        ),
        # A failing tool of version 1 has no attributes at all.
        "tool_name": (*attributes("gen_ai.tool.name"), NamePart(re.compile(r"^execute_tool (.+)$"))),
        "tool_args": (_ARGUMENTS, Attribute("gen_ai.tool.call.arguments", arguments)),
        "tool_result": (_RESULT, Attribute("gen_ai.tool.call.result", json_twice)),
        "session_id": attributes("gen_ai.conversation.id", "gcp.vertex.agent.session_id"),
    },
    capture=(
        "set ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS=true, or OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true "
        "and send logs here too"
    ),
)
