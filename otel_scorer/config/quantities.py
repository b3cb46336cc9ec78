"""Durations, byte sizes and addresses as people write them in settings: `2s`, `64MiB`, `127.0.0.1:4317`."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Final, cast

from pydantic import BeforeValidator, PlainSerializer
from pydantic_core import PydanticCustomError

from otel_scorer.errors import ConfigError
from otel_scorer.transport.addresses import split_address

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "OFF",
    "Address",
    "ByteSize",
    "Duration",
    "format_bytes",
    "format_duration",
    "parse_address",
    "parse_bytes",
    "parse_duration",
]

OFF: Final = "off"
"""The word that switches off what has an address."""

_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {
    "": 1,
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d)")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_DURATION_FORM: Final = "write a duration as a number of seconds or with a unit: 2s, 500ms, 1h30m"


def parse_duration(value: object) -> float:
    """
    Return seconds.

    Args:
        value: A number of seconds, or text with units such as `2s`, `500ms`, `1h30m`.

    Raises:
        ValueError: It is neither, or negative, or without end.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        seconds = _seconds(value.strip())
    else:
        raise ValueError(_DURATION_FORM)  # noqa: TRY004 - a wrong setting, not a wrong call
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("a duration must be finite and not negative")
    return seconds


def _seconds(text: str) -> float:
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(_DURATION_FORM)
    # As decimals: many microseconds would not be what was written.
    return float(sum(Decimal(number) * Decimal(str(_SECONDS[unit])) for number, unit in parts))


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads back, in the largest unit that leaves a whole number."""
    for unit in ("h", "s", "ms", "us", "ns"):
        amount = seconds / _SECONDS[unit]
        if amount >= 1 and amount == int(amount):
            return f"{int(amount)}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def parse_bytes(value: object) -> int:
    """
    Return a number of bytes.

    Args:
        value: A whole number, or text such as `64MiB` (powers of 1024) or `4MB` (powers of 1000).

    Raises:
        ValueError: It is neither, or zero.
    """
    size = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        unit = _BYTES.get(match[2].upper())
        size = None if unit is None else round(float(match[1]) * unit)
    if size is None:
        raise ValueError("write a size as a number of bytes or with a unit: 64MiB, 4MB")
    if size <= 0:
        raise ValueError("a size must be greater than zero")
    return size


def format_bytes(size: int) -> str:
    """Return the text that people would write: `64MiB`."""
    for unit, name in (("TIB", "TiB"), ("GIB", "GiB"), ("MIB", "MiB"), ("KIB", "KiB")):
        if size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{name}"
    return str(size)


def parse_address(value: object) -> str:
    """
    Check `HOST:PORT` (`[::1]:4317` for IPv6, `:4317` for all interfaces; port 0: any free one) or `off`.

    Raises:
        ValueError: It is neither.
    """
    if value == OFF:
        return OFF
    try:
        split_address(value if isinstance(value, str) else "")
    except ConfigError as error:
        raise ValueError("write an address as HOST:PORT, such as 127.0.0.1:4317") from error
    return cast("str", value)


def _checked(parse: Callable[[object], object], value: object) -> object:
    try:
        return parse(value)
    except ValueError as error:
        raise PydanticCustomError("quantity", "{reason}", {"reason": str(error)}) from error


Duration = Annotated[
    float,
    BeforeValidator(lambda value: _checked(parse_duration, value)),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]
"""Seconds; written as `2s` or as a number."""

ByteSize = Annotated[
    int,
    BeforeValidator(lambda value: _checked(parse_bytes, value)),
    PlainSerializer(format_bytes, return_type=str, when_used="json"),
]
"""Bytes; written as `64MiB` or as a number."""

Address = Annotated[str, BeforeValidator(lambda value: _checked(parse_address, value))]
"""`HOST:PORT`, or `off`."""
