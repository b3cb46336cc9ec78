"""Which options the processor refuses, and what it warns of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.certificates import Authority
from tests.instrumented_app import span_count

from otel_scorer.errors import ConfigError, ScorerError
from otel_scorer.model.wire import Signal
from otel_scorer.processor import ScoringSpanProcessor
from otel_scorer.testing import read_spans
from otel_scorer.transport.exchange import ServerTls
from otel_scorer.transport.grpc_receiver import GrpcReceiver
from otel_scorer.transport.http_receiver import HttpReceiver


class Unsent(OTLPSpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"emit": ["events"], "export_spans": False}, "export_spans=False somebody else"),
        ({"emit": ["attributes"], "export_spans": False}, "export_spans=False somebody else"),
        ({"emit": ["everything"]}, "unknown"),
        ({"emit": []}, "emit is empty"),
        ({"forwarding": "hold_everything"}, "forwarding='hold_everything' is unknown"),
        ({"explanations": "some"}, "some"),
        ({"max_traces": 0}, "max_traces must be positive"),
        ({"hold_deadline": -1}, "hold_deadline must be positive"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScoringSpanProcessor(InMemorySpanExporter(), [span_count], **options)


def test_what_is_no_exporter_is_refused() -> None:
    with pytest.raises(TypeError, match="give its exporter"):
        ScoringSpanProcessor(SimpleSpanProcessor(InMemorySpanExporter()), [span_count])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a SpanExporter"):
        ScoringSpanProcessor("http://localhost:4318", [span_count])  # type: ignore[arg-type]


def test_what_is_no_scorer_is_refused() -> None:
    with pytest.raises(ScorerError):
        ScoringSpanProcessor(InMemorySpanExporter(), span_count)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        ScoringSpanProcessor(InMemorySpanExporter(), ["no_such_module:scorer"])


@pytest.mark.parametrize(
    ("other", "warns"),
    [
        (lambda: BatchSpanProcessor(OTLPSpanExporter("http://localhost:4318/v1/traces")), True),
        (lambda: SimpleSpanProcessor(ConsoleSpanExporter()), False),
        (lambda: BatchSpanProcessor(OTLPSpanExporter("http://elsewhere:4318/v1/traces")), False),
    ],
)
def test_it_warns_once_of_spans_that_are_exported_twice(
    other: Callable[[], Any], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = Unsent("http://localhost:4318/v1/traces")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(ScoringSpanProcessor(exporter, [span_count]))
    beside = other()
    beside.on_end = lambda span: None
    provider.add_span_processor(beside)

    with caplog.at_level(logging.WARNING, "otel_scorer"):
        for _ in range(3):
            provider.get_tracer("app").start_span("root").end()
    provider.shutdown()

    assert [record.message.startswith("Spans are exported twice") for record in caplog.records] == [True] * warns


SIDECAR = """
scorers:
  - {use: latency, name: seconds, pass_if: "< 10"}
