"""The sidecar's own metrics as Prometheus reads them; the resource is `target_info`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from otel_scorer.service.own_metrics import prometheus_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as MetricMessage
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

    from otel_scorer.service.own_metrics import OwnMetrics

__all__ = ["prometheus_text"]


def prometheus_text(metrics: OwnMetrics, accept: str) -> tuple[bytes, str]:
    """Return all metrics and the content type, in the format that an `Accept` header asks for."""
    # Slow to import: once the first one asks.
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return encode(cast("Collector", _Families(metrics))), content_type


class _Families:
    """What prometheus_client writes down: a `Collector`."""

    def __init__(self, metrics: OwnMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
            InfoMetricFamily,
        )

        resource = {prometheus_name(key): value for key, value in self._metrics.resource.items()}
        yield InfoMetricFamily("target", "Who says it", resource)
        for metric in self._metrics.sums():
            points = metric.sum.data_points
            family = CounterMetricFamily(_name(metric), metric.description, labels=_labels(points[0].attributes))
            for point in points:
                family.add_metric(_values(point.attributes), point.as_int)
            yield family
        for metric in self._metrics.gauges():
            points = metric.gauge.data_points
            gauge = GaugeMetricFamily(_name(metric), metric.description, labels=_labels(points[0].attributes))
            for point in points:
                gauge.add_metric(_values(point.attributes), point.as_int)
            yield gauge
        for metric in self._metrics.histograms():
            found = metric.histogram.data_points
            histogram = HistogramMetricFamily(_name(metric), metric.description, labels=_labels(found[0].attributes))
            for value in found:
                histogram.add_metric(_values(value.attributes), _buckets(value), value.sum)
            yield histogram


def _name(metric: MetricMessage) -> str:
    return prometheus_name(metric.name, metric.unit)


def _labels(attributes: Sequence[KeyValue]) -> list[str]:
    return [prometheus_name(pair.key) for pair in attributes]


def _values(attributes: Sequence[KeyValue]) -> list[str]:
    return [pair.value.string_value for pair in attributes]


def _buckets(point: HistogramDataPoint) -> list[tuple[str, float]]:
    """Return upper bounds and how many values are not above each."""
    found: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip((*point.explicit_bounds, math.inf), point.bucket_counts, strict=True):
        below += count
        found.append(("+Inf" if bound == math.inf else f"{bound:.15g}", below))
    return found
