"""
Verdicts as metrics: a histogram of scores, a counter of labels, and the decisions that there were.

The SDK does the counting, with an exemplar in each bucket that leads to a trace. One meter provider for each service
that was scored, so that dashboards ask by `service.name` as they do for everything else; no ids among the attributes.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, ClassVar, Final

from opentelemetry import trace as trace_api
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from otel_scorer.encoders.evaluation_span import SCOPE_VERSION
from otel_scorer.model.facts import OWN_SCOPE
from otel_scorer.telemetry import count, counters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage

    from otel_scorer.encoders.verdict import Verdict
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import ClosedTrace

__all__ = ["VerdictMetrics"]

# Scores between 0 and 1, grades up to 10, and what else people measure: seconds, characters, calls.
_BOUNDS: Final = (
    *(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    *(2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 10000.0),
)
_SERVICE_KEYS: Final = ("service.name", "service.namespace", "service.version", "deployment.environment.name")
_SERVICES: Final = 200
_RESOURCES: Final = 10_000
# Text that a scorer makes up may be different each time: a metric has room for so many of them under each name.
_LABELS: Final = 20
_NAMES: Final = 500
_OTHER: Final = "_OTHER"

_Service = tuple[tuple[str, str], ...]


class VerdictMetrics:
    """
    Counts verdicts and hands on what it counted every `interval` seconds.

    Args:
        on_metrics: Takes an encoded ExportMetricsServiceRequest and its number of metrics; must not block.
        interval: Seconds between two reports.
        delta: Report what came since the last time, instead of what came since the start.
        clock: Monotonic seconds.
    """

    needs_trace: ClassVar[bool] = False

    def __init__(
        self,
        on_metrics: Callable[[bytes, int], None],
        *,
        interval: float = 10.0,
        delta: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_metrics = on_metrics
        self._interval = interval
        temporality = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
        self._temporality: dict[type, AggregationTemporality] = {Histogram: temporality, Counter: temporality}
        self._clock = clock
        self._next = clock() + interval
        self._lock = threading.Lock()  # guards everything below
        # Two processes never write one series: that would look like counters that jump.
        self._instance = str(uuid.uuid4())
        self._services: dict[_Service, _Instruments] = {}
        self._service_of: dict[bytes, _Service] = {}
        self._labels: dict[str, set[str]] = {}
        self._decisions = self._instruments((("service.name", "otel-scorer"),))
        self._decided: dict[tuple[str, str], int] = {}

    def add(self, trace: ClosedTrace[RawSpan], target: RawSpan, verdicts: Sequence[Verdict]) -> None:
        """Count the verdicts on one span."""
        del trace
        where = NonRecordingSpan(
            SpanContext(
                int.from_bytes(target.trace_id, "big"),
                int.from_bytes(target.span_id, "big"),
                is_remote=True,
                trace_flags=TraceFlags(TraceFlags.SAMPLED),
            )
        )
        context = trace_api.set_span_in_context(where)
        with self._lock:
            instruments = self._instruments_for(target.scope.resource)
            for verdict in verdicts:
                name = verdict.name if len(self._labels) < _NAMES or verdict.name in self._labels else _OTHER
                self._labels.setdefault(name, set())
                attributes: dict[str, str] = {"gen_ai.evaluation.name": name}
                if verdict.score is not None:
                    instruments.scores.record(verdict.score, attributes, context)
                if verdict.error_type is not None:
                    attributes["error.type"] = self._known(name, verdict.error_type)
                elif verdict.label is not None:
                    attributes["gen_ai.evaluation.score.label"] = self._known(name, verdict.label)
                instruments.verdicts.add(1, attributes, context)
        count("encoder.verdicts", len(verdicts), encoding="metrics")

    def flush(self) -> None:
        """Report if it is time to."""
        if self._clock() >= self._next:
            self.finish()

    def finish(self) -> None:
        """Report now."""
        with self._lock:
            self._next = self._clock() + self._interval
            self._count_decisions()
            found = [data for each in self._services.values() if (data := each.reader.get_metrics_data()) is not None]
        resources = [resource for data in found for resource in data.resource_metrics]
        metrics = sum(len(scope.metrics) for resource in resources for scope in resource.scope_metrics)
        if metrics:
            self._on_metrics(encode_metrics(MetricsData(resources)).SerializeToString(), metrics)

    def _count_decisions(self) -> None:
        for name, attributes, total in counters():
            if name != "scoring.decisions":
                continue
            said = dict(attributes)
            key = (said["scorer"], said["outcome"])
            # What another sidecar in this process counted before this one was made is counted here too.
            more = total - self._decided.get(key, 0)
            if more:
                self._decided[key] = total
                by = {"otel_scorer.scorer.name": key[0], "otel_scorer.decision": key[1]}
                self._decisions.decisions.add(more, by)

    def _known(self, name: str, label: str) -> str:
        known = self._labels[name]
        if label in known:
            return label
        if len(known) >= _LABELS:
            return _OTHER
        known.add(label)
        return label

    def _instruments_for(self, resource: bytes) -> _Instruments:
        service = self._service_of.get(resource)
        if service is None:
            if len(self._service_of) >= _RESOURCES:
                self._service_of.clear()
            service = self._service_of[resource] = _service(ResourceSpans.FromString(resource).resource)
        if service not in self._services and len(self._services) >= _SERVICES:
            service = (("service.name", _OTHER),)
        return self._instruments(service)

    def _instruments(self, service: _Service) -> _Instruments:
        found = self._services.get(service)
        if found is None:
            found = self._services[service] = _Instruments(service, self._instance, self._temporality)
        return found


class _Instruments:
    """The metrics of one service."""

    def __init__(self, service: _Service, instance: str, temporality: dict[type, AggregationTemporality]) -> None:
        self.reader = InMemoryMetricReader(temporality)
        # Not `Resource.create`: that would add the variables of the environment, which are about this process.
        resource = Resource({**dict(service), "service.instance.id": instance})
        provider = MeterProvider([self.reader], resource, shutdown_on_exit=False)
        meter = provider.get_meter(OWN_SCOPE, SCOPE_VERSION)
        self.scores = meter.create_histogram(
            "gen_ai.evaluation.score",
            "1",
            "Scores of evaluations, by name; pass is 1, fail is 0",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        )
        self.verdicts = meter.create_counter(
            "otel_scorer.verdicts", "{verdict}", "Verdicts, by evaluation name and label or error"
        )
        self.decisions = meter.create_counter(
            "otel_scorer.decisions", "{decision}", "Decisions of whether a scorer scores, by scorer"
        )


def _service(resource: ResourceMessage) -> _Service:
    found = {pair.key: pair.value.string_value for pair in resource.attributes if pair.value.HasField("string_value")}
    named = tuple((key, found[key][:256]) for key in _SERVICE_KEYS if found.get(key))
    return named or (("service.name", "unknown_service"),)
