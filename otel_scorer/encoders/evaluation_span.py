"""
A verdict as a span of its own: `evaluation <name>`, child of its target, linked to it, ending when it ended.

Nothing in its bytes depends on when it was made, so a retry is identical and backends collapse it. Most of a span
repeats from trace to trace (names, kinds, labels, versions), so it is encoded once; see `Origin`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_scorer.encoders.verdict import AttributeScalar, Verdict, value_text
from otel_scorer.model.encoding import attribute, field, fixed32_field, varint_field
from otel_scorer.model.trace import OWN_SCOPE

if TYPE_CHECKING:
    from otel_scorer.encoders.target import Target

__all__ = ["SCOPE_VERSION", "encode_evaluation_span", "evaluation_attributes", "own_scope"]

_KIND_INTERNAL: Final = 1
# Sampled, and SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK: the parent is known not to be remote.
_FLAGS_SAMPLED: Final = 0x101

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
        return cls(
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
        )


def evaluation_attributes(
    verdict: Verdict, *, close_reason: str | None, complete: bool | None
) -> dict[str, AttributeScalar]:
    """
    Return the attributes of an evaluation span.

    OTel GenAI's `gen_ai.evaluation.*`, the kind for OpenInference and MLflow, OpenInference's
    `[trace.]evaluations.0.evaluation.*` (with `trace.` where the whole trace is meant), and our own.
    """
    is_on_trace = verdict.span_id is None
    return {
        **_common(Origin.of(verdict, close_reason, complete)),
        **_value(verdict.score, verdict.value, is_on_trace=is_on_trace),
        **_explanation(verdict.explanation, is_on_trace=is_on_trace),
        **_metadata(verdict),
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
    return b"".join([
        target.encoded,
        field(2, verdict.evaluation_id(target.trace_id, target.span_id)),
        _encoded_origin(Origin.of(verdict, close_reason, complete)),
        _encoded_value(verdict.score, verdict.value, is_on_trace=verdict.span_id is None),
        _encoded_explanation(verdict.explanation, is_on_trace=verdict.span_id is None),
        _encoded(_metadata(verdict)) if verdict.metadata else b"",
    ])  # fmt: skip


def _prefix(*, is_on_trace: bool) -> str:
    return "trace.evaluations.0.evaluation." if is_on_trace else "evaluations.0.evaluation."


def _common(origin: Origin) -> dict[str, AttributeScalar]:
    prefix = _prefix(is_on_trace=origin.is_on_trace)
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


def _value(score: float | None, value: AttributeScalar | None, *, is_on_trace: bool) -> dict[str, AttributeScalar]:
    attributes: dict[str, AttributeScalar] = {}
    if score is not None:
        attributes["gen_ai.evaluation.score.value"] = score
        attributes[_prefix(is_on_trace=is_on_trace) + "score"] = score
    if value is not None:
        attributes["otel_scorer.value"] = value
        attributes["otel_scorer.value_text"] = value_text(value)
    return attributes


def _explanation(explanation: str | None, *, is_on_trace: bool) -> dict[str, AttributeScalar]:
    if explanation is None:
        return {}
    return {
        "gen_ai.evaluation.explanation": explanation,
        _prefix(is_on_trace=is_on_trace) + "explanation": explanation,
    }


def _metadata(verdict: Verdict) -> dict[str, AttributeScalar]:
    if not verdict.metadata:
        return {}
    attributes: dict[str, AttributeScalar] = {f"otel_scorer.metadata.{key}": text for key, text in verdict.metadata}
    attributes[_prefix(is_on_trace=verdict.span_id is None) + "metadata"] = json.dumps(
        dict(verdict.metadata), ensure_ascii=False
    )
    return attributes


def _encoded(attributes: dict[str, AttributeScalar]) -> bytes:
    return b"".join([attribute(key, value) for key, value in attributes.items()])


def _encoded_origin(origin: Origin) -> bytes:
    texts = len(origin.name) + len(origin.label or "") + len(origin.error_type or "") + len(origin.source_id)
    # A label may be any text that a scorer returns: long ones, of which no two are equal, would only fill the memory.
    return _encode_common(origin) if texts > _CACHED_TEXT else _encode_common_once(origin)


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


def _encoded_value(score: float | None, value: AttributeScalar | None, *, is_on_trace: bool) -> bytes:
    if isinstance(value, str) and len(value) > _CACHED_TEXT:
        return _encoded(_value(score, value, is_on_trace=is_on_trace))
    return _encoded_short_value(score, value, is_on_trace=is_on_trace)


# Typed: 1, 1.0 and True are equal, and different attribute values.
@lru_cache(maxsize=1024, typed=True)
def _encoded_short_value(score: float | None, value: AttributeScalar | None, *, is_on_trace: bool) -> bytes:
    return _encoded(_value(score, value, is_on_trace=is_on_trace))


def _encoded_explanation(explanation: str | None, *, is_on_trace: bool) -> bytes:
    # Short ones repeat ("All 3 tool calls succeeded"), long ones would fill the cache.
    if explanation is None or len(explanation) > _SHORT:
        return _encoded(_explanation(explanation, is_on_trace=is_on_trace))
    return _encoded_short_explanation(explanation, is_on_trace=is_on_trace)


@lru_cache(maxsize=4096)
def _encoded_short_explanation(explanation: str, *, is_on_trace: bool) -> bytes:
    return _encoded(_explanation(explanation, is_on_trace=is_on_trace))
