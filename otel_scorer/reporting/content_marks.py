"""Content that is not what the application said: cut by a limit, or blanked out on purpose."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_scorer.model.trace import Span

__all__ = ["cut_values", "is_redacted", "length_limit"]

# What instrumentations and scrubbers put in the place of content: Claude Code, OpenInference, Logfire, Sentry.
_REDACTED: Final = re.compile(r"^\s*(?:[<\[(]?_{0,2}(?:REDACTED|redacted|Filtered|FILTERED)_{0,2}[>\])]?|\*{3,})\s*$")
_SCRUBBED: Final = ("[Scrubbed due to ", "__REDACTED__", "<REDACTED>", "[REDACTED]")
_CUT_MARKS: Final = ("[truncated]", "<truncated>", "(truncated)", "... (truncated", "...[truncated")
_LONG: Final = 64
_ELLIPSIS_FROM: Final = 200


def is_redacted(value: object) -> bool:
    """Tell a value that stands in the place of another one."""
    if not isinstance(value, str):
        return False
    return _REDACTED.match(value) is not None or any(mark in value for mark in _SCRUBBED)


def cut_values(span: Span, limit: int | None = None) -> list[str]:
    """
    Return the attributes whose value looks cut, sorted.

    Args:
        span: The span.
        limit: Length that values of the trace seem to be cut to, see `length_limit`.
    """
    return sorted(key for key, value in span.attributes.items() if isinstance(value, str) and _looks_cut(value, limit))


def length_limit(spans: Iterable[Span]) -> int | None:
    """
    Return the length that an SDK seems to cut attribute values to; None if nothing points to one.

    That is the greatest length of all, if several different values have it and it is a number that people choose.
    """
    values = {value for span in spans for value in span.attributes.values() if isinstance(value, str)}
    lengths = Counter(map(len, values))
    longest = max(lengths, default=0)
    is_chosen = longest & (longest - 1) == 0 or longest % 50 == 0
    return longest if longest >= _LONG and lengths[longest] > 1 and is_chosen else None


def _looks_cut(value: str, limit: int | None) -> bool:
    if len(value) < _LONG:
        return False
    end = value[-32:].rstrip()
    if end.endswith(("]", "}")) and not any(mark in end for mark in _CUT_MARKS):
        return False
    if len(value) == limit or any(mark in end for mark in _CUT_MARKS):
        return True
    if value[:1] in {"{", "["}:
        return _is_cut_json(value)
    return len(value) >= _ELLIPSIS_FROM and end.endswith(("...", "\N{HORIZONTAL ELLIPSIS}"))


def _is_cut_json(value: str) -> bool:
    """Tell JSON that ends before its time from text that only begins like it."""
    try:
        json.loads(value)
    except json.JSONDecodeError as error:
        return error.pos >= len(value) - 1 or error.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        return False
    return False
