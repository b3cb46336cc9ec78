"""What backends refuse of what we add costs no span, and what a scorer says at length is cut and says so."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.e2e.sidecar import Sidecar, id_of, small_trace
from tests.e2e.sink import Sink, plain
from tests.score_server import Reply, ScoreServer

from otel_scorer.testing import make_request, make_span, read_spans

LIMIT = 128  # attributes, and events, that the backend of these tests takes on a span
KEPT = 32_768  # characters of an explanation
MARK = " [truncated]"
TALKATIVE = """
from otel_scorer import Feedback, scorer


@scorer
def talkative(trace):
    return Feedback(value=True, rationale="\\u00e4" * (1 << 20))
"""


@pytest.fixture
def apis() -> Iterator[dict[str, ScoreServer]]:
    servers = {name: ScoreServer() for name in ("phoenix", "mlflow", "langfuse")}
    yield servers
    for server in servers.values():
        server.close()


def with_apis(folder: Path, sink: Sink, apis: dict[str, ScoreServer], emit: str, scorer: str) -> str:
    """Write a configuration that sends verdicts to a backend and to score APIs, and return its path."""
    (folder / "secret").write_text("sk", encoding="utf-8")
    keys = {"langfuse": f", public_key: pk, secret_key: '${{file:{folder}/secret}}'"}
    natives = "".join(
        f"  {name}: {{endpoint: '{api.url}', dead_letters: '{folder}/{name}.jsonl'{keys.get(name, '')}}}\n"
        for name, api in apis.items()
    )
    config = folder / "sidecar.yaml"
    config.write_text(
        f"scorers: ['{scorer}']\nemit: [{emit}]\nassembly: {{root_grace: 100ms}}\n"
        f"telemetry: {{status_page: '127.0.0.1:0'}}\nexporters:\n  otlp: {{endpoint: '{sink.grpc}'}}\n{natives}",
        encoding="utf-8",
    )
    return str(config)


def has_score(api: ScoreServer) -> bool:
    return any(call.method == "POST" for call in api.calls)


def full_root(trace: int) -> Span:
    """Return a root that has all that the backend takes."""
    root = make_span("agent", trace=trace, span=1, attributes={f"key.{number}": number for number in range(LIMIT)})
    for number in range(LIMIT):
        root.events.add(name=f"event {number}", time_unix_nano=root.start_time_unix_nano)
    return root


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("emit", ["attributes", "events"])
@pytest.mark.parametrize("forwarding", ["hold_root", "hold_trace"])
def test_f16_spans_that_a_backend_takes_only_without_our_additions_are_delivered(
    *, forwarding: str, emit: str, protocol: str, own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    own_sink.tell("limits")
    config = tmp_path / "sidecar.yaml"
    config.write_text("telemetry: {status_page: '127.0.0.1:0'}")
    sidecar = start(
        *("-c", str(config), "--scorers", "latency", "--root-grace", "0.5", "--forwarding", forwarding, "--emit", emit),
        *("--export", own_sink.grpc if protocol == "grpc" else f"{own_sink.http}/otlp"),
    )
    # Far more than are looked for one by one, all in one request and due at once; every fourth is one to be enriched.
    full, fine = [trace for trace in range(1, 201) if trace % 4], [trace for trace in range(1, 201) if trace % 4 == 0]
    roots = {trace: full_root(trace) for trace in full} | {trace: make_span("agent", trace=trace) for trace in fine}
    children = {trace: make_span("tool", trace=trace, span=2, parent=1, end=0.5) for trace in roots}

    sidecar.send(make_request(*children.values(), *(roots[trace] for trace in sorted(roots))))

    ids = [id_of(trace) for trace in roots]
    own_sink.wait_for_spans(2 * len(roots), *ids)
    said = sidecar.ask("/metrics").body.decode()
    assert sidecar.stop() == 0
    spans = own_sink.spans_of(*ids)
    assert Counter((span.trace_id, span.name) for span in spans) == Counter(
        (trace, name) for trace in ids for name in ("agent", "tool")
    )
    sent = {id_of(trace): roots[trace] for trace in full}
    assert {span.trace_id: span for span in spans if span.trace_id in sent and span.name == "agent"} == sent
    assert "forwarder_dropped_total" not in said
    assert "gets spans without their verdicts" in sidecar.log
    (without,) = re.findall(r"without_verdicts_total\{.*\} (\d+)", said)
    assert len(full) <= int(without) <= len(roots)


@pytest.mark.parametrize("emit", ["evaluation_span", "logs", "evaluation_span, logs, native"])
def test_f16_whatever_is_refused_of_verdicts_beside_the_spans_these_are_delivered(
    emit: str, own_sink: Sink, apis: dict[str, ScoreServer], start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    own_sink.tell("plain")
    for api in apis.values():
        api.answer = lambda call: Reply(422, {"detail": "too many attributes"})
    natives = apis if "native" in emit else {}
    sidecar = start("-c", with_apis(tmp_path, own_sink, natives, emit, "latency"))
    traces = range(1, 21)

    for trace in traces:
        sidecar.send(small_trace(trace))
    own_sink.wait_for_spans(3 * len(traces), *map(id_of, traces))
    for api in natives.values():
        api.wait_for(partial(has_score, api))
    assert sidecar.stop() == 0

    sent = [span for trace in traces for span in read_spans(small_trace(trace))]
    got = own_sink.spans_of(*map(id_of, traces))
    assert sorted(span.SerializeToString() for span in got) == sorted(span.SerializeToString() for span in sent)
    assert own_sink.score_names() == []
    assert not own_sink.requests("logs")


def explanations_of(own_sink: Sink, key: str) -> list[object]:
    """Return what an attribute of a span, or of one of its events, or of a log record says, wherever it is."""
    spans = [Span.FromString(span.data) for span in own_sink.raw]
    pairs = [pair for span in spans for pair in span.attributes]
    pairs += [pair for span in spans for event in span.events for pair in event.attributes]
    pairs += [pair for record in own_sink.log_records for pair in record.attributes]
    return [plain(pair.value) for pair in pairs if pair.key == key]


@pytest.mark.parametrize(
    ("emit", "forwarding", "key"),
    [
        ("evaluation_span", "passthrough", "gen_ai.evaluation.explanation"),
        ("attributes", "hold_trace", "otel_scorer.talkative.explanation"),
        ("events", "hold_root", "gen_ai.evaluation.explanation"),
        ("logs", "passthrough", "gen_ai.evaluation.explanation"),
    ],
)
def test_f17_a_rationale_of_a_megabyte_is_cut_and_says_so(
    *, emit: str, forwarding: str, key: str, own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    (tmp_path / "talkative.py").write_text(TALKATIVE, encoding="utf-8")
    config = with_apis(tmp_path, own_sink, {}, emit, f"{tmp_path}/talkative.py")
    sidecar = start("-c", config, "--forwarding", forwarding)

    sidecar.send(small_trace(1))

    own_sink.wait_for(lambda: bool(explanations_of(own_sink, key)))
    own_sink.wait_for_spans(3, id_of(1))
    said = sidecar.ask("/metrics").body.decode()
    assert sidecar.stop() == 0
    assert explanations_of(own_sink, key) == ["ä" * (KEPT - len(MARK)) + MARK]
    assert 'encoder_truncated_total{field="explanation"} 1.0' in said
    # Nothing else carries the rest. An evaluation span says it twice, under the names of two conventions.
    assert max(map(len, [*own_sink.requests("traces"), *own_sink.requests("logs")])) < 6 * KEPT


def test_f17_score_apis_get_no_more_of_a_rationale(
    own_sink: Sink, apis: dict[str, ScoreServer], start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    (tmp_path / "talkative.py").write_text(TALKATIVE, encoding="utf-8")
    sidecar = start("-c", with_apis(tmp_path, own_sink, apis, "native", f"{tmp_path}/talkative.py"))

    sidecar.send(small_trace(1))
    for api in apis.values():
        api.wait_for(partial(has_score, api))
    assert sidecar.stop() == 0

    expected = "ä" * (KEPT - len(MARK)) + MARK
    found: dict[str, Any] = {
        name: next(call.body for call in api.calls if call.method == "POST") for name, api in apis.items()
    }
    assert found["phoenix"]["data"][0]["result"]["explanation"] == expected
    assert found["mlflow"]["assessment"]["rationale"] == expected
    assert found["langfuse"]["comment"] == expected
    assert all(len(json.dumps(body, ensure_ascii=False)) < 2 * KEPT for body in found.values())
