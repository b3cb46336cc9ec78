"""A backend for each test, and servers that end with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.integrations.in_app.backends import Server
from tests.otlp_sink import Sink


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers that are gone when the test is over."""
    started: list[Server] = []

    def start(*arguments: object, **env: str) -> Server:
        server = Server(*arguments, **env)  # type: ignore[arg-type]  # passed on as they are
        started.append(server)
        return server

    yield start
    for server in started:
        server.close()
