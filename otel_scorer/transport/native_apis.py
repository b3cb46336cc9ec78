"""The score APIs of Phoenix, MLflow and Langfuse: one class each, idempotent each in its own way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_scorer.transport.native_client import JsonClient
    from otel_scorer.transport.native_score import NativeScore

__all__ = ["LangfuseApi", "MlflowApi", "PhoenixApi"]

_PHOENIX_BATCH: Final = 100
_CONFLICTS: Final = frozenset({409, 500})
_FOUND: Final = 200


class PhoenixApi:
    """
    Annotations of traces and of spans.

    They are sent to be written before the answer comes (`sync=true`): otherwise Phoenix says yes to annotations of
    traces that it does not have, and forgets them when it ends. It keeps one for each target, name and identifier.
    """

    batch = _PHOENIX_BATCH

    def __init__(self, client: JsonClient) -> None:
        self._client = client

    def send(self, scores: Sequence[NativeScore], timeout: float) -> None:
        """Send annotations, all of traces or all of spans."""
        kind = "trace" if scores[0].span_id is None else "span"
        body = b'{"data": [' + b", ".join([score.body for score in scores]) + b"]}"
        answer = self._client.call("POST", f"/v1/{kind}_annotations?sync=true", body, timeout)
        if not answer.is_success:
            # All are refused if one target is missing; the message lists those that are.
            targets = {score.span_id or score.trace_id for score in scores}
            raise answer.error(frozenset(target for target in targets if target in answer.text))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class MlflowApi:
    """
    Assessments, one a request.

    MLflow takes an id that the client made and answers a second one of that id with 500, as it does when something
    breaks: so it is asked whether the assessment is there, and if it is, that one is changed.
    """

    batch = 1

    def __init__(self, client: JsonClient) -> None:
        self._client = client

    def send(self, scores: Sequence[NativeScore], timeout: float) -> None:
        """Send assessments."""
        for score in scores:
            self._send(score, timeout)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _send(self, score: NativeScore, timeout: float) -> None:
        path = f"/api/3.0/mlflow/traces/tr-{score.trace_id}/assessments"
        answer = self._client.call("POST", path, b'{"assessment": ' + score.body + b"}", timeout)
        if answer.is_success:
            return
        if answer.status in _CONFLICTS:
            assessment: dict[str, Any] = json.loads(score.body)
            own = f"{path}/{assessment['assessment_id']}"
            if self._client.call("GET", own, None, timeout).status == _FOUND:
                answer = self._client.call("PATCH", own, _change(assessment), timeout)
                if answer.is_success:
                    return
        raise answer.error()


def _change(assessment: dict[str, Any]) -> bytes:
    # What is not sent stays as it was: an explanation that is gone must be taken back.
    changed = {"rationale": "", **assessment}
    return json.dumps({"assessment": changed, "update_mask": "feedback,rationale,metadata"}).encode()


class LangfuseApi:
    """Scores, one a request. Langfuse keeps one for each id, and takes those of traces that it does not have yet."""

    batch = 1

    def __init__(self, client: JsonClient) -> None:
        self._client = client

    def send(self, scores: Sequence[NativeScore], timeout: float) -> None:
        """Send scores."""
        for score in scores:
            answer = self._client.call("POST", "/api/public/scores", score.body, timeout)
            if not answer.is_success:
                raise answer.error()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
