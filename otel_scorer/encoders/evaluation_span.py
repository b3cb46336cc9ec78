"""
A verdict as a span of its own: `evaluation <name>`, child of its target, linked to it, ending when it ended.

Nothing in its bytes depends on when it was made, so a retry is identical and backends collapse it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from otel_scorer.encoders.verdict import AttributeScalar, Verdict
from otel_scorer.model.trace import OWN_SCOPE
from otel_scorer.model.wire import attribute, field, fixed64_field, key_value, varint_field

if TYPE_CHECKING:
    from otel_scorer.encoders.target import Target

__all__ = ["SCOPE_VERSION", "encode_evaluation_span", "evaluation_attributes", "own_scope"]

_KIND_INTERNAL: Final = 1
_FLAGS_SAMPLED: Final = 0x101  # sampled, and SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK: the parent is known not to be remote
_SHORT: Final = 64


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


def evaluation_attributes(
    verdict: Verdict, *, close_reason: str | None, complete: bool | None
) -> dict[str, AttributeScalar]:
    """
    Return the attributes of an evaluation span.

    OTel GenAI's `gen_ai.evaluation.*`, the kind for OpenInference and MLflow, OpenInference's
    `[trace.]evaluations.0.evaluation.*` (with `trace.` where the whole trace is meant), and our own.
    """
    attributes: dict[str, AttributeScalar] = {
        "openinference.span.kind": "EVALUATOR",
        "mlflow.spanType": "EVALUATOR",
        **verdict.gen_ai(),
    }
    prefix = f"{'trace.' if verdict.span_id is None else ''}evaluations.0.evaluation."
    attributes[prefix + "name"] = verdict.name
    if verdict.score is not None:
        attributes[prefix + "score"] = verdict.score
    if verdict.label is not None:
        attributes[prefix + "label"] = verdict.label
    if verdict.explanation is not None:
        attributes[prefix + "explanation"] = verdict.explanation
    attributes[prefix + "annotator_kind"] = "LLM" if verdict.source_type == "LLM_JUDGE" else verdict.source_type
    attributes[prefix + "identifier"] = verdict.source_id
    if verdict.metadata:
        attributes[prefix + "metadata"] = json.dumps(dict(verdict.metadata), ensure_ascii=False)
    attributes.update(verdict.own(close_reason, complete))
    return attributes


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
    end = fixed64_field(7, target.end_time_ns) + fixed64_field(8, target.end_time_ns)
    link = field(1, target.trace_id) + field(2, target.span_id) + b"\x35" + target.flags.to_bytes(4, "little")
    parts = [
        field(1, target.trace_id),
        field(2, verdict.evaluation_id(target.trace_id, target.span_id)),
        field(4, target.span_id),
        field(5, f"evaluation {verdict.name}".encode("utf-8", "replace")),
        varint_field(6, _KIND_INTERNAL),
        end,
    ]
    attributes = evaluation_attributes(verdict, close_reason=close_reason, complete=complete)
    parts += [
        _short_attribute(key, value) if not isinstance(value, str) or len(value) < _SHORT else attribute(key, value)
        for key, value in attributes.items()
    ]
    parts += [field(13, link), b"\x85\x01", _FLAGS_SAMPLED.to_bytes(4, "little")]
    return b"".join(parts)


# Most attributes of most verdicts repeat (names, kinds, labels, versions); texts are left out of the cache.
@lru_cache(maxsize=8192, typed=True)
def _short_attribute(key: str, value: AttributeScalar) -> bytes:
    return field(9, key_value(key, value))
