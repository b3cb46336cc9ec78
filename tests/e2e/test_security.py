"""TLS, client certificates, tokens and passwords, between real exporters, sidecars and a backend."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from tests.certificates import Authority, Pair
from tests.e2e.sidecar import Sidecar, Traces, id_of, method_of, small_trace
from tests.e2e.sink import WAIT, Sink

from otel_scorer.config import load_config
from otel_scorer.errors import ConfigError
from otel_scorer.service import check_files

PROTOCOLS = ["grpc", "http"]
TOKEN = "s3cret-t0ken"
PASSWORD = "pa:ss wörd"


@pytest.fixture(autouse=True)
def _exporters_trust_what_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # `requests`, under the SDK's HTTP exporter, prefers these to the exporter's own certificate file.
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def sidecar_with(tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]) -> Callable[..., Sidecar]:
    """Start a sidecar whose receivers, both, have these settings."""

    def start_one(environment: dict[str, str] | None = None, **settings: object) -> Sidecar:
        return start("-c", str(write(tmp_path, settings)), "--export", own_sink.grpc, environment=environment)

    return start_one


def write(folder: Path, settings: dict[str, Any], **more: object) -> Path:
    file = folder / "sidecar.yaml"
    grpc_settings = {key: value for key, value in settings.items() if key != "cors"}
    protocols = {"grpc": grpc_settings, "http": settings}
    file.write_text(json.dumps({"receivers": {"otlp": {"protocols": protocols}}, **more}), encoding="utf-8")
    return file


def tls_of(pair: Pair, **more: object) -> dict[str, object]:
    return {
        "cert_file": str(pair.certificate),
        "key_file": str(pair.key),
        "reload_interval": "10ms",
        **{key: str(value) for key, value in more.items()},
    }


def exporter(
    protocol: str,
    sidecar: Sidecar,
    ca: Path | None = None,
    client: Pair | None = None,
    *,
    headers: dict[str, str] | None = None,
    timeout: float = WAIT,
) -> SpanExporter:
    """Make the SDK's exporter; with an authority, over TLS."""
    port = (sidecar.grpc if protocol == "grpc" else sidecar.http).rpartition(":")[2]
    if protocol == "http":
        return HttpExporter(
            endpoint=f"{'http' if ca is None else 'https'}://localhost:{port}/v1/traces",
            certificate_file=None if ca is None else str(ca),
            client_certificate_file=None if client is None else str(client.certificate),
            client_key_file=None if client is None else str(client.key),
            headers=headers,
            timeout=timeout,
        )
    credentials = None
    if ca is not None:
        own = () if client is None else (client.key.read_bytes(), client.certificate.read_bytes())
        credentials = grpc.ssl_channel_credentials(ca.read_bytes(), *own)
    return GrpcExporter(
        endpoint=f"localhost:{port}", insecure=ca is None, credentials=credentials, headers=headers, timeout=timeout
    )


def a_span() -> ReadableSpan:
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("a span")
    span.end()
    assert isinstance(span, ReadableSpan)
    return span


# Exporters try again as long as they may when a connection does not come about.
SHORT = 1.0


