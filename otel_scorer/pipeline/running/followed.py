"""
Follows a store of registered scorers: what is started, changed or stopped there is so here, half a second later.

A scorer whose registration has not changed stays the object that it is, with its state. One that cannot be loaded is
left out, said once, and tried again. Whatever happens to the store, the scorers that are known stay.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import OtelScorerError
from otel_scorer.pipeline.running.suppression import suppressed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from otel_scorer.pipeline.running.selection import Selection
    from otel_scorer.scorers.base import Scorer
    from otel_scorer.stores.database import Database
    from otel_scorer.stores.registrations import Registration

__all__ = ["StoreFollower"]

logger = logging.getLogger(__name__)

_INTERVAL: Final = 0.5
_RETRY: Final = 5.0


class StoreFollower:
    """
    Loads the started scorers of a store, and again when they change. `start` makes the thread that looks.

    Args:
        path: The store; it is made if it does not exist.
        select: Makes a selection of a scorer; may raise ConfigError.
        on_change: Takes the selections, by name of the scorer, on the thread that looks.
        interval: Seconds between two looks.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        select: Callable[[Scorer], Selection],
        on_change: Callable[[Sequence[Selection]], None],
        *,
        interval: float = _INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path.expanduser().absolute()
        self._select = select
        self._on_change = on_change
        self._interval = interval
        self._clock = clock
        self._known: list[tuple[Registration, Selection]] = []
        self._revision: int | None = None
        self._file: int | None = None
        self._retry_at: float | None = None
        self._complaint = ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def load(self) -> Sequence[Selection]:
        """
        Look once, on this thread, and return what is started.

        Raises:
            ConfigError: The store cannot be opened.
            StoreError: It cannot be read.
        """
        from otel_scorer.stores.database import open_database

        with open_database(self._path) as database:
            self._file = self._file_there()
            self._look(database)
        return self._selections()

    def start(self) -> None:
        """Start looking; starting twice is fine."""
        if self._thread is not None:
            return
        if self._retry_at is not None:
            # What the main script defines may not have been there when its processor was made; it is by now.
            self._retry_at = self._clock()
        self._thread = threading.Thread(target=self._follow, name="otel-scorer-registry", daemon=True)
        with suppress(RuntimeError):  # no new threads once the interpreter exits
            self._thread.start()

    def shutdown(self, timeout: float) -> None:
        """Look no more. Waits up to `timeout` seconds."""
        self._stopping.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout)

    def renew(self) -> None:
        """After a fork: forget the thread, which did not come along; `start` makes another one."""
        self._stopping = threading.Event()
        self._thread = None

    def _follow(self) -> None:
        # The connection lives on this thread: a forked process has neither.
        database: Database | None = None
        with suppressed():
            while not self._stopping.is_set():
                try:
                    if database is None or self._file != self._file_there():
                        database = self._opened(database)
                    if self._look(database):
                        self._on_change(self._selections())
                    self._complaint = ""
                except OtelScorerError as error:
                    self._complain(str(error))
                except Exception:  # the next look is a new chance
                    logger.exception("Following the store %s failed", self._path)
                self._stopping.wait(self._interval)
        if database is not None:
            database.close()

    def _opened(self, before: Database | None) -> Database:
        from otel_scorer.stores.database import open_database

        if before is not None:
            before.close()
        database = open_database(self._path)
        if (file := self._file_there()) != self._file:
            self._file, self._revision = file, None
        return database

    def _file_there(self) -> int | None:
        """Return what tells a file from another one that was put in its place."""
        try:
            return self._path.stat().st_ino
        except OSError:
            return None

    def _look(self, database: Database) -> bool:
        """Load what has changed; return whether anything has."""
        from otel_scorer.stores.registrations import Registrations

        registrations = Registrations(database)
        revision = registrations.revision()
        is_retry = self._retry_at is not None and self._clock() >= self._retry_at
        if revision == self._revision and not is_retry:
            return False
        before = [selection for _, selection in self._known]
        is_new = revision != self._revision
        self._retry_at = None
        self._known = [
            (registration, selection)
            for registration in registrations.latest()
            if registration.is_started
            and (selection := self._known_as(registration) or self._loaded(registration, warns=is_new)) is not None
        ]
        self._revision = revision
        after = [selection for _, selection in self._known]
        return len(before) != len(after) or any(old is not new for old, new in zip(before, after, strict=True))

    def _known_as(self, registration: Registration) -> Selection | None:
        return next((selection for known, selection in self._known if known == registration), None)

    def _loaded(self, registration: Registration, *, warns: bool) -> Selection | None:
        from otel_scorer.scorers.registry import load_registered

        try:
            selection = self._select(load_registered(registration, self._path))
        except OtelScorerError as error:
            self._retry_at = self._clock() + _RETRY
            if warns:
                logger.warning("The registered scorer %r does not run: %s", registration.name, error)
            return None
        rate, filter_string = registration.sample_rate, registration.filter_string
        logger.info("The registered scorer %r runs (rate %g, filter %s)", registration.name, rate, filter_string)
        return selection

    def _selections(self) -> list[Selection]:
        return [selection for _, selection in self._known]

    def _complain(self, what: str) -> None:
        if what != self._complaint:
            self._complaint = what
            logger.warning("Registered scorers are not followed at the moment: %s", what)
