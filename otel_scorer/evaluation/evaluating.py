"""`evaluate`: run scorers on rows of data, on traces, or on what the application answers now."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from otel_scorer.dialects import default_reader, using
from otel_scorer.errors import ConfigError
from otel_scorer.evaluation.items import read_data
from otel_scorer.evaluation.result import Bounds, EvaluationResult
from otel_scorer.evaluation.scoring import Counting
from otel_scorer.evaluation.tally import Tally
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.read_only import copied
from otel_scorer.model.trace import MISSING
from otel_scorer.model.trace_bytes import trace_from_bytes
from otel_scorer.pipeline.running.offline import OfflineScoring
from otel_scorer.pipeline.running.runner import DEFAULT_TIMEOUT, Invocation
from otel_scorer.pipeline.running.selection import Selection
from otel_scorer.reporting.bounds import checked_bounds, checked_max_errors
from otel_scorer.reporting.judgements import JudgementLog
from otel_scorer.reporting.subject import Evidence, row_subject, trace_subject
from otel_scorer.scorers.base import as_scorers
from otel_scorer.scorers.evidence import Evidence as ScorerEvidence
from otel_scorer.scorers.lifecycle import unscheduled
from otel_scorer.scorers.loading import load_scorers
from otel_scorer.stores.packing import Held

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_scorer.evaluation.items import Item, Source
    from otel_scorer.evaluation.recordings import Progress, RecordedTrace
    from otel_scorer.evaluation.stored import StoreWriter
    from otel_scorer.model.trace import Trace
    from otel_scorer.pipeline.running.selection import Choice
    from otel_scorer.reporting.report import Judged
    from otel_scorer.scorers.base import Scorer
    from otel_scorer.stores.pages import PagedSequence
    from otel_scorer.stores.trace_store import TraceStore

__all__ = ["evaluate"]

_GIVEN: Final = ("inputs", "outputs", "expectations")


def evaluate(
    data: Any,
    scorers: Iterable[object],
    predict_fn: Callable[..., Any] | None = None,
    store: str | Path | TraceStore | Literal[False] | None = None,
    *,
    run_name: str | None = None,
    fail_under: Mapping[str, float] | None = None,
    max_errors: int = 0,
    concurrency: int = 10,
    timeout: float = DEFAULT_TIMEOUT,
    on_progress: Progress | None = None,
    dialects: Mapping[str, Any] | str | Path | None = None,
) -> EvaluationResult:
    """
    Run scorers on every row and sum up what they say.

    Args:
        data: Dicts with any of `inputs`, `outputs`, `expectations`, `trace` and `tags`, in a list or as they come from
            a generator; a pandas DataFrame with such columns, where empty cells (NaN) count as missing; traces; what
            `search_traces` returned; or paths of OTLP files. What a row says wins over what its trace says.
        scorers: Scorers, any callables, scorers of other packages, or references: the name of a registered or
            built-in scorer, `package.module:attribute`, `path/to/file.py`. Their `filter` and `span_types` count as
            they do live, `sample_rate` and the `filter_string` of a registered scorer do not: every row is judged.
        predict_fn: Called as `predict_fn(**inputs)` for each row, on threads or, if it is a coroutine function, on an
            event loop. It is traced: scorers see the spans that it makes. What it raises is kept with the row.
        store: Where traces and verdicts are kept, to be found by `search_traces(run_id=...)`. Default:
            `OTEL_SCORER_STORE`, else `.otel_scorer/traces.db`. False: nowhere; then the result holds the rows, and
            `RowResult.trace` of a row without a trace is None.
        run_name: What to call the run.
        fail_under: Smallest means that are fine, by feedback name; see `EvaluationResult.passed`.
        max_errors: Errors that are fine there.
        concurrency: Calls of `predict_fn` at the same time.
        timeout: Seconds for one call of a scorer that does not say; 0: no limit.
        on_progress: Told how many rows are judged, of how many; called on another thread.
        dialects: What otel_scorer should know about the spans of files, of stored traces and of `predict_fn`: the
            section `dialects` of the configuration, or a configuration file that has one (docs/dialects.md). Traces
            that come as `Trace` know what they were loaded with.

    Raises:
        ConfigError: The data is nothing that can be evaluated, or another argument cannot be meant; rows of a list have
            the wrong shape, or no row has what a scorer cannot do without (both before anything runs); a filter or the
            store cannot be used.
        ScorerError: One of the scorers is none, or needs what nobody can give it.
        StoreError: The store cannot be written any more.
    """
    if dialects is not None:
        from otel_scorer.config import taught_reader

        with using(taught_reader(dialects)):
            return evaluate(
                data,
                scorers,
                predict_fn,
                store,
                run_name=run_name,
                fail_under=fail_under,
                max_errors=max_errors,
                concurrency=concurrency,
                timeout=timeout,
                on_progress=on_progress,
            )
    bounds = Bounds(dict(checked_bounds(fail_under)), checked_max_errors(max_errors))
    _check_numbers(concurrency, timeout)
    if predict_fn is not None and not callable(cast("object", predict_fn)):
        raise ConfigError(f"`predict_fn` must be a function, got {type(cast('object', predict_fn)).__name__}")
    made = _scorers_of(scorers, store)
    selections = [Selection(one, default_timeout=timeout) for one in made]
    source = read_data(data)
    source.check(made, makes_outputs=predict_fn is not None)
    tally = Tally(made)
    counting = Counting(source, on_progress)
    scoring = OfflineScoring(partial(_choose, selections), on_decided=counting.one_more)
    with ExitStack() as stack:
        items: Iterable[Item] = source.items
        run_id = uuid.uuid4().hex
        keeper: _Kept | StoreWriter = _Kept(source)
        if store is not False:
            run_id, keeper = _start(stack, store, run_name)
        if predict_fn is not None:
            from otel_scorer.evaluation.prediction import predictions

            # Whatever ends this early must end the calls too, not only once somebody lets go of the exception.
            items = stack.enter_context(closing(predictions(items, predict_fn, concurrency=concurrency)))
        for item, decisions in stack.enter_context(closing(scoring.run(items))):
            tally.add(decisions)
            keeper.add(item, decisions)
            item.close()
    return EvaluationResult(
        run_id,
        tally.metrics,
        keeper.judgements(),
        bounds=bounds,
        problems=source.problems,
    )


def _check_numbers(concurrency: object, timeout: object) -> None:
    if type(concurrency) is not int or concurrency < 1:
        raise ConfigError(f"`concurrency` must be at least 1, and a whole number, got {concurrency!r}")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout < math.inf:
        raise ConfigError(f"`timeout` must be a number of seconds, 0 (no limit) or more, got {timeout!r}")


def _scorers_of(given: Iterable[object], store: str | Path | TraceStore | Literal[False] | None) -> list[Scorer]:
    listed = cast("object", given)
    if isinstance(listed, str | Mapping) or callable(listed) or not isinstance(listed, Iterable):
        return as_scorers(cast("Any", given))  # says what is wrong with it
    made: list[object] = []
    for one in given:
        if isinstance(one, str):
            # Only who names scorers needs their store.
            from otel_scorer.scorers.registry import with_registered

            made += load_scorers(with_registered([one], store=store if isinstance(store, str | Path) else None))
        else:
            made.append(one)
    return [unscheduled(one) for one in as_scorers(made)]


def _start(stack: ExitStack, store: str | Path | TraceStore | None, run_name: str | None) -> tuple[str, StoreWriter]:
    # Only who keeps something needs SQLite.
    from otel_scorer.evaluation.stored import StoreWriter, opened_store

    opened = stack.enter_context(opened_store(store))
    run_id = opened.start_run(run_name)
    return run_id, stack.enter_context(StoreWriter(opened, run_id))


def _choose(selections: Sequence[Selection], item: Item) -> Sequence[Choice]:
    """Return the calls to make on an item."""
    trace = item.open()
    trace_id = "" if trace is None else trace.trace_id
    if item.problem is not None:
        return [one.decide(Outcome.UNPROCESSABLE, trace_id, 1, reason=item.problem) for one in selections]
    evidence = ScorerEvidence(trace, None, item.inputs, item.outputs, _expectations(item))
    revision = 1 if trace is None else trace.revision
    choices: list[Choice] = []
    for selection in selections:
        if selection.is_plain:
            choices.append(Invocation(selection.prepared, evidence, revision, trace_id))
        else:
            choices += _chosen(selection, item)
    return choices


def _chosen(selection: Selection, item: Item) -> Iterable[Choice]:
    """Ask a scorer with a filter or span types; a row without a trace is one span to it."""
    trace = item.view or _as_trace(item)
    for choice in selection.choose(trace, trace_id="" if item.trace is None else trace.trace_id):
        if not isinstance(choice, Decision):
            span = choice.evidence.span
            given = (item.inputs, item.outputs) if span is None else (MISSING, MISSING)
            choice.evidence = ScorerEvidence(item.view, span, given[0], given[1], _expectations(item))
        yield choice


def _as_trace(item: Item) -> Trace:
    from otel_scorer.evaluation.row_traces import row_record

    return trace_from_bytes(row_record(item, 0).spans, b"", default_reader())


def _expectations(item: Item) -> Any:
    """Return what is expected of a row: what it says, and what is attached to its trace beside that."""
    return _expected(item.expectations, item.trace)


def _expected(given: Any, trace: Trace | None) -> Any:
    if given is MISSING or trace is None:
        return given
    attached = trace.search_assessments(type="expectation")
    return {**{each.name: each.value for each in attached}, **given} if attached else given


class _Kept:
    """
    What was said of rows that nobody stores.

    Args:
        source: Where the rows come from.
    """

    def __init__(self, source: Source) -> None:
        self._is_listed = source.is_listed
        self._log = JudgementLog(partial(_evidence, source.recorded))

    def add(self, item: Item, decisions: tuple[Decision, ...]) -> None:
        """Take what was said of a row."""
        trace = item.open()
        if trace is None:
            subject = row_subject(item.position, Evidence, problem=item.error)
        else:
            subject = trace_subject(trace, Evidence, problem=item.error)
        if item.recorded is not None:
            self._log.add(subject, decisions)
            return
        said = {name: value for name in _GIVEN if (value := getattr(item, name)) is not MISSING}
        # Who gave a list of traces has them in memory.
        kept = Held(trace) if item.is_given and self._is_listed else trace
        self._log.add(subject, decisions, kept if isinstance(kept, Held) and not said else (said, kept))

    def judgements(self) -> PagedSequence[Judged]:
        """Return all of it."""
        return self._log.finish()


def _evidence(recorded: Sequence[RecordedTrace], position: int, noted: Any) -> Evidence:
    """Return what verdicts were made from: a trace of a file, or what was noted of a row."""
    if noted is None:
        noted = recorded[position].load()
    said, trace = cast("tuple[dict[str, Any], Trace | None]", noted if isinstance(noted, tuple) else ({}, noted))
    inputs, outputs, given = (said.get(name, MISSING) for name in _GIVEN)
    expected = _expected(given, trace)
    if trace is not None:
        inputs = trace.read("inputs") if inputs is MISSING else inputs
        outputs = trace.read("outputs") if outputs is MISSING else outputs
        if expected is MISSING:
            expected = {each.name: each.value for each in trace.search_assessments(type="expectation")}
    return Evidence(trace, copied(inputs), copied(outputs), None if expected is MISSING else copied(expected) or None)
