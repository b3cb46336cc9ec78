"""Much at once: many clients, many requests, large spans."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from tests.e2e.sidecar import Sidecar, id_of, method_of, small_trace
from tests.e2e.sink import WAIT, Sink

from otel_scorer.testing import make_request, make_span


@pytest.mark.parametrize("forwarding", ["passthrough", "hold_root", "hold_trace"])
def test_a_thousand_small_requests_of_many_clients_at_once(
    forwarding: str, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", "latency", "tool_errors", "--root-grace", "0.2"),
        *("--forwarding", forwarding),
    )
    spans = [(trace, span) for span in (2, 3, 1) for trace in range(1, 351)]

    def send(part: int) -> None:
        with grpc.insecure_channel(sidecar.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            export = method_of(channel)
            for trace, span in spans[part::8]:
                parent = None if span == 1 else 1
                export(make_request(make_span("work", trace=trace, span=span, parent=parent)), timeout=WAIT)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))

    ids = [id_of(trace) for trace in range(1, 351)]
    own_sink.wait_for_scores(700, *ids)
    own_sink.wait_for_spans(1050, *ids)
    assert sidecar.stop() == 0
    assert Counter((span.trace_id, span.span_id[-1]) for span in own_sink.raw_of(*ids)) == Counter(
        (id_of(trace), span) for trace, span in spans
    )
    assert Counter((score.raw.trace_id, score.name) for score in own_sink.scores_of(*ids)) == Counter(
        (trace, name) for trace in ids for name in ("latency", "tool_errors")
    )


@pytest.mark.parametrize("forwarding", ["passthrough", "hold_trace"])
def test_spans_of_many_megabytes_pass_and_are_scored(
    forwarding: str, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", "latency", "tool_errors", "--root-grace", "0.2"),
        *("--forwarding", forwarding),
    )
    large = {"text": "x" * 12_000_000}

    sidecar.send(make_request(make_span("large", trace=1, span=2, parent=1, attributes=large)))
    sidecar.send(
        make_request(
            make_span("large", trace=1, span=3, parent=1, attributes=large), make_span("agent", trace=1, span=1)
        )
    )
    sidecar.send(small_trace(2))

    scores = own_sink.wait_for_scores(4, id_of(1), id_of(2))
    own_sink.wait_for_spans(6, id_of(1), id_of(2))
    assert sidecar.stop() == 0
    assert {score.error for score in scores} == {None}
    assert len(own_sink.spans_of(id_of(1))) == 3


def test_a_trace_over_the_limit_is_scored_early_and_the_rest_is_forwarded(
    own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start("--export", own_sink.grpc, "--scorers", "tool_errors", "--forwarding", "hold_trace")
    children = [make_span("work", trace=1, span=number, parent=1) for number in range(2, 10_102)]

    sidecar.send(make_request(*children, make_span("agent", trace=1, span=1)))

    (score,) = own_sink.wait_for_scores(1, id_of(1))
    own_sink.wait_for_spans(10_101, id_of(1))
    assert sidecar.stop() == 0
    assert score.attributes["otel_scorer.close_reason"] == "span_limit"
    assert score.attributes["otel_scorer.complete"] is False
    assert len(own_sink.raw_of(id_of(1))) == 10_101
    assert own_sink.score_names() == ["tool_errors"]


def test_of_many_times_what_it_can_take_all_that_was_taken_arrives_once_and_the_rest_is_refused(
    own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    own_sink.tell("hold")
    config = tmp_path / "sidecar.yaml"
    config.write_text(
        f"exporters: {{otlp: {{endpoint: '{own_sink.grpc}', timeout: 120s, sending_queue: {{queue_size: 1MiB}}}}}}\n"
        "telemetry: {status_page: '127.0.0.1:0'}\n",
        encoding="utf-8",
    )
    sidecar = start("-c", str(config))
    large = {"text": "x" * 50_000}

    def send(part: int) -> list[tuple[int, bool]]:
        sent: list[tuple[int, bool]] = []
        with grpc.insecure_channel(sidecar.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            for trace in range(part * 50 + 1, part * 50 + 51):
                data = make_request(make_span("large", trace=trace, attributes=large))
                if trace % 2:
                    sent.append((trace, sidecar.post(data).status == 200))
                    continue
                code = cast("Any", method_of(channel)).future(data, timeout=WAIT).code()
                assert code in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
                sent.append((trace, code is grpc.StatusCode.OK))
        return sent

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for answers in pool.map(send, range(8)) for answer in answers]
    own_sink.tell("take")

    taken = [id_of(trace) for trace, is_taken in answers if is_taken]
    assert 10 < len(taken) < 80, "some 20 fit in the queue, of 400"
    own_sink.wait_for_spans(len(taken), *taken)
    metrics = sidecar.ask("/metrics").body.decode()
    refused = re.findall(
        r'^otel_scorer_receiver_requests_total\{outcome="overloaded".* ([\d.]+)$', metrics, re.MULTILINE
    )
    assert sum(map(float, refused)) == 400 - len(taken)
    assert sidecar.stop() == 0
    assert Counter(span.trace_id for span in own_sink.raw) == dict.fromkeys(taken, 1)


def test_clients_that_come_and_go_leave_no_thread_and_no_open_file_behind(
    own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start("--export", own_sink.grpc, "--scorers", "latency", "--root-grace", "0.05")
    state = Path(f"/proc/{sidecar.process.pid}")

    def held() -> tuple[int, int]:
        return len(list((state / "fd").iterdir())), len(list((state / "task").iterdir()))

    def send(part: int) -> None:
        for trace in range(part * 10 + 1, part * 10 + 11):
            sidecar.send(small_trace(trace))
            with grpc.insecure_channel(sidecar.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                method_of(channel)(small_trace(trace + 10_000), timeout=WAIT)

    def send_all(first: int) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(send, range(first, first + 8)))

    send_all(0)
    files, threads = held()
    for first in (8, 16, 24):
        send_all(first)

    # Connections end a moment after their clients did, and a few threads more or less come and go.
    deadline = time.monotonic() + 2 * WAIT
    while (now := held())[0] > files + 8 or now[1] > threads + 8:
        assert time.monotonic() < deadline, (now, files, threads)
        sidecar.post(b"")
    assert sidecar.stop() == 0
