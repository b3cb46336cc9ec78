"""Microsoft's agent frameworks, all on the OTel conventions: Semantic Kernel, Agent Framework, AutoGen."""

from __future__ import annotations

from otel_scorer.dialects.table import Dialect

__all__ = ["DIALECTS"]

DIALECTS = (
    # Tool names are Plugin-function. Model calls have their content in log records whose body is JSON text.
    Dialect(
        name="semantic_kernel",
        scopes=("semantic_kernel.*",),
        base="otel_genai",
        capture=(
            "set SEMANTICKERNEL_EXPERIMENTAL_GENAI_ENABLE_OTEL_DIAGNOSTICS_SENSITIVE=true, and send Python's logging "
            "here as OTLP logs"
        ),
    ),
    # Sends the old message events too; the attributes are complete, and the two lists are never mixed.
    Dialect(
        name="ms_agent_framework",
        scopes=("agent_framework",),
        values={"gen_ai.provider.name": "microsoft.agent_framework"},
        base="otel_genai",
        capture="set ENABLE_SENSITIVE_DATA=true",
    ),
    Dialect(
        name="autogen",
        scopes=("autogen-core",),
        values={"gen_ai.system": "autogen"},
        base="otel_genai",
        capture="AutoGen records no content; instrument the model client too",
    ),
)
