"""How the processor in the application treats traces."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

from otel_scorer.encoders.verdict import Explanations
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits
from otel_scorer.pipeline.sidecar.engine import Forwarding
from otel_scorer.pipeline.verdicts.emission import ON_SPAN, Emission, Emit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from otel_scorer.pipeline.verdicts.sinks import VerdictOutlets

__all__ = ["BESIDE_SPANS", "QUEUE_SIZE", "AppOptions", "GivenOptions", "app_options", "emit_kinds", "forwarding_of"]

QUEUE_SIZE: Final = 2048
"""Closed units that may be in scoring, if nobody says; as many as the SDK's queue takes spans."""

# How many spans the SDK's queue must take at once, per span that one trace may release at once.
_ROOM: Final = 2
_LIMITS: Final = frozenset(field.name for field in fields(AssemblyLimits))
# The other numbers may be zero.
_POSITIVE: Final = frozenset({
    "concurrency",
    "max_age",
    "max_traces",
    "max_spans_per_trace",
    "max_bytes_per_trace",
    "max_queue_size",
    "schedule_delay",
})  # fmt: skip
_KNOWN: Final = ", ".join(Emit)
BESIDE_SPANS: Final = frozenset({Emit.LOGS, Emit.METRICS, Emit.NATIVE})
"""These do not go to the exporter of spans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppOptions:
    """
    How the engine treats units. Times in seconds.

    Attributes:
        limits: When units close; see `UnitAssembler`.
        forwarding: What waits for verdicts.
        emission: How verdicts are written.
        hold_deadline: The longest that spans wait once their unit is closed.
        exports_spans: Whether spans are sent at all, or verdicts only.
        queue_size: Closed units that may be in scoring.
        concurrency: Coroutine scorers that run at the same time.
        scorers_change: Whether other scorers may come, so that no unit is passed by for having none.
        export_queue_size: Spans that may wait for export. None: as many as the SDK says.
        schedule_delay: After how long an incomplete batch is exported. None: as the SDK says.
        counts: Whether starts of spans are seen; if not, units close when nothing new has come for a while.
    """

    limits: AssemblyLimits = field(default_factory=AssemblyLimits)
    forwarding: Forwarding = Forwarding.HOLD_ROOT
    emission: Emission = field(default_factory=Emission)
    hold_deadline: float = 5.0
    exports_spans: bool = True
    queue_size: int = QUEUE_SIZE
    concurrency: int = 64
    scorers_change: bool = False
    export_queue_size: int | None = None
    schedule_delay: float | None = None
    counts: bool = True


class GivenOptions(TypedDict, total=False):
    """What a user may say; `ScoringSpanProcessor` documents it."""

    emit: Iterable[str] | None
    forwarding: str
    export_spans: bool
    explanations: str
    concurrency: int
    hold_deadline: float
    root_grace: float
    root_cap: float
    idle_timeout: float
    max_age: float
    max_traces: int
    max_spans_per_trace: int
    max_bytes_per_trace: int
    max_queue_size: int | None
    schedule_delay: float | None


def app_options(given: GivenOptions, *, counts: bool = True, scorers_change: bool = False) -> AppOptions:
    """
    Check what a user says and fill in the rest.

    Raises:
        ValueError: Something cannot be meant, or options contradict each other.
    """
    for name, value in given.items():
        if isinstance(value, int | float) and (value < 0 or (not value and name in _POSITIVE)):
            msg = f"{name} must be positive, got {value!r}"
            raise ValueError(msg)
    exports_spans = given.get("export_spans", True)
    forwarding = forwarding_of(given.get("forwarding", Forwarding.HOLD_ROOT.value))
    limits = AssemblyLimits(**{key: cast("Any", value) for key, value in given.items() if key in _LIMITS})
    queue_size = export_queue_size = given.get("max_queue_size")
    if queue_size is None and forwarding is Forwarding.HOLD_TRACE:
        export_queue_size = _ROOM * limits.max_spans_per_trace
    return AppOptions(
        limits=limits,
        forwarding=forwarding,
        emission=Emission(
            emit_kinds(given.get("emit"), export_spans=exports_spans), Explanations(given.get("explanations", "full"))
        ),
        hold_deadline=given.get("hold_deadline", 5.0),
        exports_spans=exports_spans,
        queue_size=queue_size or QUEUE_SIZE,
        concurrency=given.get("concurrency", 64),
        scorers_change=scorers_change,
        export_queue_size=export_queue_size,
        schedule_delay=given.get("schedule_delay"),
        counts=counts,
    )


def emit_kinds(emit: Iterable[str] | None, *, export_spans: bool) -> frozenset[Emit]:
    """
    Return what verdicts are written as.

    Raises:
        ValueError: A kind is unknown, there is none, or it needs spans that somebody else exports.
    """
    if emit is None:
        return ON_SPAN if export_spans else frozenset({Emit.EVALUATION_SPAN})
    names = [emit] if isinstance(emit, str) else list(emit)
    for name in names:
        if name not in set(Emit):
            msg = f"emit={name!r} is unknown; there are {_KNOWN}"
            raise ValueError(msg)
    kinds = frozenset(map(Emit, names))
    if not kinds:
        msg = f"emit is empty, so no verdict would go anywhere; there are {_KNOWN}"
        raise ValueError(msg)
    if not export_spans and kinds & ON_SPAN:
        msg = (
            f"emit={', '.join(sorted(kinds & ON_SPAN))} writes on spans, and with export_spans=False somebody else "
            "exports them: use emit=('evaluation_span',), or let ScoringSpanProcessor export the spans itself"
        )
        raise ValueError(msg)
    return kinds


def outlets_of(
    options: AppOptions, make: Callable[[Collection[str]], VerdictOutlets]
) -> Callable[[], VerdictOutlets] | None:
    """Return what makes the outlets for the verdicts that go beside spans; None if none do."""
    beside = options.emission.emit & BESIDE_SPANS
    return partial(make, beside) if beside else None


def forwarding_of(name: str) -> Forwarding:
    """
    Return what waits for verdicts.

    Raises:
        ValueError: There is no such mode.
    """
    if name not in set(Forwarding):
        msg = f"forwarding={name!r} is unknown; there are {', '.join(Forwarding)}"
        raise ValueError(msg)
    return Forwarding(name)
