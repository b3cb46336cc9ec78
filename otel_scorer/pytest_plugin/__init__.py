"""
A pytest plugin: score the spans of the code under test, or stored traces, one test for each.

Pytest finds it by itself. Until a test asks for one of its fixtures it does nothing and imports nothing: what it needs
is imported by the fixtures. The names that tests import from here are imported when they are used, too.
PYTEST_DONT_REWRITE: it may be imported before pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import TracerProvider

    from otel_scorer.pytest_plugin.assertions import assert_scores
    from otel_scorer.pytest_plugin.capture import CapturedTraces

__all__ = ["CapturedTraces", "assert_scores"]

_HOMES: Final = {"CapturedTraces": "capture", "assert_scores": "assertions"}
_MARKER: Final = (
    "traces(*files, store=None, run_id=None, filter_string=None, max_results=None): run the test once per trace of "
    "these files or of this store, as its argument otel_scorer_trace"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say which stored traces a test is run on that does not say itself."""
    said = "Stored traces for tests with the argument otel_scorer_trace: OTLP files, or stores (.db)"
    parser.addini("otel_scorer_traces", said, type="paths", default=[])
    group = parser.getgroup("otel-scorer")
    group.addoption("--otel-scorer-traces", action="append", default=[], metavar="FILE", help=said)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the argument `otel_scorer_trace` once per stored trace."""
    marks = metafunc.definition.iter_markers("parametrize")
    if "otel_scorer_trace" in metafunc.fixturenames and not any("otel_scorer_trace" in mark.args[0] for mark in marks):
        from otel_scorer.pytest_plugin.stored import parametrize

        parametrize(metafunc)


@pytest.fixture
def otel_scorer_trace() -> None:
    """Pass a stored trace; the test is run once per trace of `@pytest.mark.traces(...)` or `--otel-scorer-traces`."""
    pytest.fail(
        "otel_scorer_trace: there are no stored traces. Name files by @pytest.mark.traces('file.jsonl'), by the option "
        "--otel-scorer-traces or by otel_scorer_traces in the configuration of pytest.",
        pytrace=False,
    )


@pytest.fixture
def otel_scorer_tracer_provider() -> TracerProvider | None:
    """Return the tracer provider whose spans are captured. Override it to name yours; None: the global one."""
    return None


@pytest.fixture
def otel_scorer_traces(otel_scorer_tracer_provider: TracerProvider | None) -> Iterator[CapturedTraces]:
    """Capture the traces that the test makes; see `CapturedTraces`."""
    from otel_scorer.pytest_plugin.capture import capturing

    with capturing(otel_scorer_tracer_provider) as captured:
        yield captured


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{home}"), name)
