"""Which settings of a configuration that was read again can be taken while the sidecar runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_scorer.config.model import Config

__all__ = ["fixed_changes", "shown_settings"]

_CHANGEABLE: Final = frozenset({"scorers", "scoring", "dialects"})


def fixed_changes(old: Config, new: Config) -> list[str]:
    """Return the full names of settings that differ and count only after a restart; those of scorers count at once."""
    before, after = old.model_dump(exclude=set(_CHANGEABLE)), new.model_dump(exclude=set(_CHANGEABLE))
    return sorted(".".join(path) for path in _differences(before, after))


def shown_settings(started: Config, latest: Config) -> dict[str, Any]:
    """Return what is in effect, as `Config.dump` shows it, after `latest` was read while `started` runs."""
    taken = {key: value for key, value in latest.dump().items() if key in _CHANGEABLE}
    return started.dump() | taken


def _differences(old: Any, new: Any) -> Iterator[tuple[str, ...]]:
    if isinstance(old, dict) and isinstance(new, dict):
        before, after = cast("dict[str, Any]", old), cast("dict[str, Any]", new)
        for key in before.keys() | after.keys():
            if key not in before or key not in after:
                yield (str(key),)
            else:
                yield from ((str(key), *path) for path in _differences(before[key], after[key]))
    elif old != new:
        yield ()
