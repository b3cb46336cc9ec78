"""
Attribute vocabularies: one module each, in one table.

The order is the order of precedence, for span types and for every field: what an application or its framework says
counts more than what was derived from it, and the specific counts more than the general. To add a dialect, write a
module and put it in its place here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_scorer.dialects import (
    claude_code,
    codex_cli,
    flue,
    gemini_cli,
    genai,
    genkit,
    google_adk,
    laminar,
    langfuse,
    langsmith,
    livekit,
    logfire,
    mcp,
    microsoft,
    mlflow,
    openinference,
    openlit,
    own,
    pydantic_ai,
    spring_ai,
    strands,
    traceloop,
    vercel_ai,
    voltagent,
)
from otel_scorer.dialects.reader import DialectReader
from otel_scorer.model.trace import register_reader

if TYPE_CHECKING:
    from otel_scorer.dialects.table import Dialect

__all__ = ["DIALECTS", "READER", "DialectReader"]

DIALECTS: Final[tuple[Dialect, ...]] = (
    own.DIALECT,
    mlflow.DIALECT,
    *openinference.DIALECTS,
    langfuse.DIALECT,
    langsmith.DIALECT,
    vercel_ai.DIALECT,
    laminar.DIALECT,
    genkit.DIALECT,
    claude_code.DIALECT,
    traceloop.DIALECT,
    # Frameworks on the OTel conventions, before the conventions themselves.
    pydantic_ai.DIALECT,
    logfire.DIALECT,
    google_adk.DIALECT,
    strands.DIALECT,
    *microsoft.DIALECTS,
    openlit.DIALECT,
    gemini_cli.DIALECT,
    spring_ai.DIALECT,
    genai.DIALECT,
    mcp.DIALECT,
    traceloop.LEGACY,
    voltagent.DIALECT,
    livekit.DIALECT,
    flue.DIALECT,
    codex_cli.DIALECT,
)

READER: Final = DialectReader(DIALECTS)
"""Knows all dialects."""

register_reader(READER)
