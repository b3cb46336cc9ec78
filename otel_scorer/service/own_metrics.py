"""
The sidecar's own metrics as OTLP: everything of the tables in `telemetry`, made when somebody asks.

Sums and histograms are cumulative since the process started.
"""

from __future__ import annotations

import re
import time
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import uuid4

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.sdk.resources import SERVICE_NAME
from opentelemetry.sdk.resources import Resource as SdkResource

from otel_scorer.encoders.evaluation_span import SCOPE_VERSION
from otel_scorer.telemetry import COUNTERS, GAUGES, HISTOGRAMS, Measured, counters, distributions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["PREFIX", "OwnMetrics", "prometheus_name"]

PREFIX: Final = "otel_scorer."
"""What the names of the tables begin with outside."""

_UNITS: Final = {"s": "_seconds", "By": "_bytes"}
_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_]+")
_SERVICE: Final = "otel-scorer"
_T = TypeVar("_T")


class OwnMetrics:
    """
    Reads all metrics of this process.

    Args:
        gauges: Reads what goes up and down.
        now: Nanoseconds since the epoch.

    Attributes:
        measured: Reads what goes up and down.
        resource: Who says it: `OTEL_RESOURCE_ATTRIBUTES`, `service.name` (`OTEL_SERVICE_NAME`, else otel-scorer),
            `service.version`, `service.instance.id`.
    """

    def __init__(self, gauges: Callable[[], Iterable[Measured]], now: Callable[[], int] = time.time_ns) -> None:
        self.measured = gauges
        self._now = now
        self._started = now()
        self.resource = _resource()

    def request(self) -> ExportMetricsServiceRequest:
        """Return everything as it is now."""
        attributes = [_pair(key, value) for key, value in self.resource.items()]
        scope = InstrumentationScope(name="otel_scorer", version=SCOPE_VERSION)
        metrics = ScopeMetrics(scope=scope, metrics=[*self.sums(), *self.gauges(), *self.histograms()])
        return ExportMetricsServiceRequest(
            resource_metrics=[ResourceMetrics(resource=Resource(attributes=attributes), scope_metrics=[metrics])]
        )

    def sums(self) -> Iterator[Metric]:
        """Yield the counters that have counted."""
        now = self._now()
        for name, points in _by_name(counters()):
            found = [
                NumberDataPoint(
                    attributes=_pairs(attributes),
                    as_int=total,
                    start_time_unix_nano=self._started,
                    time_unix_nano=now,
                )
                for _, attributes, total in points
            ]
            table = COUNTERS[name]
            summed = Sum(
                data_points=found, aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE, is_monotonic=True
            )
            yield Metric(name=PREFIX + name, description=table.description, unit=table.unit, sum=summed)

    def gauges(self) -> Iterator[Metric]:
        """Yield what goes up and down."""
        now = self._now()
        measured = sorted((each.name, each.attributes, each.value) for each in self.measured())
        for name, points in _by_name(measured):
            found = [
                NumberDataPoint(attributes=_pairs(attributes), as_int=value, time_unix_nano=now)
                for _, attributes, value in points
            ]
            table = GAUGES[name]
            yield Metric(
                name=PREFIX + name, description=table.description, unit=table.unit, gauge=Gauge(data_points=found)
            )

    def histograms(self) -> Iterator[Metric]:
        """Yield the histograms that have values."""
        now = self._now()
        for name, points in _by_name(distributions()):
            table = HISTOGRAMS[name]
            found = [
                HistogramDataPoint(
                    attributes=_pairs(attributes),
                    start_time_unix_nano=self._started,
                    time_unix_nano=now,
                    count=sum(distribution.counts),
                    sum=distribution.total,
                    bucket_counts=distribution.counts,
                    explicit_bounds=table.bounds,
                )
                for _, attributes, distribution in points
            ]
            made = Histogram(data_points=found, aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE)
            yield Metric(name=PREFIX + name, description=table.description, unit=table.unit, histogram=made)


def prometheus_name(name: str, unit: str = "") -> str:
    """
    Return how Prometheus calls a metric or an attribute, as OpenTelemetry's rules for Prometheus say.

    Dots become underscores and units are spelled out. A counter has `_total` in addition.
    """
    return _NOT_IN_NAMES.sub("_", name) + _UNITS.get(unit, "")


def _by_name(
    found: Iterable[tuple[str, tuple[tuple[str, str], ...], _T]],
) -> Iterator[tuple[str, list[tuple[str, tuple[tuple[str, str], ...], _T]]]]:
    return ((name, list(points)) for name, points in groupby(found, key=itemgetter(0)))


def _pairs(attributes: Iterable[tuple[str, str]]) -> list[KeyValue]:
    return [_pair(key, value) for key, value in attributes]


def _pair(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _resource() -> Mapping[str, str]:
    """Return what the environment says of this process, as the SDK reads it, and what it leaves out."""
    found = {key: str(value) for key, value in SdkResource.create().attributes.items()}
    if found.get(SERVICE_NAME, "").startswith("unknown_service"):
        found[SERVICE_NAME] = _SERVICE
    return {"service.version": SCOPE_VERSION, "service.instance.id": str(uuid4()), **found}
