"""Connections over TLS: which come about, which do not, and what happens to those that hang."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Authority

from otel_scorer.errors import RetryableError
from otel_scorer.model.wire import Signal
from otel_scorer.telemetry import snapshot
from otel_scorer.transport.exchange import ServerTls, TlsFiles, TlsVersion
from otel_scorer.transport.grpc_receiver import GrpcReceiver
from otel_scorer.transport.grpc_sender import GrpcSender
from otel_scorer.transport.http_receiver import HttpReceiver
from otel_scorer.transport.http_sender import HttpSender

WAIT = 30.0
FAILED = "receiver.handshakes_failed{protocol=http}"
PROTOCOLS = ["grpc", "http"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def receive(pipeline: Any, authority: Authority) -> Iterator[Callable[..., str]]:
    """Start a receiver with a certificate of the authority and return its address."""
    started: list[GrpcReceiver | HttpReceiver] = []

    def start(protocol: str = "http", **settings: Any) -> str:
        pair = authority.issue()
        tls = ServerTls(certificate=pair.certificate, key=pair.key, **settings)
        make = GrpcReceiver if protocol == "grpc" else HttpReceiver
        started.append(make("127.0.0.1:0", pipeline, tls=tls))
        return started[-1].start()

    yield start
    for receiver in started:
        receiver.shutdown(1.0)


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), WAIT)


def handshake(address: str, context: ssl.SSLContext) -> str | None:
    with connect(address) as plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
        return secure.version()


def wait_for_failures(number: int) -> None:
    changed = threading.Event()
    for _ in range(1000):
        if snapshot().get(FAILED, 0) >= number:
            return
        changed.wait(0.01)
    raise AssertionError(snapshot())


def test_connections_that_do_not_come_about_are_counted_and_others_are_served(
    receive: Callable[..., str], authority: Authority, tmp_path: Path
) -> None:
    clients = Authority(tmp_path, "clients")
    address, before = receive(client_ca=clients.certificate), snapshot().get(FAILED, 0)

    with connect(address) as plain:
        plain.sendall(b"POST /v1/traces HTTP/1.1\r\n\r\n")
        wait_for_failures(before + 1)
    with connect(address):
        pass
    wait_for_failures(before + 2)
    context = ssl.create_default_context(cafile=authority.certificate)
    # With TLS 1.3 a client learns that its certificate is missed when it reads.
    with (
        connect(address) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
        contextlib.suppress(OSError),
    ):
        assert secure.recv(1) == b""
    wait_for_failures(before + 3)

    own = clients.issue("an app")
    context.load_cert_chain(own.certificate, own.key)
    assert handshake(address, context) == "TLSv1.3"
    assert snapshot()[FAILED] == before + 3


def test_clients_that_never_finish_their_handshake_keep_nobody_out(
    receive: Callable[..., str], authority: Authority
) -> None:
    address = receive()
    silent = [connect(address) for _ in range(200)]

    assert handshake(address, ssl.create_default_context(cafile=authority.certificate)) == "TLSv1.3"

    for each in silent:
        each.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_old_versions_are_refused(protocol: str, receive: Callable[..., str], authority: Authority) -> None:
    address = receive(protocol)
    context = ssl.create_default_context(cafile=authority.certificate)
    context.set_alpn_protocols(["h2" if protocol == "grpc" else "http/1.1"])

    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(address, context) == "TLSv1.2"
    context.set_ciphers("ALL:@SECLEVEL=0")  # or our own side would refuse already
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"EOF|PROTOCOL_VERSION"):
        handshake(address, context)


def test_a_receiver_can_ask_for_tls_1_3(receive: Callable[..., str], authority: Authority) -> None:
    address = receive(min_version=TlsVersion.V1_3)
    context = ssl.create_default_context(cafile=authority.certificate)

    assert handshake(address, context) == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"EOF|PROTOCOL_VERSION"):
        handshake(address, context)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_sender_goes_on_with_a_renewed_certificate(
    protocol: str, receive: Callable[..., str], authority: Authority, tmp_path: Path, pipeline: Any
) -> None:
    clients, strangers = Authority(tmp_path, "clients"), Authority(tmp_path, "strangers")
    port = receive(protocol, client_ca=clients.certificate).rpartition(":")[2]
    own = strangers.issue("a sender")
    tls = TlsFiles(ca=authority.certificate, certificate=own.certificate, key=own.key, reload_interval=0.001)
    sender: GrpcSender | HttpSender
    if protocol == "grpc":
        sender = GrpcSender(f"localhost:{port}", secure=True, tls=tls)
    else:
        sender = HttpSender({Signal.TRACES: f"https://localhost:{port}/v1/traces"}, tls=tls)
    with pytest.raises(RetryableError):
        sender.send(Signal.TRACES, b"", 1.0)

    own.replace_by(clients.issue("a sender"))

    assert sender.send(Signal.TRACES, b"", WAIT) is None
    sender.close()
    assert pipeline.requests == [(Signal.TRACES, b"")]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_requests_are_answered_before_a_receiver_with_tls_stops(
    protocol: str, authority: Authority, pipeline: Any
) -> None:
    pair = authority.issue()
    make = GrpcReceiver if protocol == "grpc" else HttpReceiver
    receiver = make("127.0.0.1:0", pipeline, tls=ServerTls(certificate=pair.certificate, key=pair.key))
    address = receiver.start()
    inside, go_on = threading.Event(), threading.Event()

    def answer(signal: Signal, data: bytes) -> None:
        inside.set()
        go_on.wait(WAIT)

    pipeline.answer = answer
    tls = TlsFiles(ca=authority.certificate)
    url = f"https://{address}/v1/traces"
    sender = (
        GrpcSender(address, secure=True, tls=tls) if protocol == "grpc" else HttpSender({Signal.TRACES: url}, tls=tls)
    )
    results: list[object] = []
    sending = threading.Thread(target=lambda: results.append(sender.send(Signal.TRACES, b"", WAIT)))
    sending.start()
    assert inside.wait(WAIT)
    stopping = threading.Thread(target=lambda: results.append(receiver.shutdown(WAIT)))
    stopping.start()
    go_on.set()
    sending.join(WAIT)
    sender.close()
    stopping.join(WAIT)

    assert set(results) == {None, True}
    assert len(results) == 2
    with pytest.raises(ConnectionRefusedError):
        connect(address)
