"""Codex CLI: spans of its runtime, without model calls or tools; the facts are in events."""

from __future__ import annotations

from otel_scorer.dialects.table import Dialect, EventAttribute, attributes
from otel_scorer.dialects.values import same

__all__ = ["DIALECT"]

DIALECT = Dialect(
    name="codex_cli",
    resource={"service.name": "codex*"},
    events=(
        "codex.conversation_starts",
        "codex.user_prompt",
        "codex.api_request",
        "codex.sse_event",
        "codex.tool_decision",
        "codex.tool_result",
    ),
    fields={
        "inputs": (EventAttribute("codex.user_prompt", "prompt", same),),
        "input_tokens": attributes("codex.turn.token_usage.input_tokens"),
        "output_tokens": attributes("codex.turn.token_usage.output_tokens"),
    },
    capture="set otel.log_user_prompt = true in Codex's config.toml",
)
