"""The context that scorers run in: nothing above it that could become a parent, and instrumentation switched off."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

# The key is what OpenTelemetry's own exporters use, and what instrumentations look for; it has no public name.
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS  # pyright: ignore[reportPrivateUsage]
from opentelemetry.context import Context, attach, detach, get_value

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["is_suppressed", "suppressed"]


@contextmanager
def suppressed() -> Generator[None]:
    """Leave the caller's trace, if there is one, and suppress instrumentation until the block ends."""
    token = attach(Context({SUPPRESS: True}))
    try:
        yield
    finally:
        detach(token)


def is_suppressed() -> bool:
    """Tell whether this code runs below a scorer (or an exporter)."""
    return bool(get_value(SUPPRESS))
