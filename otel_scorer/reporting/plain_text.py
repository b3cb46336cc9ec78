"""Text from traces, made safe for a terminal: what users typed must not move the cursor or change colours."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["one_line", "printable"]

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return the text with control characters other than line breaks and tabs shown as replacement characters."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str, limit: int) -> str:
    """Return the text on one line, cut to `limit` characters."""
    flat = " ".join(printable(text).split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."
