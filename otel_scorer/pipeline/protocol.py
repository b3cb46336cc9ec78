"""
What the sidecar and its scorer workers say to each other over a pipe: framed JSON headers and span bytes, never pickles.

    sidecar -> worker   SETUP    {"scorers": [...], "concurrency": n, ...}
    worker  -> sidecar  READY    {"scorers": [{"name": ..., "version": ..., ...}]}   or {"error": "..."}
    sidecar -> worker   JOBS     [{"id": n, "scorers": [i, ...], "size": bytes, ...}] + the traces as OTLP requests
    worker  -> sidecar  RESULTS  [{"id": n, "done": bool, "decisions": [...]}]

A page of memory shared by both says which scorer is running since when, so that the sidecar can tell a hung scorer from
a long queue and a crash's culprit from a bystander.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import pydantic_core

if TYPE_CHECKING:
    import mmap

__all__ = ["HEARTBEAT_BYTES", "Heartbeat", "pack", "unpack"]

_HEADER: Final = struct.Struct("<I")
_BEAT: Final = struct.Struct("<qqd")
HEARTBEAT_BYTES: Final = 4096
_NOBODY: Final = -1


def pack(header: Any, *payloads: bytes) -> bytes:
    """Frame a header (plain JSON data) and payloads."""
    encoded = pydantic_core.to_json(header, inf_nan_mode="constants")
    return b"".join((_HEADER.pack(len(encoded)), encoded, *payloads))


def unpack(message: bytes) -> tuple[Any, memoryview]:
    """Return the header and what follows it."""
    (size,) = _HEADER.unpack_from(message)
    end = _HEADER.size + size
    return pydantic_core.from_json(message[_HEADER.size : end]), memoryview(message)[end:]


class Heartbeat:
    """Which scorer runs in a worker, and since when (monotonic seconds, comparable across processes)."""

    def __init__(self, page: mmap.mmap) -> None:
        self._page = page

    def begin(self, job_id: int, scorer: int, now: float) -> None:
        """Note that a scorer starts."""
        _BEAT.pack_into(self._page, 0, job_id, scorer, now)

    def end(self) -> None:
        """Note that no scorer runs."""
        _BEAT.pack_into(self._page, 0, _NOBODY, _NOBODY, 0.0)

    def read(self) -> tuple[int, int, float] | None:
        """Return job id, scorer index and start of what runs, or None."""
        job_id, scorer, since = _BEAT.unpack_from(self._page, 0)
        return None if scorer == _NOBODY else (job_id, scorer, since)
