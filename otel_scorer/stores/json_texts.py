"""
JSON values out of a stream of text: one value a line, values one after the other, or a single pretty-printed one.

Damaged text costs as little as possible: of JSON lines the bad lines, of a value that is cut off its unfinished end.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

__all__ = ["json_values", "salvage"]

_BOM: Final = b"\xef\xbb\xbf"
# A text that is cut off goes on to the end: what is in it is no bracket.
_MARK: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[{}\[\]]', re.DOTALL)
# A cut is only made behind an element of one of these lists, or of a list at the top: half a span is no span.
_LISTS: Final = frozenset({
    "requests",
    "resourceSpans", "resource_spans", "scopeSpans", "scope_spans", "spans",
    "resourceLogs", "resource_logs", "scopeLogs", "scope_logs", "logRecords", "log_records",
})  # fmt: skip
_SPACE: Final = re.compile(r"\s*")


def json_values(
    stream: io.BufferedReader, on_damage: Callable[[str, int, int], None]
) -> Iterator[tuple[Any, int, int]]:
    """
    Yield each value with the line (from 1) and the byte offset at which it starts.

    JSON lines are read one line at a time; anything else is read as a whole.

    Args:
        stream: UTF-8 text.
        on_damage: Told what cannot be read, at which line and byte offset.
    """
    first = stream.readline()
    value, problem = _parse_line(first)
    if problem is None or not first.strip():
        if value is not None:
            yield value, 1, 0
        yield from _lines(stream, 2, len(first), on_damage)
        return
    yield from _whole(first + stream.read(), on_damage)


def _lines(
    stream: io.BufferedReader, line: int, offset: int, on_damage: Callable[[str, int, int], None]
) -> Iterator[tuple[Any, int, int]]:
    for raw in stream:
        value, problem = _parse_line(raw)
        if problem is not None:
            on_damage(problem, line, offset)
        elif value is not None:
            yield value, line, offset
        line += 1
        offset += len(raw)


def _parse_line(raw: bytes) -> tuple[Any, str | None]:
    if not raw.strip():
        return None, None
    try:
        return json.loads(raw.decode("utf-8-sig")), None
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        return None, f"not usable as JSON: {_short(error)}"


def _whole(data: bytes, on_damage: Callable[[str, int, int], None]) -> Iterator[tuple[Any, int, int]]:
    text = data.removeprefix(_BOM).decode("utf-8", "replace")
    bom = len(_BOM) if data.startswith(_BOM) else 0
    at = _skip_space(text, 0)
    found = False
    while at < len(text):
        line, offset = text.count("\n", 0, at) + 1, bom + len(text[:at].encode())
        try:
            value, end = json.JSONDecoder().raw_decode(text, at)
        except json.JSONDecodeError as error:
            if not found and (lines := _usable_lines(data)):
                yield from _replay(lines, on_damage)
                return
            saved = salvage(text[at:])
            if saved is not None:
                yield saved, line, offset
            on_damage(f"not JSON: {error.msg}", error.lineno, bom + len(text[: error.pos].encode()))
            return
        except (ValueError, RecursionError) as error:
            on_damage(f"not usable as JSON: {_short(error)}", line, offset)
            return
        found = True
        yield value, line, offset
        at = _skip_space(text, end)


def _usable_lines(data: bytes) -> list[tuple[Any, str | None, int]]:
    """Return all lines as (value, problem, size), or nothing if none is an object: then it is no JSON lines file."""
    lines = [(*_parse_line(raw), len(raw)) for raw in data.splitlines(keepends=True)]
    return lines if any(isinstance(value, dict) and len(cast("Any", value)) > 0 for value, _, _ in lines) else []


def _replay(
    lines: list[tuple[Any, str | None, int]], on_damage: Callable[[str, int, int], None]
) -> Iterator[tuple[Any, int, int]]:
    offset = 0
    for line, (value, problem, size) in enumerate(lines, start=1):
        if problem is not None:
            on_damage(problem, line, offset)
        elif value is not None:
            yield value, line, offset
        offset += size


def salvage(text: str) -> Any:
    """
    Return what is complete of an OTLP/JSON value whose end is missing, or None.

    It is cut behind the last complete span, log record or group of them, and closed.
    """
    stack: list[str] = []
    # The key whose value comes next, at each level: it names the list that an element belongs to.
    keys: list[str] = [""]
    last = ""
    cut: tuple[int, str] | None = None
    for match in _MARK.finditer(text):
        mark = match[0]
        if mark in "{[":
            stack.append("}" if mark == "{" else "]")
            keys.append(last if mark == "[" else "")
            last = ""
        elif mark in "}]":
            if not stack or stack[-1] != mark:
                break
            stack.pop()
            keys.pop()
            if mark == "}" and stack and stack[-1] == "]" and (keys[-1] in _LISTS or len(stack) == 1):
                cut = match.end(), "".join(reversed(stack))
        else:
            last = mark[1:-1]
    if cut is None:
        return None
    try:
        return json.loads(text[: cut[0]] + cut[1])
    except (ValueError, RecursionError):
        return None


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _short(error: BaseException) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
