"""What is written to a spool at once: things to be sent, and which traces are decided with them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_scorer.errors import StoreError
from otel_scorer.stores.spool_rows import Changes

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Sequence

    from otel_scorer.pipeline.spool.tracking import Waiting
    from otel_scorer.stores.spool import Spool
    from otel_scorer.stores.spool_rows import Outgoing
    from otel_scorer.transport.log_limit import LogLimit

__all__ = ["Batch", "Decided", "commit_patiently"]

logger = logging.getLogger(__name__)

# Seconds between two tries to write what cannot be written.
_PAUSE: Final = 0.5


class Decided(NamedTuple):
    """
    What is known of a trace that is decided.

    Attributes:
        waiting: Which requests wait for it.
        name: What late spans are to know it by; see `ClosedTraces.restore`.
        done: What need not be written down of it any longer.
    """

    waiting: Waiting
    name: bytes
    done: list[bytes]


@dataclass(slots=True)
class Batch:
    """
    Collects until it is written.

    Attributes:
        changes: What is written.
        since: For each thing to be sent when the traces ended that it is about.
        decided: What waited for the traces that are decided.
    """

    changes: Changes = field(default_factory=Changes)
    since: list[Sequence[float]] = field(default_factory=list["Sequence[float]"])
    decided: list[Waiting] = field(default_factory=list["Waiting"])

    def decide(self, traces: Iterable[Decided]) -> None:
        """Note that everything about traces is decided, and what there is to send is here."""
        for waiting, name, done in traces:
            self.decided.append(waiting)
            self.changes.closed.append(name)
            self.changes.done += done
            for key in done:
                self.changes.partly.pop(key, None)


def commit_patiently(
    spool: Spool,
    changes: Changes,
    prepare: Callable[[], None],
    draining: threading.Event,
    log_limit: LogLimit,
) -> list[Outgoing] | None:
    """
    Write changes, however long that takes, and return what is to be sent.

    Args:
        spool: Where to.
        changes: What.
        prepare: Called before each try: may make room.
        draining: Set when there is no time to wait any more.
        log_limit: How often it is said that it does not work.

    Returns:
        What is to be sent, with ids; None if it could not be written while there was time.
    """
    while True:
        prepare()
        try:
            return spool.commit(changes)
        except StoreError as error:
            if log_limit.allows("verdicts"):
                logger.warning("Verdicts wait to be written down: %s", error)
        if draining.is_set():
            logger.error("Verdicts cannot be written down: their traces are scored again after the next start")
            return None
        draining.wait(_PAUSE)
