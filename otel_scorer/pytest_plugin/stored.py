"""Stored traces as parameters of tests: one test per trace of OTLP files or of a store."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from otel_scorer.errors import OtelScorerError
from otel_scorer.evaluation import read_recording

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otel_scorer.model.trace import Trace

__all__ = ["parametrize"]

_STORE: Final = (".db", ".sqlite", ".sqlite3")
_NAME: Final = 40
_PROBLEMS: Final = 5


def parametrize(metafunc: pytest.Metafunc) -> None:
    """
    Give `otel_scorer_trace` its values: by the marker `traces`, else the option, else the configuration.

    Raises:
        CollectError: They cannot be read, or there are none.
    """
    try:
        traces = _named(metafunc)
    except OtelScorerError as error:
        raise pytest.Collector.CollectError(str(error)) from None
    if traces is not None:
        metafunc.parametrize("otel_scorer_trace", traces, ids=[_id(trace) for trace in traces])


def _named(metafunc: pytest.Metafunc) -> list[Trace] | None:
    """Return the traces; None if nobody names any."""
    marker = metafunc.definition.get_closest_marker("traces")
    config = metafunc.config
    if marker is not None:
        if not marker.args and "store" not in marker.kwargs:
            raise pytest.Collector.CollectError("the marker traces needs a file or store=")
        folder = metafunc.definition.path.parent
        paths = [_found(str(each), folder, config.rootpath) for each in marker.args]
        traces = _from_files(paths)
        if "store" in marker.kwargs:
            options = dict(marker.kwargs)
            traces += _from_store(_found(str(options.pop("store")), folder, config.rootpath), **options)
    else:
        named = config.getoption("otel_scorer_traces") or config.getini("otel_scorer_traces")
        if not named:
            return None
        paths = [config.invocation_params.dir / each for each in named]
        traces = _from_files(paths)
    if not traces:
        raise pytest.Collector.CollectError("there is no trace in what otel_scorer_trace is read from")
    return traces


def _found(name: str, *folders: Path) -> Path:
    """Return the path in the first folder that has it, so in that of the test before the root of the tests."""
    return next((folder / name for folder in folders if (folder / name).exists()), folders[0] / name)


def _from_files(paths: Sequence[Path]) -> list[Trace]:
    stores = [path for path in paths if path.suffix in _STORE]
    files = [path for path in paths if path.suffix not in _STORE]
    recording = read_recording(files)
    if recording.problems:
        # Half of what a test is about would pass unnoticed.
        raise pytest.Collector.CollectError("; ".join(map(str, recording.problems[:_PROBLEMS])))
    return recording.traces + [trace for path in stores for trace in _from_store(path)]


def _from_store(
    path: Path, run_id: str | None = None, filter_string: str | None = None, max_results: int | None = None
) -> list[Trace]:
    from otel_scorer.stores.database import open_database
    from otel_scorer.stores.trace_store import TraceStore

    if not path.is_file():
        raise pytest.Collector.CollectError(f"there is no store {path}")
    with open_database(path) as database:
        return list(TraceStore(database).search(run_id, filter_string, max_results))


def _id(trace: Trace) -> str:
    root = trace.root
    name = re.sub(r"[^\w.-]+", "_", root.name if root is not None else "")[:_NAME]
    return f"{name}-{trace.trace_id[:8]}".lstrip("-")
