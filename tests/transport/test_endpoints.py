from __future__ import annotations

from pathlib import Path

import pytest

from otel_scorer.errors import ConfigError
from otel_scorer.model.wire import Signal
from otel_scorer.transport.endpoints import Lane, Protocol, choose_protocol, connect, signal_url


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("http://localhost:4317", Protocol.GRPC),
        ("http://localhost:4317/", Protocol.GRPC),
        ("http://localhost", Protocol.GRPC),
        ("https://api.example.com:443", Protocol.GRPC),
        ("localhost:4317", Protocol.GRPC),
        ("[::1]:4317", Protocol.GRPC),
        ("localhost:4318", Protocol.HTTP_PROTOBUF),
        ("http://localhost:4318", Protocol.HTTP_PROTOBUF),
        ("http://localhost:4317/v1/traces", Protocol.HTTP_PROTOBUF),
        ("https://cloud.example.com/api/public/otel", Protocol.HTTP_PROTOBUF),
    ],
)
def test_a_path_or_port_4318_means_http(url: str, protocol: Protocol) -> None:
    assert choose_protocol(url) is protocol
    assert choose_protocol(url, "grpc") is Protocol.GRPC
    assert choose_protocol(url, "http/protobuf") is Protocol.HTTP_PROTOBUF


@pytest.mark.parametrize(
    ("url", "logs"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/logs"),
        ("localhost:4318", "http://localhost:4318/v1/logs"),
        ("http://localhost:4318/", "http://localhost:4318/v1/logs"),
        ("http://localhost:4318/v1/traces", "http://localhost:4318/v1/logs"),
        ("http://localhost:4318/otel/", "http://localhost:4318/otel/v1/logs"),
        ("http://localhost:4318/otel/v1/traces?key=1", "http://localhost:4318/otel/v1/logs?key=1"),
    ],
)
def test_every_signal_has_its_path(url: str, logs: str) -> None:
    assert signal_url(url, Signal.LOGS) == logs
    assert signal_url(url, Signal.TRACES) == logs.replace("/v1/logs", "/v1/traces")


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "http://host:port", "http://host:0", "host:99999"])
def test_what_is_no_endpoint_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="Cannot export to"):
        connect(url)


def test_an_unknown_protocol_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="http/json"):
        connect("localhost:4317", protocol="http/json")


def test_neither_the_name_nor_an_error_shows_a_password() -> None:
    assert connect("http://user:secret@host:4318").name == "host:4318"

    with pytest.raises(ConfigError) as raised:
        connect("ftp://user:secret@host")
    assert "secret" not in str(raised.value)


def test_spans_and_scores_share_a_sender_and_signals_can_be_off_or_elsewhere() -> None:
    destination = connect("localhost:4318", logs_endpoint="off", metrics_endpoint="http://metrics:4317")

    assert destination.senders[Lane.SPANS] is destination.senders[Lane.SCORES]
    assert Lane.LOGS not in destination.senders
    assert destination.senders[Lane.METRICS] is not destination.senders[Lane.SPANS]
    for sender in destination.senders.values():
        sender.close()


def test_a_file_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot write to"):
        connect(f"file:{tmp_path}/missing/folder.jsonl")
