"""
What the sidecar answers about itself over HTTP: whether it lives and takes requests, its counters, metrics and page.

What quotes traces or settings is for this machine only; see `Question.is_near`.
"""

from __future__ import annotations

import json
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import yaml

from otel_scorer import telemetry
from otel_scorer.service.prometheus_text import prometheus_text
from otel_scorer.service.recent import RecentTraces
from otel_scorer.service.status_page import status_data, status_page
from otel_scorer.transport.status_server import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_scorer.service.own_metrics import OwnMetrics
    from otel_scorer.stores.spool import Spool
    from otel_scorer.transport.status_server import Question

__all__ = ["Phase", "Status"]

_UNAVAILABLE: Final = 503
_NO_SPOOL: Final = "the spool cannot be used"
_TEXT: Final = "text/plain; charset=utf-8"
_FAR: Final = (
    b"The status page quotes traces and settings: it is for this machine only. Open it as http://localhost:PORT/ "
    b"there, or through a tunnel that ends there (ssh -L, kubectl port-forward).\n"
)


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
        settings: How it works, without secrets.
        with_reasons: Whether it may be shown why verdicts are what they are.
        clock: Monotonic seconds.

    Attributes:
        phase: How far it is; its owner says so.
        bound: What listens where; likewise.
        recent: The last traces; their owner tells it.
        settings: As above; whoever changes them says so.
        spool: What requests are written down in, if they are; likewise.
    """

    def __init__(
        self,
        metrics: OwnMetrics,
        settings: Mapping[str, Any],
        *,
        with_reasons: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.phase = Phase.STARTING
        self.bound: dict[str, str] = {}
        self.recent = RecentTraces(with_reasons=with_reasons)
        self._metrics = metrics
        self.settings = settings
        self.spool: Spool | None = None
        self._clock = clock
        self._started = clock()

    def answer(self, question: Question) -> Answer:
        """Answer one GET request."""
        match question.path:
            case "/healthz" | "/health":
                return _json({"status": "ok", "phase": self.phase})
            case "/readyz":
                is_stuck = self.spool is not None and not self.spool.is_open
                is_ready = self.phase is Phase.READY and not is_stuck
                return _json({"status": _NO_SPOOL if is_stuck else self.phase}, 200 if is_ready else _UNAVAILABLE)
            case "/metrics":
                return Answer(*prometheus_text(self._metrics, question.accept))
            case "/" if "text/html" not in question.accept:
                return _json({"status": "ok", "phase": self.phase, "counters": telemetry.snapshot()})
            case "/" | "/status.json":
                return self._page(question)
            case _:
                return Answer(b"No such page\n", _TEXT, 404)

    def _page(self, question: Question) -> Answer:
        if not question.is_near:
            return Answer(_FAR, _TEXT, 403)
        if question.path == "/":
            document, policy = status_page()
            return Answer(document, "text/html; charset=utf-8", policy=policy)
        return _json({
            "phase": self.phase,
            "up": round(self._clock() - self._started, 1),
            "bound": self.bound,
            "traces": self.recent.to_data(),
            "settings": yaml.safe_dump(dict(self.settings), sort_keys=False, allow_unicode=True, width=110),
            **status_data(self._metrics.measured()),
        })  # fmt: skip


def _json(data: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(data, indent=2).encode() + b"\n", status=status)
