"""Scores over the APIs of backends, whatever these answer: each arrives once, or is counted and kept on disk."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import Counted
from tests.score_server import WAIT, Call, Reply, ScoreServer

from otel_scorer.errors import ConfigError
from otel_scorer.transport.dead_letters import DeadLetters
from otel_scorer.transport.native_apis import LangfuseApi, MlflowApi, PhoenixApi
from otel_scorer.transport.native_client import JsonClient
from otel_scorer.transport.native_delivery import ScoreDelivery
from otel_scorer.transport.native_score import NativeScore
from otel_scorer.transport.retry import RetryPolicy

QUICK = RetryPolicy(initial_interval=0.01, max_interval=0.02)
PAGE = b"<!doctype html><title>Sign in</title>"


@pytest.fixture
def server() -> Iterator[ScoreServer]:
    server = ScoreServer()
    yield server
    server.close()


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    return tmp_path / "dead.jsonl"


@pytest.fixture
def start(server: ScoreServer, letters: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., ScoreDelivery]]:
    started: list[ScoreDelivery] = []
    file = DeadLetters(letters)

    def start_one(api: Any = PhoenixApi, **settings: Any) -> ScoreDelivery:
        client = JsonClient(server.url, headers={"Authorization": "Bearer key"})
        delivery = ScoreDelivery(
            api(client), request.node.name, **{"retry": QUICK, "dead_letters": file, "timeout": 5.0, **settings}
        )
        started.append(delivery)
        delivery.start()
        return delivery

    yield start_one
    for delivery in started:
        delivery.shutdown(0.0)
    file.close()


def a_score(number: int, *, span: int | None = None, **more: object) -> NativeScore:
    trace = f"{number:032x}"
    body = {"trace_id": trace, "assessment_id": f"a-{number}", "id": str(number), **more}
    return NativeScore(f"{number}/{span}", trace, None if span is None else f"{span:016x}", json.dumps(body).encode())


def dead(letters: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in letters.read_text(encoding="utf-8").splitlines()]


def test_annotations_go_in_batches_of_traces_and_of_spans(start: Any, server: ScoreServer) -> None:
    gate = threading.Event()

    def answer(call: Call) -> Reply:
        gate.wait(WAIT)
        return Reply(200, {"data": []})

    server.answer = answer
    delivery = start()
    delivery.offer([a_score(0)])
    server.wait_for(lambda: len(server.calls) == 1)
    delivery.offer([a_score(number) for number in range(1, 151)] + [a_score(7, span=7)])
    gate.set()
    assert delivery.shutdown(WAIT)

    sizes = sorted((call.path, len(call.body["data"])) for call in server.calls)
    assert sizes == [
        ("/v1/span_annotations?sync=true", 1),
        ("/v1/trace_annotations?sync=true", 1),
        ("/v1/trace_annotations?sync=true", 50),
        ("/v1/trace_annotations?sync=true", 100),
    ]
    assert {call.headers["Authorization"] for call in server.calls} == {"Bearer key"}


def test_a_score_waits_for_its_trace_while_others_go_on(start: Any, server: ScoreServer) -> None:
    known = {f"{number:032x}" for number in (2, 3)}
    taken: list[str] = []

    def answer(call: Call) -> Reply:
        asked = [each["trace_id"] for each in call.body["data"]]
        missing = [each for each in asked if each not in known]
        if missing:
            return Reply(404, {"detail": f"Traces with IDs {', '.join(missing)} do not exist."})
        taken.extend(asked)
        return Reply(200, {"data": []})

    server.answer = answer
    delivery = start()
    delivery.offer([a_score(1), a_score(2), a_score(3)])
    server.wait_for(lambda: len(taken) == 2 and len(server.calls) > 4)
    known.add(f"{1:032x}")
    assert delivery.shutdown(WAIT)

    assert taken == [f"{number:032x}" for number in (2, 3, 1)]


def test_a_trace_that_never_comes_is_given_up(start: Any, server: ScoreServer, letters: Path) -> None:
    server.answer = lambda call: Reply(404, {"detail": "Not Found"})
    delivery = start(trace_timeout=0.05)
    delivery.offer([a_score(1), a_score(2)])
    assert delivery.shutdown(WAIT)

    found = {each["trace_id"]: each for each in dead(letters)}
    assert {each["reason"] for each in found.values()} == {"no_trace"}
    assert found[f"{1:032x}"]["body"]["id"] == "1"
    assert len(found) == len(dead(letters)) == 2


@pytest.mark.parametrize(
    "case",
    [
        (Reply(401, {"detail": "Unauthorized"}), "HTTP 401", "Unauthorized"),
        (Reply(403, b"no"), "HTTP 403", "no"),
        (Reply(302, b"", {"Location": "/login"}), "HTTP 302", "nothing"),
        (Reply(200, PAGE, {"Content-Type": "text/html"}), "not_json", "Is this the address of the API?"),
        (Reply(200, b""), "not_json", "nothing"),
        (Reply(200, [1]), "not_json", "[1]"),
        (Reply(413, PAGE), "too_large", "HTTP 413"),
        (Reply(400, {"message": "bad name"}), "HTTP 400", "bad name"),
    ],
)
def test_what_will_fail_again_is_given_up_at_once(
    start: Any, server: ScoreServer, letters: Path, case: tuple[Reply, str, str]
) -> None:
    reply, reason, message = case
    server.answer = lambda call: reply
    delivery = start()

    delivery.offer([a_score(1)])
    assert delivery.shutdown(WAIT)

    [letter] = dead(letters)
    assert letter["reason"] == reason
    assert message in letter["message"]
    assert len(server.calls) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_bad_score_costs_the_others_of_its_request_nothing(
    start: Any, server: ScoreServer, letters: Path, status: int
) -> None:
    taken: set[str] = set()

    def answer(call: Call) -> Reply:
        asked = [each["id"] for each in call.body["data"]]
        if "3" in asked:
            return Reply(status, {"detail": "no"})
        taken.update(asked)
        return Reply(200, {"data": []})

    server.answer = answer
    delivery = start()
    delivery.offer([a_score(number) for number in range(1, 9)])
    assert delivery.shutdown(WAIT)

    assert taken == {"1", "2", "4", "5", "6", "7", "8"}
    assert [letter["body"]["id"] for letter in dead(letters)] == ["3"]


@pytest.mark.parametrize(
    "reply", [Reply(None), Reply(429, b"", {"Retry-After": "0"}), Reply(500, PAGE), Reply(503, b"")]
)
def test_what_may_pass_is_tried_again(start: Any, server: ScoreServer, reply: Reply) -> None:
    replies = [reply, reply, Reply(200, {"data": []})]
    server.answer = lambda call: replies[min(len(server.calls), 3) - 1]
    delivery = start()

    delivery.offer([a_score(1), a_score(2)])
    assert delivery.shutdown(WAIT)

    assert len(server.calls) == 3


def test_a_backend_that_asks_to_wait_is_left_alone(start: Any, server: ScoreServer) -> None:
    server.answer = lambda call: Reply(429, {}, {"Retry-After": "3600"})
    delivery = start()

    delivery.offer([a_score(1)])
    server.wait_for(lambda: len(server.calls) == 1)
    delivery.offer([a_score(2)])

    assert len(server.calls) == 1
    server.answer = lambda call: Reply(200, {})
    assert delivery.shutdown(WAIT)
    assert len(server.calls) == 2


def test_requests_that_fail_together_are_one_failure(start: Any, server: ScoreServer) -> None:
    together = threading.Barrier(8)

    def answer(call: Call) -> Reply:
        if len(server.calls) <= 8:
            together.wait(WAIT)
            return Reply(503, {})
        return Reply(200, {})

    server.answer = answer
    # After eight failures in a row it would wait for longer than this test may take.
    delivery = start(
        retry=RetryPolicy(initial_interval=0.01, multiplier=10.0, max_interval=3600.0), threads=8, api=LangfuseApi
    )

    delivery.offer([a_score(number) for number in range(8)])

    assert delivery.flush(WAIT)
    assert len(server.calls) == 16


@pytest.mark.parametrize("reply", [Reply(200, {}), Reply(404, {"detail": "no such trace"}), Reply(400, {})])
def test_whatever_it_answers_a_backend_that_is_back_is_not_taken_for_one_that_stayed_away(
    start: Any, server: ScoreServer, reply: Reply
) -> None:
    replies = [Reply(503, {}), reply] * 6 + [Reply(200, {})]
    server.answer = lambda call: replies[min(len(server.calls), len(replies)) - 1]
    # After six failures in a row it would wait for longer than this test may take.
    delivery = start(retry=RetryPolicy(initial_interval=0.01, multiplier=10.0, max_interval=3600.0), trace_timeout=0.0)

    for number in range(6):
        delivery.offer([a_score(number)])
        assert delivery.flush(WAIT)

    assert len(server.calls) == 12


def test_a_backend_that_stays_away_costs_its_own_scores_in_the_end(
    start: Any, server: ScoreServer, letters: Path
) -> None:
    server.answer = lambda call: Reply(503, {})
    delivery = start(retry=RetryPolicy(initial_interval=0.001, max_interval=0.001, max_elapsed=0.01))

    delivery.offer([a_score(1)])
    assert delivery.shutdown(WAIT)

    assert dead(letters)[0]["reason"] == "retry_expired"


def test_a_score_that_waited_long_for_its_trace_outlives_a_moment_without_the_backend(
    start: Any, server: ScoreServer, letters: Path
) -> None:
    later = 0.0
    replies = [Reply(404, {}), Reply(503, {}), Reply(200, {})]

    def answer(call: Call) -> Reply:
        nonlocal later
        # More than `max_elapsed`, before the backend is away for the first time.
        later = 400.0
        return replies[len(server.calls) - 1]

    server.answer = answer
    delivery = start(
        retry=RetryPolicy(initial_interval=0.01, max_elapsed=300.0), clock=lambda: time.monotonic() + later
    )
    delivery.offer([a_score(1)])
    server.wait_for(lambda: len(server.calls) == 3)
    assert delivery.shutdown(WAIT)

    assert dead(letters) == []


def test_a_backend_that_says_nothing_delays_nobody_and_not_the_end_either(
    start: Any, server: ScoreServer, letters: Path
) -> None:
    gate = threading.Event()
    server.answer = lambda call: Reply(200, {}) if gate.wait(WAIT) else Reply(None)
    delivery = start(timeout=60.0)

    delivery.offer([a_score(1)])
    server.wait_for(lambda: len(server.calls) == 1)
    delivery.offer([a_score(2)])
    assert not delivery.shutdown(0.1)
    gate.set()

    assert sorted(letter["body"]["id"] for letter in dead(letters)) == ["1", "2"]
    assert {letter["reason"] for letter in dead(letters)} == {"shutdown"}


def test_a_full_queue_drops_and_counts(start: Any, server: ScoreServer, letters: Path) -> None:
    gate = threading.Event()
    server.answer = lambda call: Reply(200, {}) if gate.wait(WAIT) else Reply(None)
    delivery = start(queue_size=1000)

    delivery.offer([a_score(number) for number in range(5)])
    gate.set()
    assert delivery.shutdown(WAIT)

    assert [letter["reason"] for letter in dead(letters)] == ["queue_full"] * 3


def test_a_second_assessment_of_an_id_changes_the_first(start: Any, server: ScoreServer) -> None:
    kept: dict[str, Any] = {}

    def answer(call: Call) -> Reply:
        if call.method == "POST":
            given = call.body["assessment"]
            if given["assessment_id"] in kept:
                return Reply(500, {"error_code": "INTERNAL_ERROR", "message": "UNIQUE constraint violation"})
            kept[given["assessment_id"]] = given
        elif call.method == "GET":
            return Reply(200, {"assessment": kept[call.path.rpartition("/")[2]]})
        else:
            assert call.body["update_mask"] == "feedback,rationale,metadata"
            kept[call.path.rpartition("/")[2]] = call.body["assessment"]
        return Reply(200, {})

    server.answer = answer
    delivery = start(MlflowApi)
    delivery.offer([a_score(1, feedback={"value": 1}, rationale="first")])
    server.wait_for(lambda: len(kept) == 1)
    delivery.offer([a_score(1, feedback={"value": 2})])
    assert delivery.shutdown(WAIT)

    assert kept == {"a-1": {**kept["a-1"], "feedback": {"value": 2}, "rationale": ""}}
    assert server.calls[0].path == f"/api/3.0/mlflow/traces/tr-{1:032x}/assessments"
    assert [call.method for call in server.calls] == ["POST", "POST", "GET", "PATCH"]


def test_a_server_error_of_mlflow_that_is_no_duplicate_is_tried_again(start: Any, server: ScoreServer) -> None:
    replies = [Reply(500, {}), Reply(404, {}), Reply(200, {})]
    server.answer = lambda call: replies[len(server.calls) - 1]
    delivery = start(MlflowApi)

    delivery.offer([a_score(1)])
    assert delivery.shutdown(WAIT)

    assert [call.method for call in server.calls] == ["POST", "GET", "POST"]


def test_scores_of_langfuse_go_one_by_one(start: Any, server: ScoreServer) -> None:
    delivery = start(LangfuseApi)

    delivery.offer([a_score(1), a_score(2, span=2)])
    assert delivery.shutdown(WAIT)

    assert [(call.path, call.body["id"]) for call in server.calls] == [
        ("/api/public/scores", "1"),
        ("/api/public/scores", "2"),
    ]


def test_dead_letters_are_for_their_owner_alone_and_no_larger_than_told(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    counted = Counted()
    letters = DeadLetters(path, max_size=400)

    letters.write_scores("phoenix", "HTTP 401", "no", [a_score(number) for number in range(3)])
    letters.close()
    letters.write_scores("phoenix", "HTTP 401", "no", [a_score(4)])

    assert path.stat().st_mode & 0o777 == 0o600
    assert [letter["body"]["id"] for letter in dead(path)] == ["0"]
    assert counted("dead_letters.lost{reason=full}") == 2
    assert counted("dead_letters.lost{reason=io}") == 1


def test_a_file_for_dead_letters_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot write"):
        DeadLetters(tmp_path)