def sends(sender: SpanExporter) -> bool:
    """Return whether the span of an exporter was taken."""
    try:
        return sender.export([a_span()]) is SpanExportResult.SUCCESS
    finally:
        sender.shutdown()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_exporters_send_over_tls_and_plain_text_is_refused(
    protocol: str, authority: Authority, sidecar_with: Callable[..., Sidecar], own_sink: Sink, tmp_path: Path
) -> None:
    sidecar = sidecar_with(tls=tls_of(authority.issue()))

    assert sends(exporter(protocol, sidecar, authority.certificate))
    assert not sends(exporter(protocol, sidecar, timeout=SHORT))
    assert not sends(exporter(protocol, sidecar, Authority(tmp_path, "stranger").certificate, timeout=SHORT))
    own_sink.wait_for(lambda: len(own_sink.raw) == 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_with_a_client_authority_only_clients_with_its_certificates_are_let_in(
    protocol: str, authority: Authority, sidecar_with: Callable[..., Sidecar], own_sink: Sink, tmp_path: Path
) -> None:
    clients, strangers = Authority(tmp_path, "clients"), Authority(tmp_path, "strangers")
    sidecar = sidecar_with(tls=tls_of(authority.issue(), client_ca_file=clients.certificate))

    assert sends(exporter(protocol, sidecar, authority.certificate, clients.issue("an app")))
    assert not sends(exporter(protocol, sidecar, authority.certificate, timeout=SHORT))
    assert not sends(exporter(protocol, sidecar, authority.certificate, strangers.issue("an app"), timeout=SHORT))
    own_sink.wait_for(lambda: len(own_sink.raw) == 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rotated_certificates_count_for_new_connections_and_old_ones_stay(
    protocol: str, authority: Authority, sidecar_with: Callable[..., Sidecar], own_sink: Sink, tmp_path: Path
) -> None:
    used, successor = authority.issue(), Authority(tmp_path, "successor")
    sidecar = sidecar_with(tls=tls_of(used))
    ids = [Traces(1).new() for _ in range(2)]
    with connection(protocol, sidecar, authority.certificate) as send:
        send(small_trace(ids[0]))

        used.replace_by(successor.issue())

        # Each attempt opens a connection, which has the sidecar look at the files.
        while not sends(exporter(protocol, sidecar, successor.certificate, timeout=SHORT)):
            pass
        assert not sends(exporter(protocol, sidecar, authority.certificate, timeout=SHORT))
        send(small_trace(ids[1]))
    own_sink.wait_for_spans(6, *map(id_of, ids))
    sidecar.wait_for_log(f"The {protocol} certificates have changed")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_authority_of_clients_that_is_replaced_lets_nobody_new_in(
    protocol: str, authority: Authority, sidecar_with: Callable[..., Sidecar], tmp_path: Path
) -> None:
    before, after = Authority(tmp_path, "before"), Authority(tmp_path, "after")
    sidecar = sidecar_with(tls=tls_of(authority.issue(), client_ca_file=before.certificate))
    old, new = before.issue("an app"), after.issue("an app")
    assert sends(exporter(protocol, sidecar, authority.certificate, old))

    before.certificate.write_bytes(after.certificate.read_bytes())

    while not sends(exporter(protocol, sidecar, authority.certificate, new, timeout=SHORT)):
        pass
    assert not sends(exporter(protocol, sidecar, authority.certificate, old, timeout=SHORT))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_new_certificates_that_cannot_be_used_change_nothing(
    protocol: str, authority: Authority, sidecar_with: Callable[..., Sidecar]
) -> None:
    used = authority.issue()
    sidecar = sidecar_with(tls=tls_of(used))

    used.key.write_bytes(authority.issue().key.read_bytes())

    assert sends(exporter(protocol, sidecar, authority.certificate))
    sidecar.wait_for_log(f"The {protocol} certificates stay as they are")
    assert "the key belongs to another certificate" in sidecar.log
    assert sends(exporter(protocol, sidecar, authority.certificate))


class connection:  # noqa: N801 - reads as a function
    """One connection over TLS that stays open, and what sends a request on it."""

    def __init__(self, protocol: str, sidecar: Sidecar, ca: Path) -> None:
        self._channel: grpc.Channel | None = None
        self._http: http.client.HTTPSConnection | None = None
        if protocol == "grpc":
            credentials = grpc.ssl_channel_credentials(ca.read_bytes())
            # A channel of its own: gRPC shares connections between channels that look alike.
            options = [("grpc.use_local_subchannel_pool", 1)]
            port = sidecar.grpc.rpartition(":")[2]
            self._channel = grpc.secure_channel(f"localhost:{port}", credentials, options)
        else:
            port = sidecar.http.rpartition(":")[2]
            context = ssl.create_default_context(cafile=ca)
            self._http = http.client.HTTPSConnection("localhost", int(port), timeout=WAIT, context=context)
            self._http.auto_open = 0
            self._http.connect()

    def __enter__(self) -> Callable[[bytes], None]:
        return self._send

    def __exit__(self, *error: object) -> None:
        for each in (self._channel, self._http):
            if each is not None:
                each.close()

    def _send(self, data: bytes) -> None:
        if self._channel is not None:
            method_of(self._channel)(data, timeout=WAIT)
        if self._http is not None:
            self._http.request("POST", "/v1/traces", data, {"Content-Type": "application/x-protobuf"})
            with self._http.getresponse() as answer:
                assert (answer.status, answer.read()) == (200, b"")


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


GOOD = [
    {"authorization": f"Bearer {TOKEN}"},
    {"authorization": f"bearer {TOKEN}"},
    {"authorization": "Bearer second"},
    basic("app", PASSWORD),
    basic("other", "of-the-file"),
]
BAD: list[dict[str, str]] = [
    {},
    {"authorization": ""},
    {"authorization": "Bearer"},
    {"authorization": "Bearer "},
    {"authorization": TOKEN},
    {"authorization": f"Bearer {TOKEN}x"},
    {"authorization": f"Bearer {TOKEN[:-1]}"},
    {"authorization": f"Basic {TOKEN}"},
    {"authorization": f"Token {TOKEN}"},
    {"authorization": "Basic !!!"},
    basic("app", "wrong"),
    basic("app", ""),
    basic("other", PASSWORD),
]


@pytest.fixture
def auth(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "second").write_text("second\n", encoding="utf-8")
    (tmp_path / "users").write_text("# who may send\n\nother:of-the-file\n", encoding="utf-8")
    return {
        "bearertokenauth": {"token": "${env:TOKEN}", "filename": str(tmp_path / "second")},
        "basicauth": {"htpasswd": {"inline": "app:${env:PASSWORD}", "file": str(tmp_path / "users")}},
    }


SECRETS = {"TOKEN": TOKEN, "PASSWORD": PASSWORD}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_who_shows_a_token_or_password_may_send(
    protocol: str, auth: dict[str, object], sidecar_with: Callable[..., Sidecar], own_sink: Sink
) -> None:
    sidecar = sidecar_with(SECRETS, auth=auth)

    assert [headers for headers in GOOD if not sends(exporter(protocol, sidecar, headers=headers))] == []
    assert [headers for headers in BAD if sends(exporter(protocol, sidecar, headers=headers))] == []
    own_sink.wait_for(lambda: len(own_sink.raw) == len(GOOD))
    assert TOKEN not in sidecar.log
    assert PASSWORD not in sidecar.log


def test_who_may_not_send_is_told_so_for_good_and_nothing_is_read(
    auth: dict[str, object], sidecar_with: Callable[..., Sidecar]
) -> None:
    sidecar = sidecar_with(SECRETS, auth=auth)
    large = bytes(8 << 20)

    answer = sidecar.post(b"no OTLP")
    with grpc.insecure_channel(sidecar.grpc, [("grpc.max_send_message_length", -1)]) as channel:
        export = method_of(channel)
        with pytest.raises(grpc.RpcError) as raised:
            export(large, timeout=WAIT)

    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert b"Authorization" in answer.body
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert isinstance(raised.value, grpc.Call)
    trailers: Any = raised.value.trailing_metadata()
    assert "google.rpc.retryinfo-bin" not in dict(trailers or ())
    assert sidecar.post(b"", path="/v1/logs").status == 401


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_of_tokens_is_read_again_when_it_changes(
    protocol: str, tmp_path: Path, sidecar_with: Callable[..., Sidecar]
) -> None:
    file = tmp_path / "tokens"
    file.write_text("first\nboth\n", encoding="utf-8")
    sidecar = sidecar_with(auth={"bearertokenauth": {"filename": str(file)}}, tls={"reload_interval": "10ms"})
    assert sends(exporter(protocol, sidecar, headers={"authorization": "Bearer first"}))

    file.write_text("both\nlast\n", encoding="utf-8")

    while not sends(exporter(protocol, sidecar, headers={"authorization": "Bearer last"})):
        pass
    assert sends(exporter(protocol, sidecar, headers={"authorization": "Bearer both"}))
    assert not sends(exporter(protocol, sidecar, headers={"authorization": "Bearer first"}))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_sidecar_sends_with_certificates_and_headers_of_its_own(
    protocol: str,
    authority: Authority,
    sidecar_with: Callable[..., Sidecar],
    start: Callable[..., Sidecar],
    own_sink: Sink,
) -> None:
    clients = Authority(authority.folder, "clients")
    client = clients.issue("first sidecar")
    backend = sidecar_with(
        {"TOKEN": TOKEN},
        tls=tls_of(authority.issue(hosts="DNS:backend.example"), client_ca_file=clients.certificate),
        auth={"bearertokenauth": {"token": "${env:TOKEN}"}},
    )
    own = authority.folder / "first"
    own.mkdir()
    (own / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
    settings = {
        "endpoint": address_of(protocol, backend),
        "protocol": {"grpc": "grpc", "http": "http/protobuf"}[protocol],
        "headers": {"Authorization": f"Bearer ${{file:{own / 'token'}}}"},
        "tls": {
            "ca_file": str(authority.certificate),
            "cert_file": str(client.certificate),
            "key_file": str(client.key),
            "server_name_override": "backend.example",
        },
    }
    first = start("-c", str(write(own, {}, exporters={"otlp": settings})))
    trace = Traces(2).new()

    first.send(small_trace(trace))

    own_sink.wait_for_spans(3, id_of(trace))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_certificates_in_the_environment_are_honoured(
    protocol: str,
    authority: Authority,
    sidecar_with: Callable[..., Sidecar],
    start: Callable[..., Sidecar],
    own_sink: Sink,
) -> None:
    clients = Authority(authority.folder, "clients")
    client = clients.issue("first sidecar")
    backend = sidecar_with(
        {"TOKEN": TOKEN},
        tls=tls_of(authority.issue(), client_ca_file=clients.certificate),
        auth={"bearertokenauth": {"token": "${env:TOKEN}"}},
    )
    first = start(
        environment={
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://{address_of(protocol, backend)}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": {"grpc": "grpc", "http": "http/protobuf"}[protocol],
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.certificate),
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(client.certificate),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(client.key),
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{TOKEN}",
        }
    )
    trace = Traces(3).new()

    first.send(small_trace(trace))

    own_sink.wait_for_spans(3, id_of(trace))


def address_of(protocol: str, sidecar: Sidecar) -> str:
    return "localhost:" + (sidecar.grpc if protocol == "grpc" else sidecar.http).rpartition(":")[2]


def test_secrets_are_in_neither_logs_nor_the_output_of_check(
    auth: dict[str, object], tmp_path: Path, start: Callable[..., Sidecar]
) -> None:
    file = write(tmp_path, {"auth": auth}, exporters={"console": {}})
    sidecar = start("-c", str(file), "--log-level", "debug", environment=SECRETS)
    command = [sys.executable, "-m", "otel_scorer", "check", "-c", str(file)]
    checked = subprocess.run(command, env=SECRETS, capture_output=True, text=True, timeout=WAIT, check=True)
    assert sidecar.post(b"", headers={"Authorization": f"Bearer {TOKEN}"}).status == 200
    assert sidecar.post(b"", headers={"Authorization": "Bearer a-wrong-token"}).status == 401

    assert sidecar.stop() == 0

    assert "bearertokenauth" in sidecar.log, "the configuration is logged"
    for secret in (TOKEN, PASSWORD, "of-the-file", "a-wrong-token"):
        assert secret not in sidecar.log
        assert secret not in checked.stdout + checked.stderr
    assert "tokens" in checked.stdout


def test_what_cannot_be_used_is_named_at_start(tmp_path: Path, authority: Authority) -> None:
    pair, other = authority.issue(), authority.issue()
    empty = tmp_path / "empty"
    empty.write_text("\n", encoding="utf-8")
    cases: list[tuple[dict[str, object], str]] = [
        ({"tls": tls_of(Pair(tmp_path / "none.pem", pair.key))}, "none.pem"),
        ({"tls": tls_of(Pair(empty, pair.key))}, "empty"),
        ({"tls": tls_of(Pair(pair.certificate, other.key))}, "the key belongs to another certificate"),
        ({"tls": tls_of(pair, client_ca_file=empty)}, "authorities"),
        ({"auth": {"bearertokenauth": {"filename": str(empty)}}}, "no credentials"),
        ({"auth": {"bearertokenauth": {"filename": str(tmp_path / "none")}}}, "none"),
    ]
    for settings, words in cases:
        with pytest.raises(ConfigError, match=words):
            check_files(load_config(write(tmp_path, settings)))
    command = [sys.executable, "-m", "otel_scorer", "serve", "-c", str(write(tmp_path, cases[2][0]))]
    started = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)
    assert started.returncode == 2
    assert cases[2][1] in started.stderr
    assert "Traceback" not in started.stderr
