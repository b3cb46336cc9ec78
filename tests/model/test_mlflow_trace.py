"""Traces as MLflow 3 writes them are read as ours, without MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from otel_scorer import Feedback, Trace, evaluate, scorer
from otel_scorer.model.mlflow_trace import is_mlflow_trace


def written() -> dict[str, Any]:
    """What `mlflow.entities.Trace.to_dict()` of 3.17 returned, less what nobody reads."""
    return {
        "info": {
            "trace_id": "tr-b4d592d9d5e7769f97421a15cfec8bec",
            "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "1"}},
            "request_time": "2026-11-22T07:33:43.865Z",
            "state": "OK",
            "trace_metadata": {"mlflow.trace.user": "u1", "mlflow.trace.session": "s1", "mlflow.user": "root"},
            "assessments": [
                {
                    "assessment_id": "a-dd9d25a81d454ae48c5e587af512b0ab",
                    "assessment_name": "expected_response",
                    "trace_id": "tr-b4d592d9d5e7769f97421a15cfec8bec",
                    "source": {"source_type": "HUMAN", "source_id": "default"},
                    "create_time": "2026-11-22T07:33:45.124Z",
                    "last_update_time": "2026-11-22T07:33:45.124Z",
                    "expectation": {
                        "serialized_value": {"serialization_format": "JSON_FORMAT", "value": '{"r": "zwei"}'}
                    },
                    "valid": True,
                },
                {
                    "assessment_name": "a ticket",
                    "source": {"source_type": "LLM_JUDGE", "source_id": "default"},
                    "issue": {"issue_name": "slow"},
                },
            ],
            "tags": {"mlflow.traceName": "agent", "team": "a"},
        },
        "data": {
            "spans": [
                {
                    "trace_id": "tNWS2dXndp+XQhoVz+yL7A==",
                    "span_id": "+CeCjTI5hSA=",
                    "parent_span_id": None,
                    "name": "agent",
                    "start_time_unix_nano": 1795332823865873676,
                    "end_time_unix_nano": 1795332823869877999,
                    "events": [],
                    "status": {"code": "STATUS_CODE_OK", "message": ""},
                    "attributes": {
                        "mlflow.traceRequestId": '"tr-b4d592d9d5e7769f97421a15cfec8bec"',
                        "mlflow.spanType": '"AGENT"',
                        "mlflow.spanInputs": '{"q": "zwei"}',
                        "mlflow.spanOutputs": '{"r": "zwei"}',
                        "mine": '"text"',
                        "count": "3",
                    },
                    "links": [{"trace_id": "tr-" + "a" * 32, "span_id": "b" * 16, "attributes": None}],
                },
                {
                    "trace_id": "tNWS2dXndp+XQhoVz+yL7A==",
                    "span_id": "vdOVqBFauWA=",
                    "parent_span_id": "+CeCjTI5hSA=",
                    "name": "search",
                    "start_time_unix_nano": 1795332823866168356,
                    "end_time_unix_nano": None,
                    "events": [{"name": "ev", "time_unix_nano": 1795332823866229504, "attributes": {"k": 1}}],
                    "status": {"code": "STATUS_CODE_ERROR", "message": "ValueError: no"},
                    "attributes": {"mlflow.spanType": '"TOOL"', "mlflow.spanInputs": '{"x": 1}'},
                    "links": [],
                },
            ]
        },
    }


@pytest.mark.parametrize("read", [Trace.from_dict, lambda data: Trace.from_json(json.dumps(data))])
def test_a_trace_of_mlflow_is_read(read: Callable[[Any], Trace]) -> None:
    trace = read(written())

    assert trace.trace_id == "b4d592d9d5e7769f97421a15cfec8bec"
    assert (trace.inputs, trace.outputs, trace.session_id, trace.user_id) == ({"q": "zwei"}, {"r": "zwei"}, "s1", "u1")
    assert (trace.info.state, trace.info.request_time, trace.info.execution_duration) == ("OK", 1795332823865, 4)
    assert trace.info.tags["team"] == "a"
    [expected] = trace.search_assessments()
    assert (expected.name, expected.value) == ("expected_response", {"r": "zwei"})
    root, tool = trace.spans
    assert (root.span_type, root.get_attribute("mine"), root.get_attribute("count")) == ("AGENT", "text", 3)
    assert [(link.trace_id, link.span_id) for link in root.links] == [("a" * 32, "b" * 16)]
    assert (tool.span_type, tool.parent, tool.inputs, tool.end_time_ns) == ("TOOL", root, {"x": 1}, 0)
    assert (tool.status.status_code, tool.status.description) == ("ERROR", "ValueError: no")
    assert [(event.name, event.attributes) for event in tool.events] == [("ev", {"k": 1})]


def test_it_is_data_to_evaluate_and_keeps_what_is_known_of_it() -> None:
    @scorer
    def matches(outputs: Any, expectations: dict[str, Any]) -> Feedback:
        return Feedback(value=outputs == expectations["expected_response"])

    data = [{"trace": written()}, {"trace": json.dumps(written())}]

    assert evaluate(data, [matches], store=False).metrics == {"matches/mean": 1.0}


def test_what_is_damaged_is_refused_with_the_reason() -> None:
    damaged = written()
    damaged["data"]["spans"][0]["span_id"] = "AA=="

    with pytest.raises(ValueError, match=r"'AA==' is no id of 8 bytes"):
        Trace.from_dict(damaged)


def test_only_traces_of_mlflow_are_taken_for_them() -> None:
    assert not any(is_mlflow_trace(each) for each in (Trace.from_dict(written()), written(), None, "trace"))
