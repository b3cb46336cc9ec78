"""The sidecar's own metrics as Prometheus reads them, read back by Prometheus' own parsers."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from otel_scorer.service.own_metrics import OwnMetrics
from otel_scorer.service.prometheus_text import prometheus_text
from otel_scorer.telemetry import Measured, count, record

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
WAITING = Measured("forwarder.queue_size", 42, (("destination", 'a "host"\\\n'), ("lane", "spans")))


@pytest.mark.parametrize("accept", ["", "text/plain;version=0.0.4", OPEN_METRICS])
def test_every_kind_is_read_back_as_it_was(accept: str) -> None:
    count("assembler.closed", 3, reason=f"accepted {accept}")
    record("scoring.duration", [0.2, 0.3, 1_000.0], scorer=f"for {accept}", outcome="scored")

    text, content_type = prometheus_text(OwnMetrics(lambda: [WAITING]), accept)

    assert content_type.startswith("application/openmetrics-text" if accept == OPEN_METRICS else "text/plain")
    parse = open_metrics if accept == OPEN_METRICS else plain
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text.decode())
        for sample in family.samples
    }
    closed = ("otel_scorer_assembler_closed_total", frozenset({("reason", f"accepted {accept}")}))
    waiting = ("otel_scorer_forwarder_queue_size_bytes", frozenset(WAITING.attributes))
    labels = {("scorer", f"for {accept}"), ("outcome", "scored")}
    duration = "otel_scorer_scoring_duration_seconds"
    assert found[closed] == 3
    assert found[waiting] == 42
    assert found[f"{duration}_count", frozenset(labels)] == 3
    assert found[f"{duration}_sum", frozenset(labels)] == 1000.5
    assert found[f"{duration}_bucket", frozenset({*labels, ("le", "0.25")})] == 1
    assert found[f"{duration}_bucket", frozenset({*labels, ("le", "+Inf")})] == 3
    assert any(name == "target_info" for name, _ in found)
