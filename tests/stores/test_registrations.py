from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_scorer.stores.database import open_database
from otel_scorer.stores.registrations import Definition, Registration, Registrations

DEFINITION = Definition("my_scorers:Quality", "/srv/app", {"words": 5}, {"timeout": 2.0, "span_types": ["TOOL"]})


@pytest.fixture
def registrations(tmp_path: Path) -> Iterator[Registrations]:
    with open_database(tmp_path / "store.db") as database:
        yield Registrations(database, clock=lambda: 1_700_000_000.0)


def test_what_was_registered_comes_back(registrations: Registrations) -> None:
    made = registrations.put("quality", DEFINITION)

    assert made == Registration("quality", 1, DEFINITION, 0.0, None)
    assert registrations.latest() == registrations.versions("quality") == [made]
    assert registrations.get("quality") == registrations.get("quality", 1) == made
    assert not made.is_started


def test_names_are_sorted(registrations: Registrations) -> None:
    for name in ("b", "c", "a"):
        registrations.put(name, DEFINITION)

    assert [each.name for each in registrations.latest()] == ["a", "b", "c"]


def test_another_definition_is_the_next_version_and_runs_as_the_one_before_did(registrations: Registrations) -> None:
    registrations.put("quality", DEFINITION)
    registrations.schedule("quality", lambda _: (0.5, "status = 'OK'"))

    second = registrations.put("quality", Definition("my_scorers:Quality", None, {"words": 9}))

    assert second == Registration(
        "quality", 2, Definition("my_scorers:Quality", None, {"words": 9}), 0.5, "status = 'OK'"
    )
    assert registrations.latest() == [second]
    assert [each.version for each in registrations.versions("quality")] == [1, 2]
    assert registrations.get("quality", 1) == Registration("quality", 1, DEFINITION, 0.5, "status = 'OK'")
    assert registrations.get("quality", 3) is None


def test_the_revision_grows_with_every_change_and_only_then(registrations: Registrations) -> None:
    seen = [registrations.revision()]

    def is_changed() -> bool:
        seen.append(registrations.revision())
        return seen[-1] > seen[-2]

    registrations.put("quality", DEFINITION)
    assert is_changed()
    registrations.put("quality", DEFINITION)
    assert not is_changed()
    registrations.schedule("quality", lambda _: (0.5, None))
    assert is_changed()
    registrations.schedule("quality", lambda now: (now.sample_rate, now.filter_string))
    assert not is_changed()
    registrations.put("quality", Definition("other:Quality"))
    assert is_changed()
    registrations.delete("quality", 2)
    assert is_changed()
    registrations.delete("quality")
    assert is_changed()
    registrations.delete("quality")
    assert not is_changed()


def test_the_last_version_takes_the_scorer_with_it(registrations: Registrations) -> None:
    registrations.put("quality", DEFINITION)
    registrations.put("quality", Definition("other:Quality"))

    assert registrations.delete("quality", 2)
    assert [each.version for each in registrations.versions("quality")] == [1]
    assert not registrations.delete("quality", 2)
    assert registrations.delete("quality", 1)
    assert registrations.latest() == []
    assert registrations.put("quality", DEFINITION).version == 1


def test_what_is_not_there_cannot_be_scheduled(registrations: Registrations) -> None:
    assert registrations.schedule("nobody", lambda _: (1.0, None)) is None
    assert not registrations.delete("nobody")
    assert registrations.get("nobody") is None


def test_two_who_have_it_open_see_each_other(tmp_path: Path) -> None:
    with open_database(tmp_path / "store.db") as one, open_database(tmp_path / "store.db") as other:
        before = Registrations(other).revision()
        made = Registrations(one).put("quality", DEFINITION)

        assert Registrations(other).latest() == [made]
        assert Registrations(other).revision() > before
