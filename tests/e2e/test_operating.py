"""What a running sidecar says about itself: health, readiness, metrics."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import urllib3
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from tests.e2e.sidecar import SCORERS, Gate, Sidecar, id_of, small_trace
from tests.e2e.sink import WAIT, Score, Sink
from tests.score_server import Reply, ScoreServer

from otel_scorer.config import Config, MlflowExporter, OtlpExporter
from otel_scorer.service.send_check import try_destinations

CONFIG = Path(__file__).resolve().parents[2] / "config"
GATED = SCORERS / "gated.py"
SERVING = b"\x08\x01"


@pytest.fixture
def configure(tmp_path: Path, own_sink: Sink) -> Callable[[str], str]:
    """Write a configuration with a status page and return its path."""

    def write(more: str = "", telemetry: str = "", address: str = "127.0.0.1:0") -> str:
        path = tmp_path / "sidecar.yaml"
        path.write_text(
            f"assembly: {{root_grace: 0.2s}}\nexporters: {{otlp: {{endpoint: '{own_sink.grpc}'}}}}\n"
            f"telemetry: {{status_page: '{address}'{telemetry}}}\n{more}",
            encoding="utf-8",
        )
        return str(path)

    return write


def ask(url: str) -> tuple[int, object]:
    """Return the status and the JSON that is there."""
    answer = urllib3.request("GET", url, timeout=WAIT, retries=False)
    return answer.status, answer.json()


def health_code(sidecar: Sidecar) -> grpc.StatusCode:
    with grpc.insecure_channel(sidecar.grpc) as channel:
        bare: Any = channel
        call = bare.unary_unary("/grpc.health.v1.Health/Check").future(b"", timeout=WAIT)
        code: grpc.StatusCode = call.code()
        return code


def metrics_of(sink: Sink) -> dict[str, Metric]:
    requests = [ExportMetricsServiceRequest.FromString(data) for data in sink.requests("metrics")]
    return {
        metric.name: metric for request in requests for metric in request.resource_metrics[0].scope_metrics[0].metrics
    }


def test_metrics_are_pushed_as_otlp_and_once_more_at_the_end(
    own_sink: Sink, configure: Callable[..., str], start: Callable[..., Sidecar]
) -> None:
    pushed = Sink()
    try:
        metrics = f", metrics: {{endpoint: '{pushed.http}', protocol: http/protobuf, interval: 0.3s}}"
        sidecar = start("-c", configure(telemetry=metrics), "--scorers", "latency")
        pushed.wait_for(lambda: "otel_scorer.assembler.open_traces" in metrics_of(pushed))
        sidecar.send(small_trace(1))
        own_sink.wait_for_scores(1, id_of(1))
        assert sidecar.stop() == 0

        pushed.wait_for(lambda: "otel_scorer.scoring.delay" in metrics_of(pushed))
        found = metrics_of(pushed)
    finally:
        pushed.close()
    assert [point.as_int for point in found["otel_scorer.receiver.spans_accepted"].sum.data_points] == [3]
    assert [point.as_int for point in found["otel_scorer.scoring.decisions"].sum.data_points] == [1]
    assert [point.count for point in found["otel_scorer.scoring.duration"].histogram.data_points] == [1]
    (delay,) = found["otel_scorer.scoring.delay"].histogram.data_points
    assert delay.count == 1
    assert 0.2 <= delay.sum < WAIT
    assert not own_sink.requests("metrics"), "its own metrics go only where they were asked to go"


def test_an_endpoint_that_is_away_costs_a_warning(configure: Callable[..., str], start: Callable[..., Sidecar]) -> None:
    sidecar = start("-c", configure(telemetry=", metrics: {endpoint: 'http://127.0.0.1:9/x', interval: 0.1s}"))

    sidecar.wait_for_log("Cannot send the sidecar's own metrics")

    assert sidecar.post(small_trace(1)).status == 200
    assert sidecar.stop() == 0


def test_prometheus_finds_everything_at_metrics(
    own_sink: Sink, configure: Callable[..., str], start: Callable[..., Sidecar]
) -> None:
    sidecar = start("-c", configure(), "--scorers", "latency")
    sidecar.send(small_trace(1))
    own_sink.wait_for_scores(1, id_of(1))

    answer = sidecar.ask("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=")
    text = answer.body.decode()
    assert "otel_scorer_receiver_spans_accepted_total 3.0" in text
    assert 'otel_scorer_scoring_decisions_total{outcome="scored",scorer="latency"} 1.0' in text
    assert 'otel_scorer_scoring_duration_seconds_count{outcome="scored",scorer="latency"} 1.0' in text


def test_a_sidecar_whose_scorers_are_being_loaded_is_alive_and_not_ready(
    configure: Callable[..., str], start: Callable[..., Sidecar], gate: Gate, tmp_path: Path
) -> None:
    scorers = tmp_path / "slow_to_load.py"
    scorers.write_text(
        "import os, socket\n"
        "host, port = os.environ['GATE'].split(':')\n"
        "with socket.create_connection((host, int(port))) as gate:\n"
        "    gate.sendall(b'l' * 32)\n"
        "    gate.recv(1)\n"
        "def check(trace):\n"
        "    return True\n",
        encoding="utf-8",
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = configure(f"scorers: ['{scorers}:check']\n", address=address)

    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(start, "-c", config, environment=gate.environment)
        gate.wait_for_scorer()
        alive, ready = (ask(f"http://{address}{path}") for path in ("/healthz", "/readyz"))
        gate.open()
        sidecar = started.result(WAIT)

    assert (alive, ready) == ((200, {"status": "ok", "phase": "starting"}), (503, {"status": "starting"}))
    assert ask(f"http://{address}/readyz") == (200, {"status": "ready"})
    assert sidecar.stop() == 0


def test_a_sidecar_that_drains_is_alive_and_not_ready(
    configure: Callable[..., str], start: Callable[..., Sidecar], gate: Gate
) -> None:
    sidecar = start("-c", configure(f"scorers: [{GATED}]\n"), environment=gate.environment)
    assert sidecar.ask("/readyz").status == 200
    sidecar.send(small_trace(1))
    gate.wait_for_scorer()

    sidecar.terminate()
    while (ready := sidecar.ask("/readyz")).status == 200:
        pass
    alive = sidecar.ask("/healthz")
    code = grpc.StatusCode.OK
    while code is grpc.StatusCode.OK:
        code = health_code(sidecar)

    assert (alive.status, json.loads(alive.body)) == (200, {"status": "ok", "phase": "draining"})
    assert (ready.status, json.loads(ready.body)) == (503, {"status": "draining"})
    assert code is grpc.StatusCode.UNAVAILABLE
    gate.open()
    assert sidecar.wait() == 0


def test_the_kubernetes_sample_has_a_configuration_that_works_and_probes_that_are_answered(
    own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    manifest = (CONFIG / "kubernetes.yaml").read_text(encoding="utf-8")
    settings, deployment = yaml.safe_load_all(manifest)
    [sidecar] = deployment["spec"]["template"]["spec"]["initContainers"]
    scorers, config = tmp_path / "my_scorers.py", tmp_path / "otel-scorer.yaml"
    scorers.write_text(
        "from otel_scorer import scorer\n\n\n@scorer\ndef polite(trace):\n    return True\n", encoding="utf-8"
    )
    text = settings["data"]["otel-scorer.yaml"]
    for there, here in {
        "/scorers/my_scorers.py": str(scorers),
        "http://collector.observability:4317": own_sink.grpc,
        "0.0.0.0:13133": "127.0.0.1:0",
    }.items():
        assert there in text
        text = text.replace(there, here)
    config.write_text(text, encoding="utf-8")

    running = start("-c", str(config))

    [port] = sidecar["ports"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = sidecar[probe]["httpGet"]
        assert request["port"] == port["name"]
        assert running.ask(request["path"]).status == 200
    assert port["containerPort"] == 13133


def test_grpc_health_says_serving_for_the_server_and_for_each_service(
    configure: Callable[..., str], start: Callable[..., Sidecar]
) -> None:
    sidecar = start("-c", configure())

    with grpc.insecure_channel(sidecar.grpc) as channel:
        bare: Any = channel
        check = bare.unary_unary("/grpc.health.v1.Health/Check")
        traces = b"opentelemetry.proto.collector.trace.v1.TraceService"
        assert check(b"", timeout=WAIT) == SERVING
        assert check(b"\n" + bytes([len(traces)]) + traces, timeout=WAIT) == SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            check(b"\n\x04shop", timeout=WAIT)
        with pytest.raises(grpc.RpcError) as watching:
            next(bare.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=WAIT))

    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    assert watching.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_counters_are_there_as_json_and_nothing_but_get_is_answered(
    configure: Callable[..., str], start: Callable[..., Sidecar]
) -> None:
    sidecar = start("-c", configure())
    sidecar.send(small_trace(1))

    said = json.loads(sidecar.ask("/").body)

    assert said["phase"] == "ready"
    assert said["counters"]["receiver.spans_accepted"] == 3
    assert sidecar.ask("/nothing").status == 404


def check_send(*settings: str, folder: Path) -> tuple[int, list[str], str]:
    """Run `check --send` and return its exit code, what it says of what was sent, and standard error."""
    (folder / "check.yaml").write_text("\n".join(settings), encoding="utf-8")
    command = [sys.executable, "-m", "otel_scorer", "check", "-c", "check.yaml", "--send"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=WAIT)
    return done.returncode, [line for line in done.stdout.splitlines() if line.startswith("sent to")], done.stderr


def test_check_send_sends_one_span_that_says_what_it_is(own_sink: Sink, tmp_path: Path) -> None:
    code, said, errors = check_send(
        "exporters:",
        f"  otlp: {{endpoint: '{own_sink.grpc}'}}",
        f"  otlp/http: {{endpoint: '{own_sink.http}', protocol: http/protobuf, logs_endpoint: 'off'}}",
        "  file: {path: out.jsonl}",
        folder=tmp_path,
    )

    assert (code, errors) == (0, "")
    assert [line.split(": ")[0:3] for line in said] == [
        ["sent to     otlp", "traces", "ok"],
        ["sent to     otlp", "logs", "ok"],
        ["sent to     otlp", "metrics", "ok"],
        ["sent to     otlp/http", "traces", "ok"],
        ["sent to     otlp/http", "metrics", "ok"],
        ["sent to     file", "traces", "ok"],
    ]
    own_sink.wait_for(lambda: len(own_sink.raw) == 2)
    (one, other) = (Score(raw) for raw in own_sink.raw)
    assert one.span.name == "evaluation otel_scorer.check"
    assert one.raw.scope.is_own
    assert one.raw.trace_id.hex() in said[0]
    assert one.span.trace_id == other.span.trace_id
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8").count("\n") == 1


def test_check_send_tries_score_apis_with_a_score_about_the_span_that_was_sent(own_sink: Sink, tmp_path: Path) -> None:
    answers = iter([Reply(404, {"detail": "Traces do not exist."}), Reply(200, {"data": []}), Reply(401, b"no")])
    api = ScoreServer(lambda call: next(answers))
    (tmp_path / "key").write_text("s3cret", encoding="utf-8")
    key = f"'${{file:{tmp_path}/key}}'"
    try:
        code, said, errors = check_send(
            "emit: [evaluation_span, native]",
            "exporters:",
            f"  phoenix: {{endpoint: '{api.url}', api_key: {key}}}",
            f"  langfuse: {{endpoint: '{api.url}', public_key: a, secret_key: {key}}}",
            f"  otlp: {{endpoint: '{own_sink.grpc}', logs_endpoint: 'off', metrics_endpoint: 'off'}}",
            folder=tmp_path,
        )
    finally:
        api.close()

    assert (code, errors) == (1, "")
    assert [line.split(": ")[0:3] for line in said] == [
        ["sent to     otlp", "traces", "ok"],
        ["sent to     phoenix", "scores", "ok"],
        ["sent to     langfuse", "scores", "FAILED"],
    ]
    own_sink.wait_for(lambda: len(own_sink.raw) == 1)
    [span] = own_sink.raw
    first, second, third = api.calls
    assert first.body == second.body
    [annotation] = second.body["data"]
    assert (annotation["trace_id"], annotation["name"]) == (span.trace_id.hex(), "otel_scorer.check")
    assert annotation["result"]["label"] == "pass"
    assert third.body["traceId"] == span.trace_id.hex()
    assert "401" in said[2]
    assert "s3cret" not in "".join(said)


@pytest.mark.parametrize("has_spans", [True, False])
def test_check_send_says_when_spans_do_not_reach_the_backend_of_the_score_api(has_spans: bool, own_sink: Sink) -> None:
    api = ScoreServer(lambda call: Reply(404, {"detail": "Traces do not exist."}))
    own_sink.tell("take" if has_spans else "refuse")
    config = Config(
        emit=["native"],
        exporters={
            "otlp": OtlpExporter(endpoint=own_sink.grpc, logs_endpoint="off", metrics_endpoint="off"),
            "mlflow": MlflowExporter(endpoint=api.url),
        },
    )
    try:
        attempts = list(try_destinations(config, patience=0.1 if has_spans else 3600.0))
    finally:
        api.close()

    assert [(attempt.what, attempt.is_taken) for attempt in attempts] == [("traces", has_spans), ("scores", False)]
    assert "do its spans reach this backend?" in attempts[1].message


def test_check_send_says_what_every_destination_that_did_not_take_it_answered(own_sink: Sink, tmp_path: Path) -> None:
    own_sink.tell("refuse")
    (tmp_path / "key").write_text("s3cret", encoding="utf-8")

    code, said, errors = check_send(
        "exporters:",
        f"  otlp: {{endpoint: '{own_sink.grpc}', headers: {{authorization: '${{file:key}}'}}, logs_endpoint: 'off'}}",
        "  otlp/away: {endpoint: 'http://127.0.0.1:9/x', timeout: 1s, metrics_endpoint: 'off', logs_endpoint: 'off'}",
        f"telemetry: {{metrics: {{endpoint: '{own_sink.http}', protocol: http/protobuf}}}}",
        folder=tmp_path,
    )

    assert (code, errors) == (1, "")
    assert [line.split(": ")[0:3] for line in said] == [
        ["sent to     otlp", "traces", "FAILED"],
        ["sent to     otlp", "metrics", "FAILED"],
        ["sent to     otlp/away", "traces", "FAILED"],
        ["sent to     telemetry.metrics", "metrics", "FAILED"],
    ]
    assert "UNAVAILABLE" in said[0]
    assert "http://127.0.0.1:9/x/v1/traces" in said[2]
    assert "s3cret" not in "".join(said)
