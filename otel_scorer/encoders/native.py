"""
A verdict as the score APIs of Phoenix, MLflow and Langfuse want it: their names for the same things, as JSON bodies.

Facts of each API (fields, sizes, ids) are those of Phoenix 20, MLflow 3.17 and Langfuse's `POST /api/public/scores`.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Final, cast

from otel_scorer.encoders.verdict import STACK_TRACE, value_text

if TYPE_CHECKING:
    from otel_scorer.encoders.verdict import Verdict

__all__ = ["langfuse_score", "mlflow_assessment", "native_id", "phoenix_annotation"]

# What Phoenix keeps for notes: it refuses annotations of that name.
_PHOENIX_RESERVED: Final = "note"
# Sizes of MLflow's columns `name` and `source_id`.
_MLFLOW_TEXT: Final = 250
_LANGFUSE_TEXT: Final = 500
_METADATA_TEXT: Final = 4_096


def native_id(verdict: Verdict, trace_id: str, span_id: str | None) -> str:
    """
    Return 32 hex digits that are the same for the same verdict, whoever sends it and however often.

    Unlike the id of an evaluation span they do not depend on the revision: a verdict on a trace that was scored again
    takes the place of the one before.
    """
    parts = (trace_id, span_id or "", verdict.scorer, verdict.scorer_version, verdict.name, str(verdict.index))
    joined = "".join(f"{len(part)}:{part}" for part in parts)
    return sha256(joined.encode("utf-8", "replace")).hexdigest()[:32]


def phoenix_annotation(verdict: Verdict, trace_id: str, span_id: str | None) -> bytes:
    """
    Return one entry of `POST /v1/trace_annotations`, or of `/v1/span_annotations` where there is a span.

    Phoenix keeps one annotation for each name and identifier: the latter tells scorers, their versions, and equal names
    in one list apart. An error has neither score nor label, so that it is in no average.
    """
    target: dict[str, object] = {"trace_id": trace_id} if span_id is None else {"span_id": span_id}
    result = {"score": verdict.score, "label": verdict.label, "explanation": verdict.explanation}
    name = verdict.name or "unnamed"
    identifier = f"otel_scorer:{verdict.scorer}:{verdict.scorer_version}"
    return _json({
        **target,
        "name": f"{name}_" if name == _PHOENIX_RESERVED else name,
        "annotator_kind": {"LLM_JUDGE": "LLM", "HUMAN": "HUMAN"}.get(verdict.source_type, "CODE"),
        "result": {key: value for key, value in result.items() if value is not None},
        "metadata": _metadata(verdict),
        "identifier": f"{identifier}:{verdict.index}" if verdict.index else identifier,
    })  # fmt: skip


def mlflow_assessment(verdict: Verdict, trace_id: str, span_id: str | None) -> bytes:
    """Return the `assessment` of `POST /api/3.0/mlflow/traces/{trace}/assessments`."""
    metadata = _metadata(verdict)
    feedback: dict[str, object] = {"value": _mlflow_value(verdict)}
    if verdict.error_type is not None:
        error = {"error_code": verdict.error_type, "error_message": verdict.explanation or ""}
        if STACK_TRACE in metadata:
            error["stack_trace"] = metadata.pop(STACK_TRACE)
        feedback = {"error": error}
    assessment: dict[str, object] = {
        "assessment_id": f"a-{native_id(verdict, trace_id, span_id)}",
        "assessment_name": (verdict.name or "unnamed")[:_MLFLOW_TEXT],
        "trace_id": f"tr-{trace_id}",
        "source": {"source_type": verdict.source_type, "source_id": verdict.source_id[:_MLFLOW_TEXT]},
        "feedback": feedback,
        "metadata": metadata,
    }
    if span_id is not None:
        assessment["span_id"] = span_id
    if verdict.explanation is not None and verdict.error_type is None:
        assessment["rationale"] = verdict.explanation
    return _json(assessment)


def langfuse_score(verdict: Verdict, trace_id: str, span_id: str | None) -> bytes | None:
    """
    Return the body of `POST /api/public/scores`.

    None for errors, and where a scorer said nothing: a score of Langfuse must have a value.
    """
    if verdict.error_type is not None or verdict.value is None:
        return None
    kind, value = "CATEGORICAL", _cut(value_text(verdict.value), _LANGFUSE_TEXT)
    number: float | str = value
    if verdict.score is not None:
        kind, number = ("BOOLEAN", int(verdict.score)) if _is_yes_or_no(verdict) else ("NUMERIC", verdict.score)
    body: dict[str, object] = {
        "id": native_id(verdict, trace_id, span_id),
        "traceId": trace_id,
        "name": verdict.name or "unnamed",
        "value": number,
        "dataType": kind,
        "metadata": _metadata(verdict),
    }
    if span_id is not None:
        body["observationId"] = span_id
    if verdict.explanation is not None:
        body["comment"] = verdict.explanation
    return _json(body)


def _is_yes_or_no(verdict: Verdict) -> bool:
    return isinstance(verdict.value, bool | str)


def _mlflow_value(verdict: Verdict) -> object:
    value = verdict.value
    if isinstance(value, int) and not isinstance(value, bool):
        # Numbers are doubles there; one that does not fit is text rather than nothing.
        return value_text(value) if verdict.score is None else verdict.score
    return value


def _metadata(verdict: Verdict) -> dict[str, str]:
    metadata = dict(verdict.metadata)
    metadata["otel_scorer.scorer"] = verdict.scorer
    metadata["otel_scorer.scorer_version"] = verdict.scorer_version
    metadata["otel_scorer.revision"] = str(verdict.revision)
    metadata["otel_scorer.source_id"] = verdict.source_id
    if verdict.label is not None:
        metadata["otel_scorer.label"] = verdict.label
    if verdict.score is None and verdict.label is None and verdict.value is not None:
        metadata["otel_scorer.value"] = _cut(value_text(verdict.value), _METADATA_TEXT)
    if verdict.error_type is not None:
        metadata["error.type"] = verdict.error_type
    return metadata


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _json(body: object) -> bytes:
    return json.dumps(_storable(body), ensure_ascii=False).encode()


def _storable(value: object) -> object:
    """Return the same with what databases refuse in text replaced: lone surrogates and NUL."""
    if isinstance(value, str):
        clean = value if value.isascii() else value.encode("utf-8", "replace").decode()
        return clean.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in cast("dict[object, object]", value).items()}
    if isinstance(value, list):
        return [_storable(item) for item in cast("list[object]", value)]
    return value
