"""Registered scorers, found again: by name in Python, and by whoever runs them on live traces."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_scorer.errors import ConfigError, OtelScorerError, ScorerError
from otel_scorer.scorers.builtin import BUILT_IN
from otel_scorer.scorers.filter_strings import cel_filter
from otel_scorer.scorers.lifecycle import with_registration
from otel_scorer.scorers.loading import ScorerSpec, load_scorers
from otel_scorer.stores.database import open_database
from otel_scorer.stores.location import store_path
from otel_scorer.stores.registrations import Registrations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_scorer.scorers.base import Scorer
    from otel_scorer.stores.registrations import Registration

__all__ = [
    "delete_scorer",
    "get_scorer",
    "list_scorer_versions",
    "list_scorers",
    "live_specs",
    "load_registered",
    "registered_in",
    "spec_of",
    "with_registered",
]

logger = logging.getLogger(__name__)


def list_scorers(*, store: str | Path | None = None) -> list[Scorer]:
    """
    Return the latest version of every registered scorer, by name.

    One that cannot be loaded any more is left out, with a warning in the log.

    Args:
        store: The file. Default: `OTEL_SCORER_STORE`, else `.otel_scorer/traces.db`.

    Raises:
        ConfigError: The store cannot be opened.
    """
    path = _path(store)
    found: list[Scorer] = []
    for registration in registered_in(path):
        try:
            found.append(load_registered(registration, path))
        except OtelScorerError as error:
            logger.warning("The registered scorer %r is left out: %s", registration.name, error)
    return found


def get_scorer(*, name: str, version: int | None = None, store: str | Path | None = None) -> Scorer:
    """
    Return a registered scorer.

    Args:
        name: What it is registered as.
        version: Which version of it. Default: the latest, which is the one that runs.
        store: See `list_scorers`.

    Raises:
        ScorerError: There is none of that name or version.
        ConfigError: The store cannot be opened, or the scorer cannot be loaded.
    """
    path = _path(store)
    for registration in reversed(_versions(name, path)):
        if version in {None, registration.version}:
            return load_registered(registration, path)
    raise ScorerError(_missing(name, version, path))


def list_scorer_versions(*, name: str, store: str | Path | None = None) -> list[tuple[Scorer, int]]:
    """
    Return all versions of a registered scorer, oldest first, each with its number.

    Raises:
        ScorerError: There is none of that name.
        ConfigError: The store cannot be opened, or a version cannot be loaded.
    """
    path = _path(store)
    found = _versions(name, path)
    if not found:
        raise ScorerError(_missing(name, None, path))
    return [(load_registered(registration, path), registration.version) for registration in found]


def delete_scorer(*, name: str, version: int | str | None = None, store: str | Path | None = None) -> None:
    """
    Delete a registered scorer, or one version of it.

    Args:
        name: What it is registered as.
        version: Which version; None and "all": the whole scorer.
        store: See `list_scorers`.

    Raises:
        ScorerError: There is none of that name or version.
        ConfigError: The store cannot be opened.
    """
    path = _path(store)
    if isinstance(version, str) and version != "all":
        raise ScorerError(f"version must be a number or 'all', got {version!r}")
    wanted = None if isinstance(version, str) else version
    if path.exists():
        with open_database(path) as database:
            if Registrations(database).delete(name, wanted):
                return
    raise ScorerError(_missing(name, wanted, path))


def registered_in(path: Path) -> list[Registration]:
    """Return what is registered in a store, by name; a store that does not exist has nothing, and is not made."""
    if not path.exists():
        return []
    with open_database(path) as database:
        return Registrations(database).latest()


def spec_of(registration: Registration) -> ScorerSpec:
    """
    Return how a registered scorer is loaded to judge live traces: under its name, with its sample rate and filter.

    Raises:
        ConfigError: Its filter string cannot be read.
    """
    given: dict[str, Any] = {"name": registration.name, "sample_rate": registration.sample_rate}
    if registration.filter_string is not None:
        given["filter"] = cel_filter(registration.filter_string)
    return replace(_plain_spec(registration), **given)


def live_specs(registrations: Sequence[Registration]) -> list[ScorerSpec]:
    """Return how the started ones among registered scorers are loaded; what cannot be read is logged and left out."""
    found: list[ScorerSpec] = []
    for registration in registrations:
        if registration.is_started:
            try:
                found.append(spec_of(registration))
            except ConfigError as error:
                logger.warning("The registered scorer %r is left out: %s", registration.name, error)
    return found


def load_registered(registration: Registration, path: Path) -> Scorer:
    """
    Return a registered scorer as an instance that knows its registration.

    Raises:
        ConfigError: It cannot be loaded.
    """
    [scorer] = load_scorers([_plain_spec(registration)])
    return with_registration(scorer, registration, path)


def with_registered(references: Sequence[str], *, store: str | Path | None = None) -> list[str | ScorerSpec]:
    """
    Return references for `load_scorers`, among which names of registered scorers may be.

    These judge every trace that they are given: sample rate and filter of a registration are for live traces. The name
    of a built-in scorer stays what it is.

    Args:
        references: See `ScorerSpec.use`.
        store: See `list_scorers`.

    Raises:
        ConfigError: The store cannot be opened.
    """
    registered = {each.name: each for each in registered_in(_path(store)) if each.name not in BUILT_IN}
    return [
        replace(_plain_spec(registered[reference]), name=reference) if reference in registered else reference
        for reference in references
    ]


def _plain_spec(registration: Registration) -> ScorerSpec:
    """Return how the code is loaded, whatever live traces it sees."""
    definition = registration.definition
    return ScorerSpec(
        use=definition.ref, folder=definition.folder, parameters=definition.parameters, **definition.options
    )


def _versions(name: str, path: Path) -> list[Registration]:
    if not path.exists():
        return []
    with open_database(path) as database:
        return Registrations(database).versions(name)


def _path(store: str | Path | None) -> Path:
    return (store_path() if store is None else Path(store)).expanduser().absolute()


def _missing(name: str, version: int | None, path: Path) -> str:
    what = f"registered scorer {name!r}" if version is None else f"version {version} of a registered scorer {name!r}"
    return f"There is no {what} in {path}"