scoring: {timeout: 7s}
assembly: {max_age: 5m, max_traces: 7}
explanations: "off"
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:4317}}}}
exporters: {otlp: {endpoint: "http://127.0.0.1:4317", headers: {x-key: "1"}, timeout: 3s}}
telemetry: {status_page: "off"}
"""


def test_the_configuration_of_the_sidecar_can_be_used_in_an_application(tmp_path: Path) -> None:
    (tmp_path / "otel-scorer.yaml").write_text(SIDECAR)
    exporter = InMemorySpanExporter()

    processor = ScoringSpanProcessor.from_config(tmp_path / "otel-scorer.yaml", exporter, schedule_delay=0.1)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    provider.get_tracer("app").start_span("root").end()
    provider.shutdown()

    [root] = exporter.get_finished_spans()
    assert dict(root.attributes or {})["otel_scorer.seconds.label"] == "pass"
    assert "otel_scorer.seconds.explanation" not in (root.attributes or {})
    assert [event.name for event in root.events] == ["gen_ai.evaluation.result"]


@pytest.mark.parametrize(
    ("exporters", "kinds"),
    [
        ('otlp: {endpoint: "http://127.0.0.1:4317"}', ["GrpcExporter"]),
        ('otlp: {endpoint: "http://127.0.0.1:4318"}', ["HttpExporter"]),
        ('otlp: {endpoint: "http://127.0.0.1:9/otlp", headers: {a: b}, compression: gzip}', ["HttpExporter"]),
    ],
)
def test_the_exporters_of_the_configuration_are_those_of_the_sdk(
    exporters: str, kinds: list[str], tmp_path: Path
) -> None:
    (tmp_path / "otel-scorer.yaml").write_text(f"scorers: [latency]\nexporters: {{{exporters}}}")

    processor = ScoringSpanProcessor.from_config(tmp_path / "otel-scorer.yaml")

    known = {"GrpcExporter": GrpcExporter, "HttpExporter": OTLPSpanExporter}
    assert [type(processor.span_exporter)] == [known[kind] for kind in kinds]
    processor.shutdown()


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_application_connects_as_the_sidecar_does(protocol: str, encrypted: bool, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, client = authority.issue(), authority.issue("application")
    tls = ServerTls(certificate=server.certificate, key=server.key, client_ca=authority.certificate)
    received: list[bytes] = []

    def take(signal: Signal, data: bytes) -> None:
        received.append(data)

    make = GrpcReceiver if protocol == "grpc" else HttpReceiver
    receiver = make("127.0.0.1:0", take, tls=tls if encrypted else None)
    try:
        files = f"ca_file: {authority.certificate}, cert_file: {client.certificate}, key_file: {client.key}"
        (tmp_path / "otel-scorer.yaml").write_text(
            f"scorers: [latency]\nexporters: {{otlp: {{endpoint: '{receiver.start()}', protocol: {protocol}, "
            f"timeout: 60s, tls: {{{files if encrypted else ''}}}}}}}"
        )
        processor = ScoringSpanProcessor.from_config(tmp_path / "otel-scorer.yaml")
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor)
        provider.get_tracer("app").start_span("root").end()
        provider.shutdown()
    finally:
        receiver.shutdown(1.0)

    assert [span.name for data in received for span in read_spans(data)] == ["root"]


@pytest.mark.parametrize("port", [4317, 4318])
def test_a_file_for_tls_that_cannot_be_used_is_named(port: int, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    (tmp_path / "otel-scorer.yaml").write_text(
        f"scorers: [latency]\nexporters: {{otlp: {{endpoint: 'https://127.0.0.1:{port}', "
        f"tls: {{ca_file: {tmp_path}/ca.pem}}}}}}"
    )

    with pytest.raises(ConfigError, match=r"ca\.pem"):
        ScoringSpanProcessor.from_config(tmp_path / "otel-scorer.yaml")


def test_what_only_the_sidecar_heeds_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "otel-scorer.yaml").write_text(
        "scorers: [latency]\npreset: jaeger\nkeep: any_failed\nforwarding: hold_trace"
    )

    ScoringSpanProcessor.from_config(tmp_path / "otel-scorer.yaml", InMemorySpanExporter()).shutdown()

    warned = [record.message.partition(" ")[0] for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["keep", "score_spans.duration"]


def test_several_destinations_get_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "otel-scorer.yaml").write_text(
        f"scorers: [latency]\nexporters: {{file: {{path: {tmp_path}/spans.jsonl}}, console: {{}}}}"
    )

    processor = ScoringSpanProcessor.from_config(tmp_path / "otel-scorer.yaml")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    provider.get_tracer("app").start_span("root").end()
    provider.shutdown()

    written = (tmp_path / "spans.jsonl").read_text()
    assert "otel_scorer.latency.value" in written
    assert capsys.readouterr().out == written


def test_what_the_file_gets_wrong_is_said_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "otel-scorer.yaml").write_text("scorers: [latency]\nassembly: {max_agee: 1s}")

    with pytest.raises(ConfigError, match=r"line 2.*did you mean assembly\.max_age"):
        ScoringSpanProcessor.from_config(tmp_path / "otel-scorer.yaml", InMemorySpanExporter())


def test_what_is_loaded_later_cannot_break_the_application(caplog: pytest.LogCaptureFixture) -> None:
    exporter = InMemorySpanExporter()
    processor = ScoringSpanProcessor(exporter, ["latency", "nothing.there:at_all"], lazy=True)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)

    for _ in range(2):
        provider.get_tracer("app").start_span("root").end()
        provider.force_flush()
    provider.shutdown()

    assert [span.name for span in exporter.get_finished_spans()] == ["root", "root"]
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "otel_scorer scores nothing, spans are exported as they are"
    ]
