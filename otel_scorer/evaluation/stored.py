"""The store as `evaluate`, `score` and searches use it: where it is, what goes in, what comes out."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

from otel_scorer.dialects import default_reader, using
from otel_scorer.errors import AssessmentValueError, ConfigError
from otel_scorer.evaluation.frames import trace_frame
from otel_scorer.evaluation.row_traces import row_record
from otel_scorer.model.assessment import as_text, json_value
from otel_scorer.model.feedback import AssessmentSource, Expectation
from otel_scorer.model.trace import MISSING
from otel_scorer.reporting.subject import Evidence, Subject
from otel_scorer.stores.database import default_store_path, open_database
from otel_scorer.stores.location import store_path
from otel_scorer.stores.pages import PagedSequence
from otel_scorer.stores.trace_entries import Entry, TraceRecord
from otel_scorer.stores.trace_store import TraceStore

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from types import TracebackType

    from otel_scorer.evaluation.items import Item
    from otel_scorer.model.decision import Decision
    from otel_scorer.model.trace import Trace
    from otel_scorer.reporting.report import Judged
    from otel_scorer.stores.trace_entries import StoredEntry

__all__ = ["StoreWriter", "StoredJudgements", "log_expectation", "opened_store", "search_traces"]

_BATCH: Final = 256
_GIVEN: Final[tuple[Literal["inputs", "outputs"], ...]] = ("inputs", "outputs")


@contextmanager
def opened_store(store: str | Path | TraceStore | None, *, make: bool = True) -> Generator[TraceStore]:
    """
    Open a store for a while; one that is open already stays so.

    Args:
        store: A file, or an open store. Default: `OTEL_SCORER_STORE`, else `.otel_scorer/traces.db`.
        make: Whether it is made if there is none.

    Raises:
        ConfigError: It cannot be opened.
    """
    if isinstance(store, TraceStore):
        yield store
        return
    path = store_path() if store is None else Path(store)
    if not make and not path.exists():
        raise ConfigError(f"There is no store {path}: evaluate() and `otel-scorer score --store` make one")
    if path == default_store_path() and not path.parent.exists():
        path.parent.mkdir(parents=True)
        # It lies in somebody's project, and is nothing to commit.
        path.parent.joinpath(".gitignore").write_text("*\n", encoding="utf-8")
    with open_database(path) as database:
        yield TraceStore(database, default_reader())


class StoreWriter:
    """
    Writes what was judged, in batches; a context manager, for what is left must be written however it ends.

    Args:
        store: Where to.
        run_id: The run.
    """

    def __init__(self, store: TraceStore, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._batch: list[Entry] = []
        self._last_ns = 0

    def add(self, item: Item, decisions: tuple[Decision, ...]) -> None:
        """
        Take one judgement.

        Raises:
            StoreError: The store cannot be written.
        """
        trace = item.open()
        if trace is None:
            # No two rows begin at the same time: that keeps them in order.
            self._last_ns = max(time.time_ns(), self._last_ns + 1)
            record, given = row_record(item, self._last_ns), None
        else:
            logs = None if item.recorded is None else item.recorded.logs
            record, given = TraceRecord.of(trace, logs=logs, tags=item.tags), _given(item, trace)
        expectations: Mapping[str, Any] = {} if item.expectations is MISSING else item.expectations
        self._batch.append(
            Entry(
                record,
                decisions,
                item.position,
                given,
                item.error,
                [Expectation(str(name), _kept(value)) for name, value in expectations.items() if value is not None],
                () if trace is None else cast("Any", trace.search_assessments(type="expectation")),
            )
        )
        if len(self._batch) >= _BATCH:
            self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def judgements(self) -> PagedSequence[Judged]:
        """Return what was written, wherever the program has gone meanwhile."""
        return StoredJudgements(self._store.path, self._run_id)

    def flush(self) -> None:
        """
        Write what is left.

        Raises:
            StoreError: The store cannot be written.
        """
        batch, self._batch = self._batch, []
        if batch:
            self._store.put(batch, self._run_id)


def _kept(value: Any) -> Any:
    """Return an expectation as JSON can hold it: what it cannot is stored as text, and compared as it is."""
    try:
        return json_value(value, "an expectation")
    except (AssessmentValueError, RecursionError):
        return as_text(value)


def _given(item: Item, trace: Trace) -> dict[str, Any] | None:
    """Return what a row says beside its trace, where that is something else than the trace says."""
    given: dict[str, Any] = {
        name: value
        for name in _GIVEN
        if (value := getattr(item, name)) is not MISSING and not _is_same(value, trace.read(name))
    }
    return given or None


def _is_same(value: Any, said: Any) -> bool:
    try:
        return bool(value == said)
    except Exception:  # noqa: BLE001 - anybody's objects: arrays and frames cannot say, others may fail
        return False


class StoredJudgements(PagedSequence["Judged"]):
    """
    What was said in a stored run, read when it is asked for.

    Args:
        store: The file.
        run_id: The run.
    """

    def __init__(self, store: Path, run_id: str) -> None:
        super().__init__(_BATCH)
        self._store = store
        self._run_id = run_id

    @cached_property
    def _size(self) -> int:
        with opened_store(self._store, make=False) as opened:
            return opened.entry_count(self._run_id)

    def __len__(self) -> int:
        return self._size

    def _read(self, page: int) -> list[Judged]:
        with opened_store(self._store, make=False) as opened:
            entries = opened.entries(self._run_id, first=page * _BATCH, most=_BATCH)
            return [(_subject(self._store, entry), entry.decisions) for entry in entries]


def _subject(store: Path, entry: StoredEntry) -> Subject:
    return Subject(
        name=entry.name or f"row {entry.position}",
        trace_id=entry.trace_id,
        root_id=entry.root_id,
        close_reason=entry.close_reason,
        complete=entry.complete,
        load=partial(_evidence, store, entry),
        problem=entry.error,
    )


def _evidence(store: Path, entry: StoredEntry) -> Evidence:
    with opened_store(store, make=False) as opened:
        trace = opened.trace(entry.trace_id)
    if trace is None:
        return Evidence()
    given = entry.given or {}
    expected = {each.name: each.value for each in trace.search_assessments(type="expectation")}
    return Evidence(
        trace, given.get("inputs", trace.read("inputs")), given.get("outputs", trace.read("outputs")), expected or None
    )


def search_traces(
    run_id: str | None = None,
    filter_string: str | None = None,
    max_results: int | None = None,
    store: str | Path | TraceStore | None = None,
    return_type: Literal["list", "pandas"] = "list",
    *,
    dialects: Mapping[str, Any] | str | Path | None = None,
) -> Any:
    """
    Find stored traces; `evaluate` takes the result as its data.

    Args:
        run_id: Only those of this run, in its order. Otherwise the latest come first.
        filter_string: MLflow's search grammar, such as `status = 'OK' AND feedback.quality < 0.5`.
        max_results: At most so many.
        store: A file, or an open store. Default: `OTEL_SCORER_STORE`, else `.otel_scorer/traces.db`.
        return_type: `list` of Trace, or a `pandas` DataFrame with MLflow's columns.
        dialects: What otel_scorer should know about the spans: the section `dialects` of the configuration, or a
            configuration file that has one (docs/dialects.md). An open store knows what it was opened with.

    Raises:
        ConfigError: There is no store, an argument cannot be meant, or the filter cannot be read or asks for what is
            not stored.
        StoreError: There is no such run, or the store cannot be read.
    """
    if return_type not in {"list", "pandas"}:
        raise ConfigError(f"`return_type` must be 'list' or 'pandas', got {return_type!r}")
    if max_results is not None and (type(max_results) is not int or max_results < 0):
        raise ConfigError(f"`max_results` must be a whole number, 0 or more, got {max_results!r}")
    if dialects is not None:
        from otel_scorer.config import taught_reader

        if isinstance(store, TraceStore):
            raise ConfigError("An open store knows the dialects that it was opened with: give `store` as a path")
        with using(taught_reader(dialects)):
            return search_traces(run_id, filter_string, max_results, store, return_type)
    with opened_store(store, make=False) as opened:
        traces: Iterator[Trace] = opened.search(run_id, filter_string, max_results)
        return list(traces) if return_type == "list" else trace_frame(traces)


def log_expectation(  # noqa: PLR0917 - MLflow's arguments in MLflow's order
    trace_id: str,
    name: str,
    value: Any,
    source: AssessmentSource | None = None,
    metadata: dict[str, Any] | None = None,
    span_id: str | None = None,
    *,
    store: str | Path | TraceStore | None = None,
) -> Expectation:
    """
    Attach an expectation to a stored trace: scorers get it in `expectations`, and `trace.search_assessments` finds it.

    Args:
        trace_id: 32 hex digits; MLflow's `tr-` in front is fine.
        name: What is expected; the key in `expectations`. An earlier one of the same name is replaced.
        value: Anything that JSON can hold, but None.
        source: Who says so. Default: HUMAN / "default".
        metadata: Whatever else should travel with it.
        span_id: The span that it is about.
        store: See `search_traces`.

    Raises:
        AssessmentValueError: The value is None, or something that JSON cannot hold.
        ConfigError: There is no store.
        StoreError: There is no such trace, or the store cannot be written.
    """
    trace_id = trace_id.removeprefix("tr-")
    expectation = Expectation(name, value, source, trace_id, metadata, span_id)
    with opened_store(store, make=False) as opened:
        opened.expect(trace_id, [expectation])
    return expectation
