"""
Score live traces with plain Python, wherever OpenTelemetry flows.

Every public name is here. A name's module is imported when the name is first used, so that `import otel_scorer` costs
next to nothing and needs no server library.

PYTEST_DONT_REWRITE: the package has a pytest plugin, but no assertion of it is one of a test.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from otel_scorer.errors import (
        AssessmentValueError,
        ConfigError,
        OtelScorerError,
        ScorerError,
    )
    from otel_scorer.evaluation import load_traces
    from otel_scorer.evaluation.evaluating import evaluate
    from otel_scorer.evaluation.result import EvaluationResult
    from otel_scorer.evaluation.stored import log_expectation, search_traces
    from otel_scorer.model.feedback import (
        AssessmentError,
        AssessmentSource,
        AssessmentSourceType,
        Expectation,
        Feedback,
    )
    from otel_scorer.model.trace import Span, SpanStatusCode, SpanType, Trace, TraceInfo
    from otel_scorer.processor import ScoringSpanProcessor
    from otel_scorer.scorers.base import Scorer, scorer
    from otel_scorer.scorers.lifecycle import ScorerSamplingConfig, ScorerStatus
    from otel_scorer.scorers.registry import delete_scorer, get_scorer, list_scorer_versions, list_scorers

__version__: Final = "0.1.0"

__all__ = [
    "AssessmentError",
    "AssessmentSource",
    "AssessmentSourceType",
    "AssessmentValueError",
    "ConfigError",
    "EvaluationResult",
    "Expectation",
    "Feedback",
    "OtelScorerError",
    "Scorer",
    "ScorerError",
    "ScorerSamplingConfig",
    "ScorerStatus",
    "ScoringSpanProcessor",
    "Span",
    "SpanStatusCode",
    "SpanType",
    "Trace",
    "TraceInfo",
    "__version__",
    "delete_scorer",
    "evaluate",
    "get_scorer",
    "list_scorer_versions",
    "list_scorers",
    "load_traces",
    "log_expectation",
    "scorer",
    "search_traces",
]

_HOMES: Final = {
    "otel_scorer.errors": ("AssessmentValueError", "ConfigError", "OtelScorerError", "ScorerError"),
    "otel_scorer.evaluation": ("load_traces",),
    "otel_scorer.evaluation.evaluating": ("evaluate",),
    "otel_scorer.evaluation.result": ("EvaluationResult",),
    "otel_scorer.evaluation.stored": ("log_expectation", "search_traces"),
    "otel_scorer.model.feedback": (
        "AssessmentError",
        "AssessmentSource",
        "AssessmentSourceType",
        "Expectation",
        "Feedback",
    ),
    "otel_scorer.model.trace": ("Span", "SpanStatusCode", "SpanType", "Trace", "TraceInfo"),
    "otel_scorer.processor": ("ScoringSpanProcessor",),
    "otel_scorer.scorers.base": ("Scorer", "scorer"),
    "otel_scorer.scorers.lifecycle": ("ScorerSamplingConfig", "ScorerStatus"),
    "otel_scorer.scorers.registry": ("delete_scorer", "get_scorer", "list_scorer_versions", "list_scorers"),
}
_HOME_OF: Final = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(_unknown(name))
    if name == "Trace":
        # `Trace.from_json` asks the dialects what attributes mean; they register themselves.
        import_module("otel_scorer.dialects")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def _unknown(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, __all__, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"otel_scorer {__version__} has no {name!r}{hint}"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
