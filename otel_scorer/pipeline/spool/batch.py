"""What is written to a spool at once: things to be sent, and which traces are decided with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from otel_scorer.stores.spool_rows import Changes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_scorer.pipeline.spool.tracking import Waiting

__all__ = ["Batch", "Decided"]


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
