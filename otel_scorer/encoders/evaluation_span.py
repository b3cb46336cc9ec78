"""
A verdict as a span of its own: `evaluation <name>`, child of its target, linked to it, ending when it ended.

Nothing in its bytes depends on when it was made, so a retry is identical and backends collapse it. Most of a span
repeats from trace to trace (names, kinds, labels, versions), so it is encoded once; see `Origin`.
"""

from __future__ import annotations

import json
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_scorer.encoders.verdict import AttributeScalar, Verdict, value_text
from otel_scorer.model.encoding import attribute, field, fixed32_field, varint_field
from otel_scorer.model.trace import OWN_SCOPE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_scorer.encoders.target import Target

__all__ = ["SCOPE_VERSION", "encode_evaluation_span", "evaluation_attributes", "own_scope"]

_KIND_INTERNAL: Final = 1
# Sampled, and SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK: the parent is known not to be remote.
_FLAGS_SAMPLED: Final = 0x101

# OpenInference's keys for a verdict on a trace, and for one on a span.
_ON_TRACE: Final = "trace.evaluations.0.evaluation."
_ON_SPAN: Final = "evaluations.0.evaluation."
_SHORT: Final = 120
_CACHED_TEXT: Final = 512


def _package_version() -> str:
    try:
        return version("otel-scorer")
    except PackageNotFoundError:
        return "0"


SCOPE_VERSION: Final = _package_version()


@lru_cache(maxsize=1)
def own_scope() -> bytes:
    """Return otel_scorer's instrumentation scope as encoded ScopeSpans fields."""
    return field(1, field(1, OWN_SCOPE.encode()) + field(2, SCOPE_VERSION.encode()))


class Origin(NamedTuple):
    """What the evaluation spans of one scorer have in common while it says the same label on traces closed alike."""

    name: str
    label: str | None
    error_type: str | None
    source_type: str
    source_id: str
    scorer: str
    scorer_version: str
    revision: int
    is_on_trace: bool
    close_reason: str | None
    complete: bool | None

    @classmethod
    def of(cls, verdict: Verdict, close_reason: str | None, complete: bool | None) -> Origin:  # noqa: FBT001
        """Return what a verdict has in common with others."""
        return _origin((
            verdict.name,
            verdict.label,
            verdict.error_type,
            verdict.source_type,
            verdict.source_id,
            verdict.scorer,
            verdict.scorer_version,
            verdict.revision,
            verdict.span_id is None,
            close_reason,
            complete,
        ))  # fmt: skip


# `Origin` itself would be one more call of Python for each verdict.
_origin: Final[Callable[[Iterable[Any]], Origin]] = partial(tuple[Any, ...].__new__, Origin)


def evaluation_attributes(
    verdict: Verdict, *, close_reason: str | None, complete: bool | None
) -> dict[str, AttributeScalar]:
    """
    Return the attributes of an evaluation span.

    OTel GenAI's `gen_ai.evaluation.*`, the kind for OpenInference and MLflow, OpenInference's
    `[trace.]evaluations.0.evaluation.*` (with `trace.` where the whole trace is meant), and our own.
    """
    prefix = _ON_TRACE if verdict.span_id is None else _ON_SPAN
    return {
        **_common(Origin.of(verdict, close_reason, complete)),
        **_value(verdict.score, verdict.value, prefix),
        **({} if verdict.explanation is None else _explanation(verdict.explanation, prefix)),
        **_metadata(verdict, prefix),
    }


def encode_evaluation_span(
    verdict: Verdict, target: Target, *, close_reason: str | None, complete: bool | None
) -> bytes:
    """
    Return the encoded `trace.v1.Span`.

    Args:
        verdict: What to say.
        target: The span that it is about, or that stands for the trace.
        close_reason: Why the trace was closed.
        complete: Whether it looked complete.
    """
    prefix = _ON_TRACE if verdict.span_id is None else _ON_SPAN
    origin, label = Origin.of(verdict, close_reason, complete), verdict.label
    # A label may be any text that a scorer returns: long ones, of which no two are equal, would only fill the memory.
    is_usual = label is None or len(label) <= _CACHED_TEXT
    return b"".join((
        target.encoded,
        field(2, verdict.evaluation_id(target.trace_id, target.span_id)),
        _encode_common_once(origin) if is_usual else _encode_common(origin),
        _encoded_value(verdict.score, verdict.value, prefix),
        b"" if verdict.explanation is None else _encoded_explanation(verdict.explanation, prefix),
        _encoded(_metadata(verdict, prefix)) if verdict.metadata else b"",
    ))  # fmt: skip


