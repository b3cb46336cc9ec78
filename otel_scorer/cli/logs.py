"""
What is logged while a sidecar runs: lines for people, or one JSON object a line.

Nothing of a span is logged. Messages are put together from constants, names, addresses and counts; what an exception
says that is neither our own nor the system's is left out, as it may quote what was being handled.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from otel_scorer.errors import OtelScorerError

if TYPE_CHECKING:
    from types import TracebackType

    _ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

__all__ = ["start_logging"]

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def start_logging(level: str, form: str) -> None:
    """Log to standard error from `level` (such as `info`) on, as `text` or `json`; Python's warnings too."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Text(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(capture=True)


class _Text(logging.Formatter):
    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - as logging calls it
        """Return the stack of an exception."""
        return _stack(ei[1])


class _Json(logging.Formatter):
    """One object: `event` is the same for all lines of one place in the code, `message` is for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line."""
        at = datetime.fromtimestamp(record.created, UTC)
        said: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": str(record.msg) if record.args else record.getMessage(),
            "message": record.getMessage(),
            "thread": record.threadName,
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            said |= {"error": type(error).__qualname__, "stack": _stack(error)}
        return json.dumps(said, ensure_ascii=False)


def _stack(error: BaseException | None) -> str:
    """Return where an exception came from and, where nobody's data can be in it, what it says."""
    if error is None:
        return ""
    lines: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        says = f": {error}" if isinstance(error, OtelScorerError | OSError) else ""
        lines[:0] = [
            *(line.rstrip("\n") for line in traceback.format_tb(error.__traceback__)),
            f"{type(error).__qualname__}{says}",
        ]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(lines)
