"""
Forwards requests to every destination: a bounded queue and a sending thread for each kind of data at each of them.

A thread takes all that has gathered while it was busy and joins it into one request, so nothing waits for company and
nothing is sent in more requests than needed. Encoded requests are joined by concatenation, protobuf's way to merge.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry import context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS  # pyright: ignore[reportPrivateUsage]

from otel_scorer.errors import QueueFullError
from otel_scorer.telemetry import Measured, record
from otel_scorer.transport.countdown import call_after
from otel_scorer.transport.delivery import Delivery, Stopping
from otel_scorer.transport.endpoints import Lane
from otel_scorer.transport.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from otel_scorer.transport.endpoints import Destination
    from otel_scorer.transport.exchange import Sender

__all__ = ["Forwarder"]

_QUEUE_SIZE: Final = 256 << 20
# The default limit of gRPC servers, before decompression.
_REQUEST_SIZE: Final = 4 << 20
_TIMEOUT: Final = 10.0
# More bytes than this in a queue make receivers wait, this long (seconds), unless nothing has been sent for so long.
_COMFORT: Final = 12 << 20
_PATIENCE: Final = 0.05
_STALLED: Final = 0.5
# For requests that were interrupted by closing their connection.
_LAST_WORDS: Final = 0.5


class Forwarder:
    """
    Sends what it is offered to all destinations, each at its own pace.

    Args:
        destinations: Each gets everything, less the lanes it does not take.
        retry: What to do about failures that may pass.
        queue_size: Bytes waiting or on the way, for each destination and lane.
        request_size: Bytes of a request, before compression; larger ones are cut.
        timeout: Seconds for one attempt.
        clock: Monotonic seconds.
        sleep: Waits before a retry, instead of in real time.
        is_spooled: What is not sent at shutdown is not lost: it is offered again after the next start.
    """

    def __init__(
        self,
        destinations: Sequence[Destination],
        *,
        retry: RetryPolicy | None = None,
        queue_size: int = _QUEUE_SIZE,
        request_size: int = _REQUEST_SIZE,
        timeout: float = _TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
        is_spooled: bool = False,
    ) -> None:
        self._lock = threading.Lock()  # guards all queues: an offer goes to all of them or to none
        self._room = threading.Condition(self._lock)
        self._stopping = Stopping(clock, is_spooled=is_spooled)
        self._senders: list[Sender] = []
        queues: dict[Lane, list[_Queue]] = {lane: [] for lane in Lane}
        for destination in destinations:
            for lane, sender in destination.senders.items():
                delivery = Delivery(
                    sender,
                    lane,
                    destination.name,
                    retry=destination.retry or retry or RetryPolicy(),
                    timeout=destination.timeout or timeout,
                    request_size=destination.request_size or request_size,
                    dead_letters=destination.dead_letters,
                    stopping=self._stopping,
                    clock=clock,
                    sleep=sleep,
                )
                name = f"{destination.name}-{lane}"
                queue = _Queue(
                    name,
                    delivery,
                    limit=destination.queue_size or queue_size,
                    request_size=destination.request_size or request_size,
                    stopping=self._stopping,
                    lock=self._lock,
                    room=self._room,
                    clock=clock,
                )
                queues[lane].append(queue)
                if sender not in self._senders:
                    self._senders.append(sender)
        self._queues = {lane: tuple(found) for lane, found in queues.items()}

    def destinations(self, lane: Lane) -> int:
        """Return how many destinations want this kind of data."""
        return len(self._queues[lane])

    def takes(self, lane: Lane) -> bool:
        """Return whether any destination wants this kind of data."""
        return bool(self._queues[lane])

    def start(self) -> None:
        """Start sending."""
        for queue in self._all():
            queue.start()

    def has_room(self, lane: Lane, size: int) -> bool:
        """Return whether every destination has room for `size` bytes more."""
        with self._lock:
            return all(queue.has_room(size) for queue in self._queues[lane])

    def check_room(self, lane: Lane, size: int) -> None:
        """
        Ask before admitting a request whose parts will be offered later, as admitted.

        Raises:
            QueueFullError: A destination has no room for `size` bytes more, or the forwarder was shut down.
        """
        with self._lock:
            self._refuse_if_full(lane, size)
            # A backend that keeps taking gets the time to: memory that is used again costs less than memory that is
            # new, and the client that waits a moment now will not be refused later.
            self._room.wait_for(lambda: not any(queue.is_behind() for queue in self._queues[lane]), _PATIENCE)

    def offer(
        self,
        lane: Lane,
        data: bytes,
        items: int,
        *,
        admitted: bool = False,
        since: Sequence[float] = (),
        done: Callable[[], None] | None = None,
        taken: Callable[[str], None] | None = None,
        without: Collection[str] = (),
    ) -> None:
        """
        Queue an encoded request at every destination, or at none; never waits.

        Scores are the exception: a destination without room goes without, counted, as nobody could send them again.

        Args:
            lane: What it holds.
            data: The encoded Export*ServiceRequest; not copied.
            items: How many spans, log records or metrics are in it.
            admitted: The client was told that we have it (see `check_room`): it must not be refused any more.
            since: When the traces ended that verdicts in it are about, in seconds of `clock`: how long that was ago is
                recorded for each when the request was taken.
            done: Called once every destination has taken it or lost it for good, on whatever thread that is; never if
                it is left at shutdown.
            taken: Called for each of several destinations, before that, with the name of one that has.
            without: Names of destinations that have it already.

        Raises:
            QueueFullError: A destination has no room, or the forwarder was shut down. The client should try again.
        """
        queues = self._queues[lane]
        if without:
            queues = tuple(queue for queue in queues if queue.delivery.destination not in without)
        if done is not None:
            done = call_after(len(queues) if items else 0, done)
        if not items:
            return
        with self._lock:
            if not lane.is_about_scores and not admitted:
                self._refuse_if_full(lane, len(data))
            over = self._stopping.expired.is_set()
            left_out = [queue for queue in queues if over or not (admitted or queue.has_room(len(data)))]
            for queue in queues:
                if queue not in left_out:
                    each = done
                    if done is not None and taken is not None and len(queues) > 1:
                        each = partial(_tell, taken, queue.delivery.destination, done)
                    queue.put(_Request(data, items, since, each))
        for queue in left_out:
            queue.delivery.drop(data, items, "shutdown" if over else "queue_full")
            if done is not None and not over:
                done()

    def gauges(self) -> list[Measured]:
        """Return what waits for each destination, by kind of data."""
        with self._lock:
            return [measured for queue in self._all() for measured in queue.gauges()]

    def flush(self, timeout: float) -> bool:
        """Wait until nothing waits or is on its way, for `timeout` seconds at most, and return whether that is so."""
        with self._lock:
            return self._room.wait_for(lambda: not any(queue.is_busy for queue in self._all()), max(0.0, timeout))

    def shutdown(self, timeout: float) -> bool:
        """
        Send what is queued, for `timeout` seconds at most, then close the connections. Safe to call twice.

        Returns:
            Whether nothing was left; what was left is counted as dropped.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._stopping.begin(timeout)
            for queue in self._all():
                queue.ready.notify_all()
        for queue in self._all():
            queue.join(deadline - time.monotonic())
        self._stopping.expired.set()
        for sender in self._senders:
            sender.close()
        deadline = time.monotonic() + _LAST_WORDS
        left = [queue.abandon(deadline - time.monotonic()) for queue in self._all()]
        return not any(left)

    def _refuse_if_full(self, lane: Lane, size: int) -> None:
        """Under the lock."""
        if self._stopping.closing.is_set():
            raise QueueFullError("The forwarder is shut down")
        for queue in self._queues[lane]:
            if not queue.has_room(size):
                raise QueueFullError(f"The queue to {queue.name} is full")

    def _all(self) -> list[_Queue]:
        return [queue for queues in self._queues.values() for queue in queues]


