"""What the sidecar answers about itself over HTTP: whether it lives and takes requests, its counters and metrics."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from otel_scorer import telemetry
from otel_scorer.service.prometheus_text import prometheus_text
from otel_scorer.transport.status_server import Answer

if TYPE_CHECKING:
    from otel_scorer.service.own_metrics import OwnMetrics
    from otel_scorer.transport.status_server import Question

__all__ = ["Phase", "Status"]

_UNAVAILABLE: Final = 503
_TEXT: Final = "text/plain; charset=utf-8"


class Phase(StrEnum):
    """How far a sidecar is."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Status:
    """
    Answers questions about one sidecar.

    Args:
        metrics: Reads its metrics.

    Attributes:
        phase: How far it is; its owner says so.
    """

    def __init__(self, metrics: OwnMetrics) -> None:
        self.phase = Phase.STARTING
        self._metrics = metrics

    def answer(self, question: Question) -> Answer:
        """Answer one GET request."""
        match question.path:
            case "/healthz" | "/health":
                return _json({"status": "ok", "phase": self.phase})
            case "/readyz":
                is_ready = self.phase is Phase.READY
                return _json({"status": self.phase}, 200 if is_ready else _UNAVAILABLE)
            case "/metrics":
                return Answer(*prometheus_text(self._metrics, question.accept))
            case "/":
                return _json({"status": "ok", "phase": self.phase, "counters": telemetry.snapshot()})
            case _:
                return Answer(b"No such page\n", _TEXT, 404)


def _json(data: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(data, indent=2).encode() + b"\n", status=status)
