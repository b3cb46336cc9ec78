"""Scorers that are loaded when the application is up, on a thread of ours: importing them may import half of it."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from otel_scorer.pipeline.running.selection import Selector
from otel_scorer.pipeline.running.suppression import suppressed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_scorer.model.trace import Trace
    from otel_scorer.pipeline.running.selection import Choice, Selection

__all__ = ["LazySelector"]


class LazySelector(Selector):
    """
    Starts to load when it is first asked about a trace, wants every trace until it knows better, and chooses when done.

    Args:
        load: Returns the selections; must not raise.
    """

    def __init__(self, load: Callable[[], Iterable[Selection]]) -> None:
        super().__init__(())
        self._load = load
        self._lock = threading.Lock()  # guards the loading
        self._is_loading = False
        self.is_loaded = False
        """Whether the scorers are known."""

    def renew(self) -> None:
        """Forget that another process was loading; what was loaded stays."""
        self._lock = threading.Lock()
        self._is_loading = False

    def wants(self, trace_id: bytes) -> bool:
        """Whether any scorer has this trace in its sample, as far as is known. Never waits."""
        if self.is_loaded:
            return super().wants(trace_id)
        if not self._is_loading:
            self._is_loading = True
            thread = threading.Thread(target=self._ensure, name="otel-scorer-loading", daemon=True)
            with suppress(RuntimeError):  # no new threads once the interpreter exits: then `choose` has to load
                thread.start()
        return True

    def choose(self, trace: Trace, *, revision: int | None = None) -> list[Choice]:
        """Return the calls to make on a trace; the first time this waits until the scorers are there."""
        self._ensure()
        return super().choose(trace, revision=revision)

    def _ensure(self) -> None:
        with self._lock:
            if self.is_loaded:
                return
            # Instrumentations of threads give them the context of whoever started them: an application's span.
            with suppressed():
                loaded: Sequence[Selection] = list(self._load())
            self.replace(loaded)
            self.is_loaded = True
