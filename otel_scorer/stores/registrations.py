"""
Registered scorers: where the code of each is found, what it is given, and which live traces it sees.

Only references and plain data are kept, never code. Whoever runs the scorers polls `revision`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_scorer.stores.database import Database, Row, Transaction

__all__ = ["Definition", "Registration", "Registrations"]

_MILLISECONDS: Final = 1000
_COLUMNS: Final = "r.name, d.version, d.ref, d.folder, d.parameters, d.options, r.sample_rate, r.filter_string"
_LATEST: Final = "d.version = (SELECT max(version) FROM definitions WHERE name = r.name)"


@dataclass(frozen=True, slots=True)
class Definition:
    """
    How a scorer is made again, in any process.

    Attributes:
        ref: A reference to one scorer or scorer class.
        folder: Where to look for the module that `ref` names, should it not be found otherwise.
        parameters: Fields for a scorer class, as JSON data.
        options: Options that win over those in the code, as JSON data.
    """

    ref: str
    folder: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Registration:
    """
    One registered scorer.

    Attributes:
        name: What it is registered as.
        version: Of the definition, from 1.
        definition: How it is made.
        sample_rate: Share of live traces that it sees; 0: it is stopped.
        filter_string: Which of them, in MLflow's search grammar; None: all.
    """

    name: str
    version: int
    definition: Definition
    sample_rate: float = 0.0
    filter_string: str | None = None

    @property
    def is_started(self) -> bool:
        """Whether it sees live traces."""
        return self.sample_rate > 0


class Registrations:
    """
    The registered scorers of a store. Every method may raise StoreError.

    Args:
        database: The store.
        clock: Seconds since the epoch.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def revision(self) -> int:
        """Return a number that grows with every change, whoever makes it. Cheap to poll."""
        [(revision,)] = self._database.query("SELECT value FROM revisions WHERE name = 'registrations'")
        return int(revision)

    def latest(self) -> list[Registration]:
        """Return the latest version of each, by name."""
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM registrations r JOIN definitions d USING (name) WHERE {_LATEST} ORDER BY r.name"  # noqa: S608 - constants
        )
        return [_registration(row) for row in rows]

    def get(self, name: str, version: int | None = None) -> Registration | None:
        """Return one of them, or None; without `version` the latest."""
        found = [each for each in self.versions(name) if version in {None, each.version}]
        return found[-1] if found else None

    def versions(self, name: str) -> list[Registration]:
        """Return all versions of one, oldest first."""
        return [_registration(row) for row in self._database.query(*_versions_of(name))]

    def put(self, name: str, definition: Definition) -> Registration:
        """
        Register a definition.

        Under a known name it becomes the next version, which runs as the one before did; an unchanged definition
        changes nothing.
        """
        now = int(self._clock() * _MILLISECONDS)
        with self._database.transaction() as transaction:
            latest = _latest(transaction, name)
            if latest is not None and latest.definition == definition:
                return latest
            version = 1 if latest is None else latest.version + 1
            transaction.execute(
                "INSERT INTO registrations (name, created_ms, updated_ms) VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET updated_ms = excluded.updated_ms",
                (name, now, now),
            )
            transaction.execute(
                "INSERT INTO definitions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    name,
                    version,
                    definition.ref,
                    definition.folder,
                    json.dumps(definition.parameters, sort_keys=True),
                    json.dumps(definition.options, sort_keys=True),
                    now,
                ),
            )
        if latest is None:
            return Registration(name, version, definition)
        return replace(latest, version=version, definition=definition)

    def schedule(self, name: str, change: Callable[[Registration], tuple[float, str | None]]) -> Registration | None:
        """
        Change which live traces a scorer sees; a change that is none leaves the revision alone.

        Args:
            name: The scorer.
            change: Takes the registration as it is, and returns the new sample rate and filter string.

        Returns:
            The registration as it is now; None if there is none of this name.
        """
        with self._database.transaction() as transaction:
            latest = _latest(transaction, name)
            if latest is None:
                return None
            sample_rate, filter_string = change(latest)
            changed = replace(latest, sample_rate=sample_rate, filter_string=filter_string)
            if changed != latest:
                transaction.execute(
                    "UPDATE registrations SET sample_rate = ?, filter_string = ?, updated_ms = ? WHERE name = ?",
                    (sample_rate, filter_string, int(self._clock() * _MILLISECONDS), name),
                )
        return changed

    def delete(self, name: str, version: int | None = None) -> bool:
        """
        Delete a scorer, or one version of it; without its last version it is gone.

        Returns:
            Whether there was one.
        """
        with self._database.transaction() as transaction:
            versions = [each.version for each in _read_versions(transaction, name)]
            doomed = [each for each in versions if version in {None, each}]
            if not doomed:
                return False
            if doomed == versions:
                transaction.execute("DELETE FROM registrations WHERE name = ?", (name,))
            else:
                transaction.execute("DELETE FROM definitions WHERE name = ? AND version = ?", (name, version))
                now = int(self._clock() * _MILLISECONDS)
                transaction.execute("UPDATE registrations SET updated_ms = ? WHERE name = ?", (now, name))
        return True


def _versions_of(name: str) -> tuple[str, tuple[str]]:
    statement = (
        f"SELECT {_COLUMNS} FROM registrations r JOIN definitions d USING (name) WHERE r.name = ? ORDER BY version"  # noqa: S608 - constants
    )
    return statement, (name,)


def _read_versions(transaction: Transaction, name: str) -> list[Registration]:
    return [_registration(row) for row in transaction.execute(*_versions_of(name))]


def _latest(transaction: Transaction, name: str) -> Registration | None:
    found = _read_versions(transaction, name)
    return found[-1] if found else None


def _registration(row: Row) -> Registration:
    name, version, ref, folder, parameters, options, sample_rate, filter_string = row
    definition = Definition(ref, folder, json.loads(parameters), json.loads(options))
    return Registration(name, version, definition, sample_rate, filter_string)
