"""
What otel_scorer measures about itself: every self-metric in one table, functions to count and to read.

Counting is cheap (one lock, one dict) and never fails on the data path; a name that is not in a table is a bug and
raises. Counters and histograms are per process and only grow; gauges are asked of who owns them when somebody reads.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "COUNTERS",
    "GAUGES",
    "HISTOGRAMS",
    "Counter",
    "Distribution",
    "Gauge",
    "Histogram",
    "Measured",
    "count",
    "counters",
    "distributions",
    "record",
    "snapshot",
]


@dataclass(frozen=True, slots=True)
class Counter:
    """One self-metric. `unit` is UCUM; `attributes` names what it is split by."""

    unit: str
    description: str
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gauge(Counter):
    """A self-metric that goes up and down."""


# Seconds, from a scorer that adds up spans to one that asks a slow model twice.
_SECONDS: Final = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class Histogram(Counter):
    """A self-metric of which the distribution counts. `bounds` are upper limits of its buckets, themselves included."""

    bounds: tuple[float, ...] = _SECONDS


class Distribution(NamedTuple):
    """What a histogram holds: how many values fell under each bound and beyond the last one, and their sum."""

    counts: tuple[int, ...]
    total: float


class Measured(NamedTuple):
    """A gauge as its owner reads it; `attributes` as in the table."""

    name: str
    value: int
    attributes: tuple[tuple[str, str], ...] = ()


COUNTERS: Final[dict[str, Counter]] = {
    "receiver.requests": Counter(
        "{request}", "Requests answered, by signal, protocol and outcome", ("signal", "protocol", "outcome")
    ),
    "receiver.handshakes_failed": Counter(
        "{connection}", "TLS connections that did not come about (OTLP/HTTP; gRPC does not tell)", ("protocol",)
    ),
    "files.reloads": Counter(
        "{reload}", "Times that certificates or credentials had changed on disk, by outcome", ("what", "outcome")
    ),
    "receiver.spans_accepted": Counter("{span}", "Spans admitted"),
    "receiver.spans_rejected": Counter("{span}", "Spans refused as unusable (partial success)", ("reason",)),
    "json.snake_case_keys": Counter(
        "{key}", "OTLP/JSON keys written in snake_case, accepted against the letter of OTLP"
    ),
    "assembler.spans": Counter("{span}", "Spans buffered for scoring"),
    "assembler.duplicates": Counter("{span}", "Spans received again, byte for byte the same"),
    "assembler.conflicts": Counter("{span}", "Spans received again with other contents; the first one was kept"),
    "assembler.late_spans": Counter("{span}", "Spans that came after their trace was closed", ("policy",)),
    "assembler.late_span_age": Counter(
        "{span}", "Late spans, by the time that had passed since their trace was closed", ("under",)
    ),
    "assembler.rescoring_given_up": Counter(
        "{trace}", "Scored traces that late spans can no longer have scored again, for want of memory"
    ),
    "assembler.own_spans": Counter("{span}", "Evaluation spans of otel_scorer that passed through"),
    "assembler.log_records": Counter("{record}", "Log records about spans, buffered for scoring"),
    "assembler.duplicate_log_records": Counter("{record}", "Log records about spans that came again"),
    "assembler.late_log_records": Counter("{record}", "Log records that came after their trace was closed"),
    "assembler.log_records_dropped": Counter(
        "{record}", "Log records about spans that scorers will not see; they were forwarded all the same", ("reason",)
    ),
    "assembler.closed": Counter("{trace}", "Traces closed, by close reason", ("reason",)),
    "memory.exceeded": Counter("{time}", "Times that a limit of the memory was exceeded", ("level",)),
    "dialects.failures": Counter("{failure}", "Values that a dialect of a plugin failed to read", ("dialect",)),
    "scoring.decisions": Counter("{decision}", "Decisions, by scorer and outcome", ("scorer", "outcome")),
    "scoring.reloads": Counter("{reload}", "Times that other scorers were to be taken, by outcome", ("outcome",)),
    "scoring.worker_restarts": Counter("{restart}", "Scorer worker processes replaced", ("reason",)),
    "encoder.verdicts": Counter("{verdict}", "Verdicts sent, by encoding", ("encoding",)),
    "encoder.truncated": Counter("{value}", "Texts cut to their size limit", ("field",)),
    "encoder.unknown_targets": Counter(
        "{verdict}", "Verdicts about a span that is not in the trace; they go to the span that stands for it"
    ),
    "encoder.verdicts_dropped": Counter(
        "{verdict}", "Verdicts that cannot be sent: no span to ride on, no outlet open", ("reason",)
    ),
    "store.traces": Counter("{trace}", "Scored traces that were kept in the store"),
    "store.traces_dropped": Counter("{trace}", "Scored traces that were not kept", ("reason",)),
    "store.traces_pruned": Counter("{trace}", "Kept traces that were deleted to make room"),
    "keeping.traces": Counter("{trace}", "Traces, by what the rule for keeping them said", ("outcome",)),
    "keeping.spans_dropped": Counter(
        "{span}", "Spans that went nowhere, as their trace was not to be kept", ("reason",)
    ),
    "keeping.spans_taken_back": Counter(
        "{span}", "Of these, spans that were sent after all: their trace was kept when it was scored again"
    ),
    "spool.refused": Counter(
        "{request}", "Requests refused because they could not be written to the spool", ("reason",)
    ),
    "spool.replayed": Counter("{request}", "Requests and outgoing data taken up again from the spool", ("what",)),
    "spool.dropped": Counter(
        "{item}", "Requests and outgoing data of the spool that can no longer be used", ("reason",)
    ),
    "spool.damaged": Counter("{item}", "Files and rows of the spool that were found damaged", ("what",)),
    "holding.released": Counter("{trace}", "Held traces let go, by reason", ("reason",)),
    "forwarder.sent": Counter(
        "{item}", "Spans, scores, log records and metrics that a backend took", ("lane", "destination")
    ),
    "forwarder.retries": Counter("{request}", "Requests that will be sent again", ("lane", "destination", "code")),
    "forwarder.dropped": Counter("{item}", "Items lost on the way to a backend", ("lane", "destination", "reason")),
    "forwarder.rejected": Counter(
        "{item}", "Items that a backend refused in a partial success", ("lane", "destination")
    ),
    "forwarder.without_verdicts": Counter(
        "{span}", "Spans that a backend refused with verdicts on them and that were sent without", ("destination",)
    ),
    "telemetry.pushes": Counter("{request}", "Times that these metrics were to be sent as OTLP", ("outcome",)),
    "native.sent": Counter("{score}", "Scores that a backend took over its own API", ("destination",)),
    "native.retries": Counter(
        "{score}", "Scores and requests that will be sent again, over the API of a backend", ("destination", "code")
    ),
    "native.dropped": Counter(
        "{score}", "Scores given up on the way to the API of a backend", ("destination", "reason")
    ),
    "native.left_out": Counter(
        "{score}", "Errors and empty verdicts that a backend has no place for", ("destination",)
    ),
    "dead_letters.lost": Counter(
        "{item}", "Items given up that are not in the file of dead letters either", ("reason",)
    ),
    "processor.exported": Counter("{span}", "Spans and verdicts that the in-app processor's exporter took"),
    "processor.dropped": Counter("{span}", "Spans that the in-app processor did not export", ("reason",)),
    "processor.errors": Counter(
        "{error}", "Failures of the in-app processor that the application was spared", ("where",)
    ),
    "processor.warnings": Counter("{warning}", "What the in-app processor warned of", ("reason",)),
}

GAUGES: Final[dict[str, Gauge]] = {
    "assembler.open_traces": Gauge("{trace}", "Traces that wait for more spans"),
    "assembler.open_size": Gauge("By", "Memory that their spans and log records are worth"),
    "assembler.kept_size": Gauge("By", "Memory of scored traces that late spans may have scored again"),
    "memory.used": Gauge("By", "Memory that the process and its scorer workers have, in use or not"),
    "memory.limit": Gauge(
        "By", "Memory over which requests are refused (soft) and traces are scored early", ("level",)
    ),
    "scoring.open_traces": Gauge("{trace}", "Closed traces that are not decided completely"),
    "scoring.queue_traces": Gauge("{trace}", "Of these, traces that no scorer worker has been given yet"),
    "scoring.queue_size": Gauge("By", "Spans that scorer workers have not decided about"),
    "spool.size": Gauge("By", "What is in the spool"),
    "spool.capacity": Gauge("By", "What may be in the spool"),
    "spool.open": Gauge("1", "Whether the spool can be used: 0 while a damaged file cannot be replaced"),
    "spool.requests": Gauge("{request}", "Requests in the spool: not forwarded, or not decided, completely"),
    "spool.outgoing": Gauge("{request}", "Verdicts, and spans that waited for them, in the spool: not sent yet"),
    "spool.backlog": Gauge("{request}", "Of both, what waits on disk alone, about: there is no room for it in memory"),
    "forwarder.queue_requests": Gauge("{request}", "Requests that wait for a backend", ("lane", "destination")),
    "forwarder.queue_size": Gauge("By", "Bytes that wait for a backend or are on the way", ("lane", "destination")),
    "forwarder.queue_capacity": Gauge("By", "Bytes that may wait for a backend", ("lane", "destination")),
}

HISTOGRAMS: Final[dict[str, Histogram]] = {
    "spool.commit_duration": Histogram("s", "Time from asking for something to be written to the spool until it was"),
    "scoring.duration": Histogram("s", "Time that a call of a scorer took", ("scorer", "outcome")),
    "scoring.delay": Histogram(
        "s",
        "From the arrival of the last span of a trace until a backend took the first verdicts about it on spans",
        ("destination",),
    ),
}

_Attributes = tuple[tuple[str, str], ...]

# Guards both tables of values. Reentrant: a signal handler or a destructor may come in between on the same thread.
_lock = threading.RLock()
_values: dict[tuple[str, _Attributes], int] = {}
_distributions: dict[tuple[str, _Attributes], tuple[list[int], float]] = {}


def _after_fork_in_child() -> None:
    """Start from zero; another thread of the parent may have held the lock."""
    global _lock  # noqa: PLW0603 - a lock that nobody will give back can only be replaced
    _lock = threading.RLock()
    _values.clear()
    _distributions.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def count(name: str, amount: int = 1, **attributes: str) -> None:
    """
    Add to a counter.

    Args:
        name: A key of `COUNTERS`.
        amount: How many; zero is fine and leaves no trace.
        attributes: What it is split by; exactly the attributes of the table.

    Raises:
        KeyError: The table has no such counter.
    """
    if name not in COUNTERS:
        raise KeyError(name)
    if not amount:
        return
    key = (name, tuple(sorted(attributes.items())))
    with _lock:
        _values[key] = _values.get(key, 0) + amount


def record(name: str, values: Iterable[float], **attributes: str) -> None:
    """
    Add values to a histogram.

    Args:
        name: A key of `HISTOGRAMS`.
        values: Any number of them, none included.
        attributes: What it is split by; exactly the attributes of the table.

    Raises:
        KeyError: The table has no such histogram.
    """
    bounds = HISTOGRAMS[name].bounds
    key = (name, tuple(sorted(attributes.items())))
    with _lock:
        counts, total = _distributions.get(key) or ([0] * (len(bounds) + 1), 0.0)
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        if any(counts):
            _distributions[key] = counts, total


def counters() -> list[tuple[str, _Attributes, int]]:
    """Return every counter that has counted: name, what it is split by, total; sorted."""
    with _lock:
        items = sorted(_values.items())
    return [(name, attributes, total) for (name, attributes), total in items]


def distributions() -> list[tuple[str, _Attributes, Distribution]]:
    """Return every histogram that has values: name, what it is split by, distribution; sorted."""
    with _lock:
        items = [(key, Distribution(tuple(counts), total)) for key, (counts, total) in _distributions.items()]
    return [(name, attributes, found) for (name, attributes), found in sorted(items)]


def snapshot() -> dict[str, int]:
    """Return every counter that has counted, as `name{key=value,...}` -> total, sorted."""
    return {_label(name, attributes): total for name, attributes, total in counters()}


def _label(name: str, attributes: _Attributes) -> str:
    if not attributes:
        return name
    return f"{name}{{{','.join(f'{key}={value}' for key, value in attributes)}}}"