class _Queue:
    """What waits for one delivery, and the thread that takes it there. `lock` is held by callers where it says so."""

    def __init__(
        self,
        name: str,
        delivery: Delivery,
        *,
        limit: int,
        request_size: int,
        stopping: Stopping,
        lock: threading.Lock,
        room: threading.Condition,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.delivery = delivery
        self.ready = threading.Condition(lock)
        self._room = room
        self._clock = clock
        self._progress = 0.0
        self._limit = limit
        self._request_size = request_size
        self._stopping = stopping
        self._waiting: deque[_Request] = deque()
        self._size = 0
        self._thread = threading.Thread(target=self._run, name=f"otel-scorer-forward-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def has_room(self, size: int) -> bool:
        """Return whether `size` bytes more fit; one request always does, however large. Under the lock."""
        return not self._size or self._size + size <= self._limit

    @property
    def is_busy(self) -> bool:
        """Whether anything waits or is on its way. Under the lock."""
        return self._size > 0

    def is_behind(self) -> bool:
        """Return whether more waits than keeps the thread busy, while it does get rid of it. Under the lock."""
        return self._size > _COMFORT and self._clock() - self._progress < _STALLED

    def gauges(self) -> Sequence[Measured]:
        """Return how much waits here. Under the lock."""
        attributes = (("destination", self.delivery.destination), ("lane", self.delivery.lane.value))
        return (
            Measured("forwarder.queue_requests", len(self._waiting), attributes),
            Measured("forwarder.queue_size", self._size, attributes),
            Measured("forwarder.queue_capacity", self._limit, attributes),
        )

    def put(self, request: _Request) -> None:
        """Append a request. Under the lock."""
        self._waiting.append(request)
        self._size += len(request.data)
        self.ready.notify()

    def join(self, timeout: float) -> None:
        """Wait for the thread to have sent everything, once stopping has begun."""
        if self._thread.is_alive():
            self._thread.join(max(0.0, timeout))

    def abandon(self, timeout: float) -> bool:
        """Drop what is still here, and return whether anything was dropped for want of time."""
        self.join(timeout)
        with self.ready:
            waiting = [(request.data, request.items) for request in self._waiting]
            self._waiting.clear()
        left = [*self.delivery.abandon(), *waiting]
        self.delivery.leave(left)
        return bool(left) or self.delivery.gave_up

    def _run(self) -> None:
        # A process that traces its own gRPC and HTTP calls must not trace those that carry traces.
        context.attach(context.set_value(SUPPRESS, True))  # noqa: FBT003 - the value instrumentations look for
        while (batch := self._take()) is not None:
            data, items, since, dones = batch
            if self.delivery.deliver(data, items) and since:
                now = self._clock()
                delays = [now - each for each in since]
                record("scoring.delay", delays, destination=self.delivery.destination)
            with self.ready:
                self._size -= len(data)
                self._progress = self._clock()
                self._room.notify_all()
            if not self.delivery.gave_up:
                for done in dones:
                    done()

    def _take(self) -> tuple[bytes, int, Sequence[float], Sequence[Callable[[], None]]] | None:
        """Wait for requests and return as many as fit in one; None when there will be no more."""
        with self.ready:
            while not self._waiting:
                if self._stopping.closing.is_set():
                    return None
                self.ready.wait()
            if self._stopping.expired.is_set():
                return None
            parts: list[bytes] = []
            ends: list[float] = []
            dones: list[Callable[[], None]] = []
            size = items = 0
            while self._waiting and (not parts or size + len(self._waiting[0].data) <= self._request_size):
                data, count, since, done = self._waiting.popleft()
                parts.append(data)
                ends += since
                size += len(data)
                items += count
                if done is not None:
                    dones.append(done)
        return (parts[0] if len(parts) == 1 else b"".join(parts)), items, ends, dones


def _tell(taken: Callable[[str], None], destination: str, done: Callable[[], None]) -> None:
    taken(destination)
    done()


class _Request(NamedTuple):
    """What waits for one delivery; see `Forwarder.offer`."""

    data: bytes
    items: int
    since: Sequence[float]
    done: Callable[[], None] | None
