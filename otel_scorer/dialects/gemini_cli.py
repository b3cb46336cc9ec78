"""Gemini CLI: the OTel conventions with operation names and message shapes of its own (contents and parts)."""

from __future__ import annotations

from otel_scorer.dialects.table import Dialect

__all__ = ["DIALECT"]

DIALECT = Dialect(
    name="gemini_cli",
    values={"gen_ai.agent.name": "gemini-cli"},
    base="otel_genai",
    capture="set telemetry.logPrompts in .gemini/settings.json",
)
