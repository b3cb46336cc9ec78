"""
Dialects of other packages: entry points of the group `otel_scorer.dialects`.

An entry point names a `Dialect`, several in a list, or a function that returns either. Whatever is wrong with one is
said once and costs that one: built-in dialects and traces go on.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from itertools import chain
from typing import TYPE_CHECKING, Final, cast

from otel_scorer.dialects.table import FIELDS, SPAN_TYPES, Dialect, NameRule, SpanTypeKey
from otel_scorer.model.trace import MISSING
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_scorer.dialects.table import Source
    from otel_scorer.model.trace import Span

__all__ = ["ENTRY_POINT_GROUP", "Plugin", "check_dialect", "guarded", "installed", "load_plugin", "usable"]

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP: Final = "otel_scorer.dialects"
_LISTS: Final = ("scopes", "keys", "events", "names")
_MAPS: Final = ("values", "resource")


@dataclass(frozen=True, slots=True)
class Plugin:
    """
    An entry point and what came of it.

    Attributes:
        name: Its name.
        package: The distribution that has it, with its version.
        dialects: What it brought.
        problem: Why it brought nothing, or not all of it; None: it did.
    """

    name: str
    package: str
    dialects: tuple[Dialect, ...] = ()
    problem: str | None = None


@cache
def installed() -> tuple[Plugin, ...]:
    """Return the plugins of this environment by name; what is wrong with one is logged, once per process."""
    found = tuple(load_plugin(point) for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=_order))
    for plugin in found:
        if plugin.problem is not None:
            which = "partly used" if plugin.dialects else "not used"
            logger.warning("Dialect plugin %r (%s) is %s: %s", plugin.name, plugin.package, which, plugin.problem)
    return found


def _order(point: EntryPoint) -> tuple[str, str]:
    return point.name, point.value


def load_plugin(point: EntryPoint) -> Plugin:
    """Import what an entry point names and check it. Never raises."""
    package = point.value if point.dist is None else f"{point.dist.name} {point.dist.version}"
    try:
        given = _dialects(point.load())
        wrong = [[f"{dialect.name!r}: {problem}" for problem in check_dialect(dialect)] for dialect in given]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's code may do anything when it is imported
        return Plugin(point.name, package, problem=f"{point.value}: {type(error).__name__}: {error}")
    used = tuple(guarded(dialect) for dialect, problems in zip(given, wrong, strict=True) if not problems)
    said = "; ".join(chain.from_iterable(wrong))
    return Plugin(point.name, package, used, f"{point.value}: {said}" if said else None)


def _dialects(named: object) -> list[Dialect]:
    if callable(named) and not isinstance(named, Dialect):
        named = cast("Callable[[], object]", named)()
    given = [named] if isinstance(named, Dialect) else named
    if not isinstance(given, Iterable):
        raise TypeError(f"neither a Dialect nor a list of them: {type(given).__name__}")
    found = list(cast("Iterable[object]", given))
    for item in found:
        if not isinstance(item, Dialect):
            raise TypeError(f"neither a Dialect nor a list of them: {type(item).__name__}")
    return cast("list[Dialect]", found)


def check_dialect(dialect: Dialect) -> list[str]:
    """Return what cannot work in a dialect that comes from outside, a sentence each."""
    problems = [] if isinstance(cast("object", dialect.name), str) and dialect.name else ["name must be text"]
    problems += [f"{name} must be a tuple of texts" for name in _LISTS if not _is_texts(getattr(dialect, name))]
    problems += [f"{name} must map keys to texts" for name in _MAPS if not _is_text_map(getattr(dialect, name))]
    if not any(getattr(dialect, attribute) for attribute in (*_LISTS, *_MAPS)):
        problems.append("nothing says how it is recognised: scopes, keys, values, resource, events or names")
    for name, sources in dialect.fields.items():
        if name not in FIELDS:
            close = difflib.get_close_matches(name, FIELDS, n=1)
            problems.append(f"there is no field {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
        elif not all(callable(getattr(source, "read", None)) and hasattr(source, "key") for source in sources):
            problems.append(f"fields[{name!r}] must be a tuple of sources, such as Attribute('my.key')")
    for key in dialect.span_types:
        unknown = sorted(set(key.types.values()) - SPAN_TYPES - {"UNKNOWN"})
        if unknown and not key.open_ended:
            problems.append(f"{key.key}: no span type {', '.join(unknown)}")
    if not all(isinstance(cast("object", rule), NameRule) for rule in dialect.name_rules):
        problems.append("name_rules must be NameRules")
    return problems


def _is_texts(value: object) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(item, str) for item in cast("Sequence[object]", value))


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and _is_texts(tuple(cast("dict[object, object]", value).values()))


def guarded(dialect: Dialect) -> Dialect:
    """Return a copy of which nothing raises: what fails counts as not said, is counted, and is logged once."""
    return replace(
        dialect,
        fields={
            name: tuple(_Guarded(source, dialect.name, name) for source in sources)
            for name, sources in dialect.fields.items()
        },
        span_types=tuple(_guarded_key(key, dialect.name) for key in dialect.span_types),
    )


class _Guarded:
    """A source that says MISSING where another one raises. Implements `Source`."""

    __slots__ = ("_dialect", "_field", "_source", "key")

    def __init__(self, source: Source, dialect: str, field: str) -> None:
        self.key = str(source.key)
        self._source = source
        self._dialect = dialect
        self._field = field

    def read(self, span: Span) -> object:
        try:
            return self._source.read(span)
        except Exception as error:  # noqa: BLE001 - somebody else's code on somebody else's data
            _complain(self._dialect, f"{self._field} from {self.key}", error)
            return MISSING


def _guarded_key(key: SpanTypeKey, dialect: str) -> SpanTypeKey:
    decode = key.decode

    def safely(value: object) -> object:
        try:
            return decode(value)
        except Exception as error:  # noqa: BLE001 - as above
            _complain(dialect, f"span_type from {key.key}", error)
            return MISSING

    return replace(key, decode=safely)


_said: Final[set[tuple[str, str]]] = set()


def _complain(dialect: str, what: str, error: Exception) -> None:
    count("dialects.failures", dialect=dialect)
    if (dialect, what) not in _said:
        _said.add((dialect, what))
        logger.warning("Dialect %r failed to read %s: %s: %s", dialect, what, type(error).__name__, error)


def usable(plugins: Iterable[Plugin], taken: Iterable[str], *, disabled: Iterable[str] = ()) -> list[Dialect]:
    """
    Return the dialects of plugins whose name nobody else has.

    Args:
        plugins: In order.
        taken: Names that are in use.
        disabled: Names that are not wanted.
    """
    names, found = set(taken), list[Dialect]()
    for plugin in plugins:
        for dialect in plugin.dialects:
            if dialect.name in disabled:
                continue
            if dialect.name in names:
                logger.warning(
                    "Dialect %r of %s is not used: there is another one of that name; disable it, or rename one",
                    dialect.name,
                    plugin.package,
                )
                continue
            names.add(dialect.name)
            found.append(dialect)
    return found
