"""Verdicts beside spans: as log records and as metrics."""

from __future__ import annotations

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics
from tests.fakes import a_decision

from otel_scorer.encoders.verdict import verdicts_of
from otel_scorer.model.decision import Decision
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.wire import RawSpan
from otel_scorer.pipeline.assembly.assembler import ClosedTrace, CloseReason
from otel_scorer.pipeline.verdicts.emission import Emission, Emit, Emitter
from otel_scorer.pipeline.verdicts.metrics import VerdictMetrics
from otel_scorer.pipeline.verdicts.sinks import LogSink, VerdictSink
from otel_scorer.telemetry import count
from otel_scorer.testing import CollectingSink, ManualClock, make_raw, make_span

ROOT, CHILD = make_raw(make_span("root", span=1), make_span("child", span=2, parent=1))


class Requests:
    """What was handed on."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, int]] = []

    def __call__(self, data: bytes, items: int) -> None:
        self.sent.append((data, items))

    def metrics(self) -> list[ResourceMetrics]:
        return list(ExportMetricsServiceRequest.FromString(self.sent[-1][0]).resource_metrics)

    def metric(self, name: str, service: str = "app") -> Metric:
        [found] = [
            metric
            for resource in self.metrics()
            if resource.resource.attributes[0].value.string_value == service
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return found


def a_trace(*spans: RawSpan) -> ClosedTrace[RawSpan]:
    return ClosedTrace(ROOT.trace_id, list(spans), CloseReason.IDLE, complete=False)


def counted(metric: Metric) -> dict[tuple[str, ...], int]:
    return {
        tuple(pair.value.string_value for pair in point.attributes): point.as_int for point in metric.sum.data_points
    }


def add(sink: VerdictSink, decision: Decision, span: RawSpan = ROOT) -> None:
    sink.add(a_trace(span), span, verdicts_of(decision))


def test_a_sink_takes_each_verdict_once_however_spans_are_held() -> None:
    requests = Requests()
    scores = CollectingSink()
    emitter = Emitter(Emission(frozenset({Emit.LOGS, Emit.ATTRIBUTES}), sinks=(LogSink(requests),)), scores.on_scores)

    emitter.enrich(a_trace(ROOT, CHILD), [ROOT], [a_decision(True), a_decision(1, span_id=CHILD.span_id.hex())])
    emitter.emit(a_trace(ROOT, CHILD), [a_decision(True, scorer="late")])
    emitter.flush()

    [(data, items)] = requests.sent
    [resource] = ExportLogsServiceRequest.FromString(data).resource_logs
    [scope] = resource.scope_logs
    assert items == 3
    assert scope.scope.name == "otel_scorer"
    assert [record.span_id for record in scope.log_records] == [ROOT.span_id, CHILD.span_id, ROOT.span_id]
    assert resource.resource.attributes[0].value.string_value == "app"
    # Only those that attributes were promised for and whose target had left.
    assert [score.name for score in scores.scores] == ["evaluation check", "evaluation late"]


def test_without_an_encoding_on_spans_no_span_is_made() -> None:
    scores = CollectingSink()
    emitter = Emitter(Emission(frozenset({Emit.LOGS}), sinks=(LogSink(Requests()),)), scores.on_scores)

    emitter.emit(a_trace(ROOT), [a_decision(True)])
    held = emitter.enrich(a_trace(ROOT), [ROOT], [a_decision(True)])
    emitter.finish()

    assert scores.score_requests == []
    assert held == [ROOT]


def test_nothing_to_log_is_no_request() -> None:
    requests = Requests()
    sink = LogSink(requests)

    sink.flush()

    assert requests.sent == []


def test_scores_are_a_histogram_by_name_under_the_service_that_was_scored() -> None:
    requests = Requests()
    metrics = VerdictMetrics(requests)

    for value in (0.25, True, False, "partial"):
        add(metrics, a_decision(value))
    add(metrics, a_decision(Feedback("broken", None, "boom")))
    metrics.finish()

    [point] = requests.metric("gen_ai.evaluation.score").histogram.data_points
    assert (point.count, point.sum, point.min, point.max) == (3, 1.25, 0.0, 1.0)
    assert [(pair.key, pair.value.string_value) for pair in point.attributes] == [("gen_ai.evaluation.name", "check")]
    assert counted(requests.metric("otel_scorer.verdicts")) == {
        ("check",): 1,
        ("check", "pass"): 1,
        ("check", "fail"): 1,
        ("check", "partial"): 1,
        ("broken", "ASSESSMENT_ERROR"): 1,
    }


def test_a_bucket_leads_to_a_trace() -> None:
    requests = Requests()
    metrics = VerdictMetrics(requests)

    add(metrics, a_decision(0.25), CHILD)
    metrics.finish()

    [point] = requests.metric("gen_ai.evaluation.score").histogram.data_points
    assert [(each.trace_id, each.span_id) for each in point.exemplars] == [(CHILD.trace_id, CHILD.span_id)]


def test_decisions_without_a_verdict_are_counted_too() -> None:
    requests = Requests()
    count("scoring.decisions", 5, scorer="skipped_here", outcome="not_sampled")
    metrics = VerdictMetrics(requests)

    metrics.finish()
    count("scoring.decisions", 2, scorer="skipped_here", outcome="not_sampled")
    metrics.finish()

    assert counted(requests.metric("otel_scorer.decisions", "otel-scorer"))["skipped_here", "not_sampled"] == 7


def test_delta_says_what_came_since_the_last_report() -> None:
    requests = Requests()
    metrics = VerdictMetrics(requests, delta=True)

    for times in (3, 1):
        for _ in range(times):
            add(metrics, a_decision(True))
        metrics.finish()

    assert counted(requests.metric("otel_scorer.verdicts")) == {("check", "pass"): 1}


def test_a_report_waits_for_its_time() -> None:
    requests, clock = Requests(), ManualClock()
    metrics = VerdictMetrics(requests, interval=10, clock=clock)

    add(metrics, a_decision(True))
    metrics.flush()
    assert requests.sent == []
    clock.advance(10)
    metrics.flush()
    metrics.flush()

    assert len(requests.sent) == 1


def test_what_scorers_and_services_make_up_cannot_fill_the_memory() -> None:
    requests = Requests()
    metrics = VerdictMetrics(requests)

    for number in range(60):
        add(metrics, a_decision(f"label {number}"))
    for number in range(600):
        add(metrics, a_decision(1, scorer=f"scorer {number}"))
    for number in range(250):
        add(metrics, a_decision(1), make_raw(make_span("root", span=1), service=f"service {number}")[0])
    metrics.finish()

    labels = {key for key in counted(requests.metric("otel_scorer.verdicts")) if key[0] == "check"}
    assert len(labels) == 21
    assert ("check", "_OTHER") in labels
    assert len(requests.metric("gen_ai.evaluation.score").histogram.data_points) == 500
    assert len(requests.metrics()) <= 202


def test_two_processes_never_write_one_series() -> None:
    requests = Requests()
    for metrics in (VerdictMetrics(requests), VerdictMetrics(requests)):
        add(metrics, a_decision(True))
        metrics.finish()

    instances = {
        pair.value.string_value
        for data, _ in requests.sent
        for resource in ExportMetricsServiceRequest.FromString(data).resource_metrics
        for pair in resource.resource.attributes
        if pair.key == "service.instance.id"
    }
    assert len(instances) == 2
