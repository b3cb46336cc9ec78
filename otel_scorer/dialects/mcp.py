"""The Model Context Protocol: one call is up to three nested spans, of a framework's client, the SDK and the server."""

from __future__ import annotations

import re

from otel_scorer.dialects.table import Attribute, Dialect, NamePart, SpanTypeKey, attributes
from otel_scorer.dialects.values import arguments, json_twice

__all__ = ["DIALECT"]

_ARGUMENTS = Attribute("gen_ai.tool.call.arguments", arguments)
_RESULT = Attribute("gen_ai.tool.call.result", json_twice)

DIALECT = Dialect(
    name="mcp",
    keys=("mcp.method.name",),
    span_types=(
        SpanTypeKey(
            "mcp.method.name",
            {
                "tools/call": "TOOL",
                "resources/read": "RETRIEVER",
                "prompts/get": "PARSER",
                "tools/list": "TASK",
                "resources/list": "TASK",
                "prompts/list": "TASK",
                "initialize": "TASK",
                "server/discover": "TASK",
                "sampling/createMessage": "LLM",
            },
        ),
    ),
    fields={
        "inputs": (_ARGUMENTS, Attribute("mcp.resource.uri")),
        "outputs": (_RESULT,),
        "tool_name": (
            *attributes("gen_ai.tool.name", "mcp.tool.name"),
            NamePart(re.compile(r"^(?:MCP send )?tools/call (.+)$")),
        ),
        "tool_args": (_ARGUMENTS,),
        "tool_result": (_RESULT,),
    },
    capture="MCP instrumentations record no arguments and results; instrument the agent too",
)
