"""
Traces as MLflow writes them (`Trace.to_dict`, `to_json`, the column `trace` of its DataFrames), as plain data of ours.

Only data is read: MLflow need not be installed.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["is_mlflow_trace", "plain_from_mlflow"]

_TRACE_PREFIX: Final = "tr-"
_STATUS_PREFIX: Final = "STATUS_CODE_"
_OWN_KEYS: Final = "mlflow."
# MLflow keeps them beside the spans; on the root they are found whoever wrote them.
_METADATA: Final = {"mlflow.trace.session": "session.id", "mlflow.trace.user": "user.id"}
_KNOWN_ASSESSMENTS: Final = frozenset({"feedback", "expectation"})


def is_mlflow_trace(value: object) -> bool:
    """Tell whether something is a `mlflow.entities.Trace`."""
    return any(base.__name__ == "Trace" and base.__module__.startswith("mlflow.") for base in type(value).__mro__)


def plain_from_mlflow(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    Return what MLflow wrote as `Trace.to_dict` of ours writes it; None if MLflow did not write it.

    Raises:
        ValueError: An id is none. (Another type than MLflow writes is a KeyError, TypeError or AttributeError.)
    """
    spans: list[Mapping[str, Any]] = data["data"]["spans"]
    if not any("start_time_unix_nano" in span for span in spans):
        return None
    info: Mapping[str, Any] = data["info"]
    plain = [_span(span) for span in spans]
    root = next((span for span in plain if span["parent_id"] is None), plain[0])
    metadata = _map(info.get("trace_metadata"))
    for key, name in _METADATA.items():
        if metadata.get(key):
            root["attributes"].setdefault(name, str(metadata[key]))
    return {
        "info": {
            "tags": {str(key): str(value) for key, value in _map(info.get("tags")).items()},
            "assessments": [each for each in _maps(info.get("assessments")) if _KNOWN_ASSESSMENTS & set(each)],
        },
        "data": {"spans": plain},
    }


def _span(span: Mapping[str, Any]) -> dict[str, Any]:
    status = _map(span.get("status"))
    return {
        "trace_id": _id(span["trace_id"], 16),
        "span_id": _id(span["span_id"], 8),
        "parent_id": _id(span["parent_span_id"], 8) if span.get("parent_span_id") else None,
        "name": span["name"],
        "kind": "INTERNAL",
        "start_time_ns": span["start_time_unix_nano"],
        # A span that has not ended.
        "end_time_ns": span.get("end_time_unix_nano") or 0,
        "status": {
            "code": str(status.get("code") or "UNSET").removeprefix(_STATUS_PREFIX),
            "message": status.get("message") or "",
        },
        "attributes": {key: _decoded(key, value) for key, value in _map(span.get("attributes")).items()},
        "events": [
            {
                "name": event["name"],
                "timestamp": event.get("time_unix_nano") or 0,
                "attributes": _map(event.get("attributes")),
            }
            for event in _maps(span.get("events"))
        ],
        "links": [
            {
                "trace_id": str(link["trace_id"]).removeprefix(_TRACE_PREFIX),
                "span_id": link["span_id"],
                "attributes": _map(link.get("attributes")),
            }
            for link in _maps(span.get("links"))
        ],
        "resource": {},
        "scope": {"name": "", "version": ""},
    }


def _map(value: Any) -> Mapping[str, Any]:
    """Return what may be left out or null."""
    return cast("Mapping[str, Any]", value or {})


def _maps(value: Any) -> Sequence[Mapping[str, Any]]:
    return cast("Sequence[Mapping[str, Any]]", value or ())


def _id(given: object, size: int) -> str:
    """Return an id in hex digits: MLflow writes base64 of its bytes, and hex digits with `0x` before version 3."""
    text = str(given).removeprefix("0x")
    if len(text) == 2 * size:
        return text
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error:
        decoded = b""
    if len(decoded) != size:
        msg = f"{given!r} is no id of {size} bytes"
        raise ValueError(msg)
    return decoded.hex()


def _decoded(key: str, value: object) -> object:
    """Return an attribute as MLflow's own spans show it: every one is written as JSON text. Ours are read later."""
    if key.startswith(_OWN_KEYS) or not isinstance(value, str):
        return value
    try:
        return cast("object", json.loads(value))
    except ValueError:
        return value
