"""
Who still needs which spooled request: spans of it that wait for a decision, and parts of it that are being forwarded.

No thread, no lock, no clock: whoever shares a tracker guards it, and passes the time.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_scorer.stores.spool_rows import span_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from otel_scorer.model.log_records import RawLog
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import ClosedTrace
    from otel_scorer.stores.spool_rows import Changes, SpooledRequest

__all__ = ["RequestTracker", "Waiting", "undecided"]

_NOTHING: Final[tuple[int, ...]] = ()

Waiting: TypeAlias = list[tuple[bytes, list[int]]]
"""Of a closed trace: for each of its keys the requests that its spans came in."""


class _Request:
    """Counts what a request waits for; `pins` are for whoever is not done looking at it."""

    __slots__ = ("apart", "forwards", "is_gone", "is_marked", "late", "offers", "parts", "pins", "taken", "with_it")

    def __init__(self) -> None:
        self.parts = 0
        self.forwards = 0
        # How many parts were to be forwarded, and how many of them each destination has that is not the last one.
        self.offers = 0
        self.taken: dict[str, int] | None = None
        self.pins = 1
        # Whether it is noted that all of it was forwarded, or nothing had to be.
        self.is_marked = True
        self.is_gone = False
        # Keys of spans that are forwarded at once: with others under such a key it cannot be noted what is decided.
        self.apart: frozenset[bytes] = frozenset()
        # Of those of them that do not wait with their trace: what each is known by once it is forwarded.
        self.late: frozenset[bytes] = frozenset()
        # Requests with spans that are forwarded with this one, and what those are known by.
        self.with_it: list[tuple[int, bytes]] = []


class RequestTracker:
    """
    Knows requests by id, from `begin` until `forget`.

    Spans and log records are known by a key: the id of their trace; where units of traces are assembled, that and
    their own id.

    Args:
        by_unit: Whether units of traces are assembled.
        changes: What is to be written is noted there; the owner replaces it when it writes.
    """

    def __init__(self, changes: Changes, *, by_unit: bool) -> None:
        self.changes = changes
        self._by_unit = by_unit
        self._requests: dict[int, _Request] = {}
        # By key of what is buffered: the requests that it came in.
        self._buffered: dict[bytes, list[int]] = {}
        # By identity of a closed trace: for each of its keys the requests. The engine holds the trace meanwhile.
        self._closed: dict[int, Waiting] = {}
        # The same lists, by key.
        self._undecided: dict[bytes, list[int]] = {}
        # Log records that wait for their trace, by key, and until when.
        self._early: dict[bytes, list[int]] = {}
        self._early_until: deque[tuple[float, bytes]] = deque()

    def __contains__(self, number: int) -> bool:
        return number in self._requests

    def key(self, item: RawSpan | RawLog) -> bytes:
        """Return what a span or a log record is known by."""
        return item.trace_id + item.span_id if self._by_unit else item.trace_id

    def begin(self, number: int) -> None:
        """Know a request from now on; it is pinned until `unpin`."""
        self._requests[number] = _Request()

    def unpin(self, numbers: Iterable[int]) -> None:
        """Say that everything about requests has been said that there was to say for now."""
        for number in numbers:
            request = self._requests.get(number)
            if request is not None:
                request.pins -= 1
                self._settle(number, request)

    def drop(self, number: int) -> None:
        """Have a request deleted that nothing can be done with."""
        self._requests[number].is_gone = True
        self.changes.finished.append(number)

    def forget(self, numbers: Iterable[int]) -> None:
        """Know requests no longer: they are deleted."""
        for number in numbers:
            self._requests.pop(number, None)

    def buffer(
        self,
        number: int,
        spans: Collection[RawSpan],
        apart: Collection[RawSpan] = (),
        forwarded: frozenset[bytes] = frozenset(),
    ) -> None:
        """
        Note that spans of a request wait for a decision, while others are forwarded at once.

        Args:
            number: The request.
            spans: Those that wait.
            apart: The others.
            forwarded: Keys of those that were before; see `SpooledRequest.apart`.
        """
        request = self._requests[number]
        if apart:
            request.apart = frozenset(map(self.key, apart))
            # One that waits may share the key: then nothing can be said.
            request.late = frozenset(map(span_key, apart)).difference(map(span_key, spans), forwarded)
        for key in {self.key(span) for span in spans}:
            self._buffered.setdefault(key, []).append(number)
            request.parts += 1
            if self._early and (early := self._early.pop(key, None)) is not None:
                self._buffered[key] += early

    def attach(self, number: int, spans: Iterable[RawSpan]) -> None:
        """Note that late spans, or our own, wait with their trace, which is open, or closed and undecided."""
        request = self._requests[number]
        by_key: dict[bytes, list[bytes]] = {}
        for span in spans:
            by_key.setdefault(self.key(span), []).append(span_key(span))
        for key, found in by_key.items():
            waiting = self._buffered.get(key) or self._undecided.get(key)
            if waiting is not None:
                waiting.append(number)
                request.parts += 1
                request.late = request.late.difference(found)

    def buffer_early(self, number: int, records: Iterable[RawLog], until: float) -> None:
        """Note that log records wait with their trace, or so long for it."""
        request = self._requests[number]
        for key in {self.key(record) for record in records}:
            request.parts += 1
            if key in self._buffered:
                self._buffered[key].append(number)
                continue
            self._early.setdefault(key, []).append(number)
            self._early_until.append((until, key))

    def expire(self, now: float) -> None:
        """Give up on log records whose trace has not come."""
        while self._early_until and self._early_until[0][0] <= now:
            _, key = self._early_until.popleft()
            for number in self._early.pop(key, _NOTHING):
                self._part_done(number)

    def give_up(self, number: int, spans: Iterable[RawSpan]) -> None:
        """Note that spans which waited are forwarded with another request now, without a decision."""
        with_it = self._requests[number].with_it
        for span in spans:
            with_it += [(other, span_key(span)) for other in self._buffered.pop(self.key(span), _NOTHING)]

    def forward(self, number: int) -> None:
        """Note that a part of a request is being forwarded."""
        request = self._requests[number]
        request.forwards += 1
        request.offers += 1
        request.is_marked = False

    def take_part(self, number: int, destination: str) -> None:
        """Note that a destination has a part of a request that is being forwarded to others, too."""
        request = self._requests.get(number)
        if request is not None:
            if request.taken is None:
                request.taken = {}
            request.taken[destination] = request.taken.get(destination, 0) + 1

    def has_all(self, number: int, destination: str) -> bool | None:
        """Return whether a destination has all parts of a request, and others have not; None: more may come."""
        request = self._requests.get(number)
        if request is None or not request.forwards or request.taken is None:
            return False
        return None if request.pins else request.taken.get(destination) == request.offers

    def forwarded(self, number: int) -> bool:
        """Note that a part of a request has been forwarded to everybody, and return whether all parts have."""
        request = self._requests.get(number)
        if request is None:
            return True
        request.forwards -= 1
        self._settle(number, request)
        return not request.forwards

    def close(self, trace: ClosedTrace[RawSpan]) -> None:
        """Note that a trace is closed: what comes under its keys from now on is not part of it."""
        keys = [self.key(span) for span in trace.spans] if self._by_unit else [trace.trace_id]
        found = [(key, rows) for key in keys if (rows := self._buffered.pop(key, None)) is not None]
        if found:
            self._closed[id(trace)] = found
            self._undecided.update(found)

    def take(self, trace: ClosedTrace[RawSpan]) -> Waiting:
        """Return what waits for a trace that was closed, to `decide` about it soon: nothing more comes for it."""
        found = self._closed.pop(id(trace), [])
        for key, _ in found:
            self._undecided.pop(key, None)
        return found

    def decide(self, waiting: Waiting, changes: Changes) -> list[int]:
        """
        Note what follows from a trace being decided, and return requests that are pinned until that is written.

        Args:
            waiting: What waits for it.
            changes: Where it is noted.
        """
        pinned: list[int] = []
        for key, numbers in waiting:
            for number in numbers:
                request = self._requests.get(number)
                if request is not None:
                    request.parts -= 1
                    request.pins += 1
                    pinned.append(number)
                    if key not in request.apart:
                        changes.decided.setdefault(number, []).append(key)
        return pinned

    def finish(self, pinned: Iterable[int], changes: Changes) -> None:
        """Turn marks into deletions: of pinned requests that are needed by nobody, once this is written."""
        for number in set(pinned):
            request = self._requests[number]
            if not request.parts and not request.forwards and not request.with_it and not request.is_gone:
                request.is_gone = True
                changes.finished.append(number)
        for number in changes.finished:
            changes.decided.pop(number, None)

    def _part_done(self, number: int) -> None:
        request = self._requests.get(number)
        if request is not None:
            request.parts -= 1
            self._settle(number, request)

    def _settle(self, number: int, request: _Request) -> None:
        if request.pins or request.is_gone:
            return
        if not request.forwards and request.with_it:
            with_it, request.with_it = request.with_it, []
            for other, key in with_it:
                self._part_done(other)
                if other in self._requests and not self._requests[other].is_gone:
                    self.changes.apart.setdefault(other, []).append(key)
        if not request.parts and not request.forwards:
            request.is_gone = True
            self.changes.finished.append(number)
        elif not request.forwards and not request.is_marked:
            request.is_marked = True
            self.changes.forwarded.append(number)
            if request.late:
                self.changes.apart.setdefault(number, []).extend(request.late)
                request.late = frozenset()


def undecided(request: SpooledRequest, spans: Sequence[RawSpan]) -> Sequence[RawSpan]:
    """Return the spans of a request that are not decided yet."""
    done = request.decided
    if not done:
        return spans
    return [span for span in spans if span.trace_id not in done and span.trace_id + span.span_id not in done]
