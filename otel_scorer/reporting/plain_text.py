"""Text from traces, made safe to show: what users typed must not move the cursor or turn lines around."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["one_line", "printable"]

# Control characters, those that change the direction of text, and halves of characters, which UTF-8 cannot carry.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


# How much of a text is read for one line of it: white space is squeezed.
_HEAD: Final = 10


def printable(text: str) -> str:
    """Return the text with control characters other than line breaks and tabs shown as replacement characters."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str, limit: int) -> str:
    """Return the text on one line, cut to `limit` characters."""
    # What is far behind the limit is not looked at: a value may have millions of characters.
    head = text[: _HEAD * limit]
    flat = " ".join(printable(head).split())
    if len(flat) <= limit and len(head) == len(text):
        return flat
    return flat[: limit - 3] + "..."
