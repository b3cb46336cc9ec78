from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import pytest

from otel_scorer.transport.authentication import Authenticator
from otel_scorer.transport.cors import Cors
from otel_scorer.transport.exchange import Credentials
from otel_scorer.transport.http_receiver import HttpReceiver

APP = "https://app.example.com"
CORS = Cors(origins=(APP, "https://*.example.org", "http://localhost:*"), headers=("Authorization",), max_age=600)


@pytest.fixture
def connection(pipeline: Any) -> Iterator[http.client.HTTPConnection]:
    door = Authenticator(Credentials(tokens=("abc",)), "http")
    receiver = HttpReceiver("127.0.0.1:0", pipeline, cors=CORS, authenticator=door)
    connection = http.client.HTTPConnection(receiver.start(), timeout=10)
    yield connection
    connection.close()
    receiver.shutdown(0.0)


def ask(
    connection: http.client.HTTPConnection, method: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str]]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, "/v1/traces", body, fields)
    with connection.getresponse() as response:
        response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}


def preflight(connection: http.client.HTTPConnection, origin: str, headers: str = "content-type") -> dict[str, str]:
    status, answer = ask(
        connection,
        "OPTIONS",
        Origin=origin,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers=headers,
    )
    assert status == 204
    return {name: value for name, value in answer.items() if name.startswith("access-control")}


@pytest.mark.parametrize("origin", [APP, "https://a.example.org", "http://localhost:3000", APP.upper()])
def test_a_page_of_an_allowed_origin_is_told_what_it_may_send(
    connection: http.client.HTTPConnection, origin: str
) -> None:
    assert preflight(connection, origin, "Content-Type, authorization") == {
        "access-control-allow-origin": origin,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "content-type, authorization",
        "access-control-max-age": "600",
    }


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://a.example.org.evil.example",
        "https://evil.example/.example.org",
        "https://user@evil.example:1.example.org",
        "null",
    ],
)
def test_a_page_of_another_origin_is_told_nothing(connection: http.client.HTTPConnection, origin: str) -> None:
    assert preflight(connection, origin) == {}


def test_a_header_that_is_not_allowed_is_not(connection: http.client.HTTPConnection) -> None:
    assert preflight(connection, APP, "content-type, x-mine") == {}


def test_answers_and_refusals_can_be_read_by_the_page(connection: http.client.HTTPConnection, pipeline: Any) -> None:
    own = {"Content_Type": "application/x-protobuf", "Authorization": "Bearer abc"}
    taken, fields = ask(connection, "POST", b"", Origin=APP, **own)
    refused, refused_fields = ask(connection, "POST", b"", Origin=APP)
    other, other_fields = ask(connection, "POST", b"", Origin="https://x", **own)

    assert (taken, refused, other) == (200, 401, 200)
    for each in (fields, refused_fields):
        assert each["access-control-allow-origin"] == APP
        assert each["access-control-expose-headers"] == "Retry-After"
        assert each["vary"] == "Origin"
    assert "access-control-allow-origin" not in other_fields
    assert other_fields["vary"] == "Origin", "a cache must not serve one page's answer to another"


def test_every_page_means_no_credentials() -> None:
    cors = Cors(origins=("*",), headers=("*",))
    asked = {"origin": APP, "access-control-request-method": "POST", "access-control-request-headers": "x-mine"}

    fields = dict(cors.preflight(asked))

    assert fields["access-control-allow-origin"] == "*"
    assert fields["access-control-allow-headers"] == "x-mine"
    assert "access-control-allow-credentials" not in fields
    assert "access-control-max-age" not in fields


def test_without_cors_no_page_is_told_anything(pipeline: Any) -> None:
    receiver = HttpReceiver("127.0.0.1:0", pipeline)
    connection = http.client.HTTPConnection(receiver.start(), timeout=10)

    status, fields = ask(connection, "OPTIONS", Origin=APP, Access_Control_Request_Method="POST")

    connection.close()
    receiver.shutdown(0.0)
    assert status == 405
    assert not any(name.startswith("access-control") for name in fields)
