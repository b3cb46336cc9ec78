"""What `evaluate` is given, as a stream of items: rows of dicts or of a DataFrame, traces, files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from otel_scorer.dialects import default_reader
from otel_scorer.errors import ConfigError
from otel_scorer.evaluation.recordings import RecordedTrace, read_recording
from otel_scorer.model.mlflow_trace import is_mlflow_trace
from otel_scorer.model.read_only import copied
from otel_scorer.model.trace import MISSING, Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.scorers.base import Scorer

__all__ = ["Item", "Source", "read_data"]

_COLUMNS: Final = ("inputs", "outputs", "expectations", "trace", "tags")
_ACCEPTED: Final = (
    "a list of dicts with `inputs`, `outputs`, `expectations`, `trace` and `tags`, a pandas DataFrame with such "
    "columns, a list of traces (MLflow's too), the result of search_traces(), or paths of OTLP files"
)
# How much of a stream is looked at before anything runs.
_PEEKED: Final = 100
_PROBLEMS_SHOWN: Final = 3


class Item:
    """
    One thing to judge.

    Attributes:
        position: Which one, from 0.
        inputs: What was asked; MISSING: nobody says.
        outputs: What was answered; MISSING: nobody says.
        expectations: What the right answer is.
        tags: What the row is tagged with.
        trace: The trace that it has, or that was made of it.
        view: What scorers look into, once they did.
        recorded: Where the trace can be had again.
        problem: Why nothing can be done with it.
        error: Why there are no outputs, where making them failed.
        is_given: Whether the trace is an object of the caller's.
    """

    __slots__ = (
        "error", "expectations", "inputs", "is_given", "outputs", "position", "problem", "recorded", "tags", "trace",
        "view",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - the columns in their order; one is made for every row
        self,
        position: int,
        inputs: Any = MISSING,
        outputs: Any = MISSING,
        expectations: Any = MISSING,
        trace: Any = MISSING,
        tags: Any = MISSING,
    ) -> None:
        self.position = position
        # Whoever made the row may go on with what is in it.
        self.inputs: Any = inputs if inputs is MISSING else copied(inputs)
        self.outputs: Any = outputs if outputs is MISSING else copied(outputs)
        self.expectations: Any = expectations if expectations is MISSING else copied(expectations)
        self.tags: Mapping[str, Any] = {}
        self.trace: Trace | None = None
        self.view: Trace | None = None
        self.recorded: RecordedTrace | None = None
        self.is_given = False
        self.error: str | None = None
        self.problem: str | None = None
        # Most rows have neither.
        if expectations is not MISSING and not isinstance(expectations, Mapping):
            self.problem = f"`expectations` must be a dict, got {type(expectations).__name__}"
        if tags is not MISSING:
            if isinstance(tags, Mapping):
                self.tags = dict(cast("Mapping[str, Any]", tags))
            else:
                self.problem = f"`tags` must be a dict, got {type(tags).__name__}"
        if trace is not MISSING:
            self._take(trace)
        elif inputs is MISSING and outputs is MISSING:
            self.problem = "it has none of `inputs`, `outputs` and `trace`"

    def open(self) -> Trace | None:
        """Return what scorers look into; of a file, read from its bytes again after `close`."""
        if self.view is None:
            if self.trace is None and self.recorded is not None:
                self.trace = self.recorded.load()
            self.view = self.trace
        return self.view

    def close(self) -> None:
        """Have freed what was decoded for scorers, now that all is said about the item."""
        if self.view is None:
            return
        if self.recorded is None:
            # It is the caller's, and must not grow.
            self.view.forget()
        else:
            self.view.let_go()
            self.trace = None
        self.view = None

    def _take(self, trace: object) -> None:
        try:
            if isinstance(trace, Trace):
                self.trace, self.is_given = trace, True
            elif isinstance(trace, str):
                self.trace = Trace.from_json(trace)
            elif isinstance(trace, Mapping):
                self.trace = Trace.from_dict(cast("Mapping[str, Any]", trace), default_reader())
            elif is_mlflow_trace(trace):
                self.trace = Trace.from_dict(cast("Any", trace).to_dict(), default_reader())
            else:
                self.problem = f"`trace` must be a Trace, its JSON text or its dict, got {type(trace).__name__}"
        except ValueError as error:
            self.problem = str(error)


@dataclass(slots=True)
class Source:
    """
    A stream of items.

    Attributes:
        items: The items, to be gone through once.
        size: How many there are, where that is known.
        sample: The first of them, or all, to be looked at before anything runs.
        is_all: Whether `sample` is all of them.
        problems: What could not be read of files.
        recorded: The traces of files, by position.
        is_listed: Whether somebody else has all rows in memory.
    """

    items: Iterable[Item]
    size: int | None
    sample: Callable[[], Iterable[Item]]
    is_all: bool
    problems: list[str] = field(default_factory=list[str])
    recorded: Sequence[RecordedTrace] = ()
    is_listed: bool = False

    def __len__(self) -> int:
        """How many there are, as far as that is known."""
        return self.size or 0

    def check(self, scorers: Sequence[Scorer], *, makes_outputs: bool) -> None:
        """
        Look for what cannot work before anything runs.

        Args:
            scorers: What is going to be called.
            makes_outputs: Whether outputs and traces are made from the inputs.

        Raises:
            ConfigError: Rows have the wrong shape, or no row has what a scorer cannot do without.
        """
        wanted = {need: made.name for made in scorers for need in made.signature.needs}
        wrong: list[str] = []
        count = 0
        for item in self.sample():
            count += 1
            problem = item.problem
            if problem is None and makes_outputs and not isinstance(item.inputs, Mapping):
                problem = "`inputs` must be a dict: predict_fn is called with its keys as arguments"
            if problem is not None:
                wrong.append(f"row {item.position}: {problem}")
            for need in [need for need in wanted if _has(item, need, makes_outputs=makes_outputs)]:
                del wanted[need]
        if wrong and self.is_all:
            more = f" (and {len(wrong) - _PROBLEMS_SHOWN} more)" if len(wrong) > _PROBLEMS_SHOWN else ""
            raise ConfigError(
                f"{len(wrong)} of {count} rows cannot be used: {'; '.join(wrong[:_PROBLEMS_SHOWN])}{more}"
            )
        if wanted and self.is_all and count:
            need, name = next(iter(wanted.items()))
            rows = count if self.size is None else self.size
            raise ConfigError(f"Scorer {name!r} needs {need!r}, and not one of {rows} rows has it")


def _has(item: Item, need: str, *, makes_outputs: bool) -> bool:
    if item.trace is not None or item.recorded is not None:
        # What is in the spans is looked up when it is scored.
        if need != "expectations":
            return True
        return item.expectations is not MISSING or (
            item.trace is not None and bool(item.trace.search_assessments(type="expectation"))
        )
    if need in {"trace", "span", "outputs"} and makes_outputs:
        return True
    return need in {"inputs", "outputs", "expectations"} and getattr(item, need) is not MISSING


def read_data(data: Any) -> Source:
    """
    Return what `evaluate` was given as a stream of items.

    Raises:
        ConfigError: It is nothing that can be evaluated.
    """
    if callable(getattr(data, "to_df", None)):
        data = data.to_df()  # MLflow's data sets
    if isinstance(data, str | Path):
        return _files([data])
    if hasattr(data, "itertuples") and hasattr(data, "columns"):
        return _frame(data)
    if isinstance(data, Mapping | bytes | Trace) or not isinstance(data, Iterable):
        raise ConfigError(f"evaluate() needs {_ACCEPTED}; got {type(cast('object', data)).__name__}")
    if not isinstance(data, Sequence):
        return _stream(cast("Iterable[Any]", data))
    rows = cast("Sequence[Any]", data)
    if rows and all(isinstance(row, str | Path) for row in rows):
        return _files(rows)
    return Source(_Items(rows), len(rows), lambda: _Items(rows), is_all=True, is_listed=True)


class _Items(Iterable[Item], Sized):
    """Rows of a list as items, made when they are asked for."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Item]:
        return map(_item, itertools.count(), self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _stream(rows: Iterable[Any]) -> Source:
    items = map(_item, itertools.count(), rows)
    first = list(itertools.islice(items, _PEEKED + 1))
    return Source(itertools.chain(first, items), None, lambda: first, is_all=len(first) <= _PEEKED)


def _files(paths: Sequence[str | Path]) -> Source:
    recording = read_recording(paths)
    recorded = recording.recorded

    def items() -> Iterator[Item]:
        for position, one in enumerate(recorded):
            item = Item(position, trace=one.load())
            item.recorded = one
            yield item

    return Source(
        items(),
        len(recorded),
        lambda: itertools.islice(items(), 1),
        is_all=True,
        problems=[str(problem) for problem in recording.problems],
        recorded=recorded,
    )


def _frame(frame: Any) -> Source:
    columns = [str(column) for column in frame.columns]
    places = [(name, columns.index(name)) for name in _COLUMNS if name in columns]
    if not {"inputs", "outputs", "trace"} & set(columns):
        raise ConfigError(f"The DataFrame has none of the columns `inputs`, `outputs` and `trace`, but {columns}")

    def rows() -> Iterator[Item]:
        for position, cells in enumerate(frame.itertuples(index=False, name=None)):
            found = {name: cells[place] for name, place in places if not _is_empty(cells[place])}
            yield Item(position, **found)

    return Source(rows(), len(frame), rows, is_all=True)


def _item(position: int, row: Any) -> Item:
    """Make an item of a row; what is wrong with it is its `problem`."""
    if isinstance(row, dict):
        get = cast("dict[str, Any]", row).get
        expectations, outputs = get("expectations", MISSING), get("outputs", MISSING)
        if type(outputs) is float and math.isnan(outputs):
            outputs = MISSING
        if expectations is not MISSING and _is_empty(expectations):
            expectations = MISSING
        trace, tags = get("trace", MISSING), get("tags", MISSING)
        inputs = get("inputs", MISSING)
        return Item(
            position,
            MISSING if type(inputs) is float and math.isnan(inputs) else inputs,
            outputs,
            expectations,
            MISSING if trace is not MISSING and _is_empty(trace) else trace,
            MISSING if tags is not MISSING and _is_empty(tags) else tags,
        )
    if isinstance(row, Trace) or is_mlflow_trace(row):
        return Item(position, trace=row)
    item = Item(position, trace=MISSING, inputs=None)
    item.inputs = MISSING
    item.problem = f"a row must be a dict or a Trace, got {type(row).__name__}"
    return item


def _is_empty(cell: object) -> bool:
    """Tell whether a cell of a table holds nothing: None, NaN, and what pandas writes for them."""
    if cell is None:
        return True
    if isinstance(cell, float):
        return math.isnan(cell)
    return type(cell).__name__ in {"NAType", "NaTType"}
