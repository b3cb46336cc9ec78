"""Spring AI: the OTel conventions, with content in two span events."""

from __future__ import annotations

from otel_scorer.dialects.table import Dialect, EventAttribute

__all__ = ["DIALECT"]

_PROMPT, _COMPLETION = "gen_ai.content.prompt", "gen_ai.content.completion"

DIALECT = Dialect(
    name="spring_ai",
    events=(_PROMPT, _COMPLETION),
    base="otel_genai",
    fields={
        "inputs": (EventAttribute(_PROMPT, "gen_ai.prompt"),),
        "outputs": (EventAttribute(_COMPLETION, "gen_ai.completion"),),
    },
    capture="set spring.ai.chat.observations.log-prompt and log-completion to true",
)
