"""
Attribute vocabularies: one module each, in one table; and what a dialect of your own is made of.

The order is the order of precedence, for span types and for every field: what an application or its framework says
counts more than what was derived from it, and the specific counts more than the general. To add a dialect, write a
module and put it in its place here; from another package, name it in an entry point (see docs/dialects.md).
"""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
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
from otel_scorer.dialects.explaining import ExplainingReader
from otel_scorer.dialects.reader import DialectReader
from otel_scorer.dialects.table import (
    SPAN_TYPES,
    Attribute,
    Computed,
    Dialect,
    EventAttribute,
    Flattened,
    MimeAttribute,
    NamePart,
    NameRule,
    Source,
    SpanTypeKey,
    attributes,
)
from otel_scorer.errors import ConfigError
from otel_scorer.model.pickling import teach_pickle
from otel_scorer.model.trace import register_reader

if TYPE_CHECKING:
    from collections.abc import Generator

    from otel_scorer.dialects.teaching import Teaching

__all__ = [
    "DIALECTS",
    "READER",
    "SPAN_TYPES",
    "Attribute",
    "Computed",
    "Dialect",
    "DialectReader",
    "EventAttribute",
    "ExplainingReader",
    "Flattened",
    "MimeAttribute",
    "NamePart",
    "NameRule",
    "Source",
    "SpanTypeKey",
    "attributes",
    "default_reader",
    "make_reader",
    "using",
]

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

READER: Final = ExplainingReader(DIALECTS)
"""Knows all built-in dialects."""


@cache
def _installed_reader() -> ExplainingReader:
    return make_reader()


_current: Final[ContextVar[ExplainingReader | None]] = ContextVar("otel_scorer_reader", default=None)


def default_reader() -> ExplainingReader:
    """Return the reader of `using`, else the one that knows the built-in dialects and those of installed packages."""
    return _current.get() or _installed_reader()


@contextmanager
def using(reader: ExplainingReader) -> Generator[None]:
    """Make `reader` the default for whatever is called meanwhile, in this context."""
    token = _current.set(reader)
    try:
        yield
    finally:
        _current.reset(token)


def make_reader(teaching: Teaching | None = None) -> ExplainingReader:
    """
    Return a reader that knows the built-in dialects, those of installed packages, and what was taught.

    Args:
        teaching: What the user adds, or does not want.

    Raises:
        ConfigError: A dialect is disabled that is not there.
    """
    from otel_scorer.dialects.plugins import installed, usable
    from otel_scorer.dialects.teaching import TaughtReader, Teaching, taught_dialect

    teaching = teaching or Teaching()
    own, *built_in = DIALECTS
    plugins = installed()
    _check_disabled(teaching, {dialect.name for plugin in plugins for dialect in plugin.dialects})
    built_in = [dialect for dialect in built_in if dialect.name not in teaching.disabled]
    others = usable(plugins, {dialect.name for dialect in (own, *built_in)}, disabled=teaching.disabled)
    if not others and teaching.is_empty:
        return READER
    if teaching.attributes:
        others.insert(0, taught_dialect(teaching.attributes))
    table = (own, *others, *built_in)
    if teaching.attributes or teaching.span_types:
        return TaughtReader(table, teaching.span_types)
    return ExplainingReader(table)


def _check_disabled(teaching: Teaching, others: set[str]) -> None:
    names = [dialect.name for dialect in DIALECTS[1:]] + sorted(others)
    for name in teaching.disabled:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
            raise ConfigError(f"dialects.disabled: there is no dialect {name!r}; {hint}")


register_reader(default_reader)
teach_pickle()
