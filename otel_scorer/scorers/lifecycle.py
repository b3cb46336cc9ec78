"""
What makes a scorer run on live traces: `register`, `start`, `update`, `stop`. MLflow's production lifecycle.

Each of them changes the store and returns a new instance; the one it was called on stays as it was. A sidecar
(`serve --store`) and the processor in the application follow the store.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar, cast

from otel_scorer.errors import ConfigError, ScorerError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from otel_scorer.scorers.options import ScorerOptions
    from otel_scorer.stores.registrations import Registration

__all__ = [
    "Registrable",
    "ScorerSamplingConfig",
    "ScorerStatus",
    "Ticket",
    "loading",
    "schedule",
    "starting",
    "stopping",
    "unscheduled",
    "updating",
    "with_registration",
]

AnyScorer = TypeVar("AnyScorer", bound="ScorerOptions")
Change: TypeAlias = "Callable[[Registration], tuple[float, str | None]]"
"""Takes a registration as it is, and returns its new sample rate and filter string."""


class ScorerStatus(StrEnum):
    """Whether a scorer runs on live traces."""

    UNREGISTERED = "UNREGISTERED"
    STARTED = "STARTED"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class ScorerSamplingConfig:
    """
    Which live traces a registered scorer sees.

    Attributes:
        sample_rate: Share of the traces, 0 to 1, chosen by trace id. `update` leaves it as it was if None.
        filter_string: MLflow's search grammar, such as `status = 'OK' AND span.type = 'TOOL'`. `update` leaves it as it
            was if None, and an empty string takes it away.
    """

    sample_rate: float | None = None
    filter_string: str | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """
    What an instance knows of its registration.

    Attributes:
        registration: As it was when the instance was made.
        store: The file.
        filter: What became of the filter string.
        own_filter: The filter of the scorer's code.
        own_rate: The sample rate of the scorer's code.
    """

    registration: Registration
    store: Path
    filter: str | None
    own_filter: str | None
    own_rate: float


_TICKET: Final = "_ticket"
# Set while a module is executed only to get at its scorers. A script that registers as it runs would otherwise register
# again in every process that loads it, and each time have them all load it again.
_is_loading: Final = ContextVar("otel_scorer_loading", default=False)


@contextmanager
def loading() -> Generator[None]:
    """Have `register`, `start`, `update` and `stop` leave the store alone until the block ends."""
    token = _is_loading.set(True)
    try:
        yield
    finally:
        _is_loading.reset(token)


class Registrable:
    """The lifecycle of a scorer; `Scorer` has all of it."""

    @property
    def status(self) -> ScorerStatus:
        """Whether it runs on live traces, as far as this instance knows."""
        ticket = _ticket_of(self)
        if ticket is None:
            return ScorerStatus.UNREGISTERED
        return ScorerStatus.STARTED if ticket.registration.is_started else ScorerStatus.STOPPED

    @property
    def filter_string(self) -> str | None:
        """The filter string that it was started with."""
        ticket = _ticket_of(self)
        return None if ticket is None else ticket.registration.filter_string

    @property
    def registered_version(self) -> int | None:
        """Which version of the registered scorer this is, from 1; None: not registered."""
        ticket = _ticket_of(self)
        return None if ticket is None else ticket.registration.version

    def register(self, *, name: str | None = None, store: str | Path | None = None) -> Self:
        """
        Keep a reference to this scorer in the store; it does not run before `start`.

        Under a name that is known it becomes the next version, and runs as the one before did; without a change it
        stays the version that it is.

        Args:
            name: What it is registered as, and what its feedback is called. Default: the scorer's name.
            store: The file. Default: `OTEL_SCORER_STORE`, else `.otel_scorer/traces.db`.

        Returns:
            A new instance, with `status`, `sample_rate` and `filter_string` of the registration.

        Raises:
            ScorerError: Another process could not make this scorer again: it is a lambda, defined in a function or
                interactively, or holds a secret or what is no plain data. The message says what to do.
            ConfigError: The store cannot be opened.
            StoreError: The store cannot be written.
        """
        from otel_scorer.scorers.references import definition_of
        from otel_scorer.stores.registrations import Registration

        scorer = unscheduled(cast("ScorerOptions", self))
        path = _path_of(store)
        name = scorer.name if name is None else name
        if not name:
            raise ScorerError("A scorer cannot be registered under an empty name")
        definition = definition_of(scorer)
        if _is_loading.get():
            return cast("Self", with_registration(scorer, Registration(name, 0, definition), path))
        from otel_scorer.stores.database import open_database
        from otel_scorer.stores.registrations import Registrations

        with open_database(path) as database:
            registration = Registrations(database).put(name, definition)
        return cast("Self", with_registration(scorer, registration, path))

    def start(
        self, *, sampling_config: ScorerSamplingConfig, name: str | None = None, store: str | Path | None = None
    ) -> Self:
        """
        Have it run on live traces.

        Args:
            sampling_config: Which traces; the sample rate must be more than 0. What it does not say is not kept.
            name: Of the registered scorer. Default: what this instance is registered as.
            store: The file. Default: where this instance is registered.

        Returns:
            A new instance.

        Raises:
            ScorerError: It is not registered (any more), or the sample rate cannot be meant.
            ConfigError: The filter string cannot be read, or asks what cannot be known of a live trace.
            StoreError: The store cannot be written.
        """
        return self._schedule(name, store, starting(sampling_config))

    def update(
        self, *, sampling_config: ScorerSamplingConfig, name: str | None = None, store: str | Path | None = None
    ) -> Self:
        """
        Change which live traces it sees. Arguments, result and errors are those of `start`.

        What `sampling_config` does not say stays as it is; a sample rate of 0 stops the scorer.
        """
        return self._schedule(name, store, updating(sampling_config))

    def stop(self, *, name: str | None = None, store: str | Path | None = None) -> Self:
        """
        Have it run on no live trace; it stays registered. The sample rate becomes 0, and the filter string is dropped.

        Arguments, result and errors are those of `start`.
        """
        return self._schedule(name, store, stopping)

    def _schedule(self, name: str | None, store: str | Path | None, change: Change) -> Self:
        ticket = _ticket_of(self)
        scorer = cast("ScorerOptions", self)
        if ticket is None:
            raise ScorerError(
                f"Scorer {scorer.name!r} is not registered: call register() first and use what it returns, or "
                f"get_scorer(name=...)"
            )
        path = ticket.store if store is None else _path_of(store)
        name = name or ticket.registration.name
        if _is_loading.get():
            return cast("Self", with_registration(scorer, ticket.registration, path))
        return cast("Self", with_registration(unscheduled(scorer), schedule(name, change, path), path))


def starting(config: ScorerSamplingConfig) -> Change:
    """
    Return the change that `Scorer.start` makes.

    Raises:
        ScorerError: The sample rate cannot be meant.
        ConfigError: The filter string cannot be read.
    """
    rate = _checked_rate(config, "starting")
    if rate is None or rate <= 0:
        raise ScorerError("When starting a scorer, its sample rate must be a number above 0, and at most 1")
    wanted = _checked_filter(config)
    return lambda _: (rate, wanted)


def updating(config: ScorerSamplingConfig) -> Change:
    """Return the change that `Scorer.update` makes. Raises what `starting` does."""
    rate = _checked_rate(config, "updating")
    keeps_filter = config.filter_string is None
    wanted = _checked_filter(config)
    return lambda now: (now.sample_rate if rate is None else rate, now.filter_string if keeps_filter else wanted)


def stopping(now: Registration) -> tuple[float, str | None]:
    """Say what a stopped scorer sees: the change that `Scorer.stop` makes."""
    del now
    return 0.0, None


def schedule(name: str, change: Change, store: Path) -> Registration:
    """
    Change which live traces a registered scorer sees.

    Raises:
        ScorerError: There is none of that name.
    """
    from otel_scorer.stores.database import open_database
    from otel_scorer.stores.registrations import Registrations

    if store.exists():
        with open_database(store) as database:
            registration = Registrations(database).schedule(name, change)
        if registration is not None:
            return registration
    raise ScorerError(f"There is no registered scorer {name!r} in {store}")


def with_registration(scorer: AnyScorer, registration: Registration, store: Path) -> AnyScorer:
    """
    Return a copy that is called as it is registered and sees what it is registered for.

    Raises:
        ConfigError: The filter string cannot be asked of live traces.
    """
    given = {"name": registration.name, "sample_rate": registration.sample_rate}
    if registration.filter_string is not None:
        from otel_scorer.scorers.filter_strings import cel_filter

        given["filter"] = cel_filter(registration.filter_string)
    changed = _with(scorer, given)
    vars(changed)[_TICKET] = Ticket(registration, store, changed.filter, scorer.filter, scorer.sample_rate)
    return changed


def unscheduled(scorer: AnyScorer) -> AnyScorer:
    """
    Return a registered scorer with the sample rate and filter of its code, for traces that are chosen otherwise.

    What was changed after that by `with_options` stays.
    """
    ticket = _ticket_of(scorer)
    if ticket is None:
        return scorer
    given: dict[str, Any] = {}
    if scorer.sample_rate == ticket.registration.sample_rate:
        given["sample_rate"] = ticket.own_rate
    if scorer.filter == ticket.filter:
        given["filter"] = ticket.own_filter
    plain = _with(scorer, given)
    del vars(plain)[_TICKET]
    return plain


def _with(scorer: AnyScorer, given: dict[str, Any]) -> AnyScorer:
    return cast("AnyScorer", cast("Any", scorer).with_options(**given))


def _ticket_of(scorer: object) -> Ticket | None:
    return cast("Ticket | None", vars(scorer).get(_TICKET))


def _path_of(store: str | Path | None) -> Path:
    from otel_scorer.stores.location import store_path

    return (store_path() if store is None else Path(store)).expanduser().absolute()


def _checked_rate(config: object, doing: str) -> float | None:
    if not isinstance(config, ScorerSamplingConfig):
        raise ScorerError(f"sampling_config must be a ScorerSamplingConfig, got {config!r}")
    rate = cast("object", config.sample_rate)
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not math.isfinite(rate) or not 0 <= rate <= 1:
        raise ScorerError(f"When {doing} a scorer, its sample rate must be a number from 0 to 1, got {rate!r}")
    return float(rate)


def _checked_filter(config: ScorerSamplingConfig) -> str | None:
    if config.filter_string is not None and not isinstance(cast("object", config.filter_string), str):
        raise ConfigError(f"A filter string must be text, got {config.filter_string!r}")
    if not (config.filter_string or "").strip():
        return None
    from otel_scorer.scorers.filter_strings import cel_filter

    cel_filter(cast("str", config.filter_string))
    return config.filter_string
