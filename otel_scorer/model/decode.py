"""Where views of spans come from, in one place: OTLP messages (`otlp_span`) and the SDK's spans (`sdk_span`)."""

from __future__ import annotations

from otel_scorer.model.log_records import attach_logs, logs_from_raw, logs_from_request
from otel_scorer.model.otlp_attributes import Attributes, encode_attributes
from otel_scorer.model.otlp_span import (
    Origin,
    OtlpSpan,
    spans_from_raw,
    spans_from_request,
)
from otel_scorer.model.sdk_span import SdkSpan, spans_from_sdk

__all__ = [
    "Attributes",
    "Origin",
    "OtlpSpan",
    "SdkSpan",
    "attach_logs",
    "encode_attributes",
    "logs_from_raw",
    "logs_from_request",
    "spans_from_raw",
    "spans_from_request",
    "spans_from_sdk",
]
