"""A backend and sidecars in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.e2e.sidecar import Gate, Sidecar
from tests.e2e.sink import Sink


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    """The backend of a whole file: each test looks for the traces that it sent."""
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture
def own_sink() -> Iterator[Sink]:
    """A backend for one test."""
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Sidecar]]:
    """Start sidecars that end with the test."""
    started: list[Sidecar] = []

    def start_one(*flags: str, **settings: object) -> Sidecar:
        sidecar = Sidecar(*flags, **settings)  # type: ignore[arg-type]  # passed on as they are
        started.append(sidecar)
        return sidecar

    yield start_one
    for sidecar in started:
        sidecar.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()
