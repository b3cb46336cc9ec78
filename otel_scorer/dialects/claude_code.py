"""Claude Code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otel_scorer.dialects.table import Attribute, Computed, Dialect, EventAttribute, NameRule, SpanTypeKey, attributes
from otel_scorer.dialects.values import arguments, number, same
from otel_scorer.model.trace import MISSING

if TYPE_CHECKING:
    from otel_scorer.model.trace import Span

__all__ = ["DIALECT"]

_INPUT_TOKENS = ("input_tokens", "cache_read_tokens", "cache_creation_tokens")
_OUTPUT = EventAttribute("tool.output", "output", same)
_TYPES = {
    "interaction": "AGENT",
    "llm_request": "LLM",
    "tool": "TOOL",
    "tool.execution": "TASK",
    "tool.blocked_on_user": "TASK",
}


def _input_tokens(span: Span) -> object:
    """Return all tokens that went in: `input_tokens` excludes what came from or went to the cache."""
    counts = [number(span.attributes.get(key)) for key in _INPUT_TOKENS]
    return MISSING if counts[0] is MISSING else sum(count for count in counts if isinstance(count, int))


DIALECT = Dialect(
    name="claude_code",
    values={"span.type": "claude_code.*"},
    scopes=("com.anthropic.claude_code*",),
    names=("claude_code.*",),
    span_types=(
        SpanTypeKey("span.type", {**_TYPES, **{f"claude_code.{name}": kind for name, kind in _TYPES.items()}}),
    ),
    name_rules=tuple(NameRule.of(rf"^claude_code\.{re.escape(name)}$", kind) for name, kind in _TYPES.items()),
    fields={
        "inputs": (
            Attribute("user_prompt", same, ("<REDACTED>",)),
            Attribute("new_context"),
            Attribute("tool_input", arguments),
        ),
        "outputs": (Attribute("response.model_output"), _OUTPUT),
        "tool_name": attributes("tool_name"),
        "tool_call_id": attributes("gen_ai.tool.call.id", "tool_use_id"),
        "tool_args": attributes("tool_input", decode=arguments),
        "tool_result": (_OUTPUT,),
        "model": attributes("model"),
        "input_tokens": (Computed(" + ".join(_INPUT_TOKENS), _input_tokens),),
        "output_tokens": attributes("output_tokens"),
        "cache_read_tokens": attributes("cache_read_tokens"),
        "cache_write_tokens": attributes("cache_creation_tokens"),
        "session_id": attributes("session.id"),
    },
    capture="set OTEL_LOG_USER_PROMPTS=1, OTEL_LOG_TOOL_DETAILS=1 and OTEL_LOG_TOOL_CONTENT=1",
)