def _common(origin: Origin) -> dict[str, AttributeScalar]:
    prefix = _ON_TRACE if origin.is_on_trace else _ON_SPAN
    attributes: dict[str, AttributeScalar | None] = {
        "openinference.span.kind": "EVALUATOR",
        "mlflow.spanType": "EVALUATOR",
        "gen_ai.evaluation.name": origin.name,
        "gen_ai.evaluation.score.label": origin.label,
        "error.type": origin.error_type,
        prefix + "name": origin.name,
        prefix + "label": origin.label,
        prefix + "annotator_kind": "LLM" if origin.source_type == "LLM_JUDGE" else origin.source_type,
        prefix + "identifier": origin.source_id,
        "otel_scorer.scorer.name": origin.scorer,
        "otel_scorer.scorer.version": origin.scorer_version,
        "otel_scorer.source.type": origin.source_type,
        "otel_scorer.source.id": origin.source_id,
        "otel_scorer.revision": origin.revision,
        "otel_scorer.close_reason": origin.close_reason,
        "otel_scorer.complete": origin.complete,
    }
    return {key: value for key, value in attributes.items() if value is not None}


def _value(score: float | None, value: AttributeScalar | None, prefix: str) -> dict[str, AttributeScalar]:
    attributes: dict[str, AttributeScalar] = {}
    if score is not None:
        attributes["gen_ai.evaluation.score.value"] = score
        attributes[prefix + "score"] = score
    if value is not None:
        attributes["otel_scorer.value"] = value
        attributes["otel_scorer.value_text"] = value_text(value)
    return attributes


def _explanation(explanation: str, prefix: str) -> dict[str, AttributeScalar]:
    return {"gen_ai.evaluation.explanation": explanation, prefix + "explanation": explanation}


def _metadata(verdict: Verdict, prefix: str) -> dict[str, AttributeScalar]:
    if not verdict.metadata:
        return {}
    attributes: dict[str, AttributeScalar] = {f"otel_scorer.metadata.{key}": text for key, text in verdict.metadata}
    attributes[prefix + "metadata"] = json.dumps(dict(verdict.metadata), ensure_ascii=False)
    return attributes


def _encoded(attributes: dict[str, AttributeScalar]) -> bytes:
    return b"".join([attribute(key, value) for key, value in attributes.items()])


@lru_cache(maxsize=1024)
def _encode_common_once(origin: Origin) -> bytes:
    return _encode_common(origin)


def _encode_common(origin: Origin) -> bytes:
    return b"".join([
        field(5, f"evaluation {origin.name}".encode("utf-8", "replace")),
        varint_field(6, _KIND_INTERNAL),
        _encoded(_common(origin)),
        fixed32_field(16, _FLAGS_SAMPLED),
    ])  # fmt: skip


def _encoded_value(score: float | None, value: AttributeScalar | None, prefix: str) -> bytes:
    if isinstance(value, str) and len(value) > _CACHED_TEXT:
        return _encoded(_value(score, value, prefix))
    return _encoded_short_value(score, value, prefix)


# Typed: 1, 1.0 and True are equal, and different attribute values.
@lru_cache(maxsize=1024, typed=True)
def _encoded_short_value(score: float | None, value: AttributeScalar | None, prefix: str) -> bytes:
    return _encoded(_value(score, value, prefix))


def _encoded_explanation(explanation: str, prefix: str) -> bytes:
    # Short ones repeat ("All 3 tool calls succeeded"), long ones would fill the cache.
    if len(explanation) > _SHORT:
        return _encoded(_explanation(explanation, prefix))
    return _encoded_short_explanation(explanation, prefix)


@lru_cache(maxsize=4096)
def _encoded_short_explanation(explanation: str, prefix: str) -> bytes:
    return _encoded(_explanation(explanation, prefix))
