"""
How much memory there is for us, how much we use, and how to give back what is free: what Linux and Python tell of it.

All of it is best effort: what cannot be learned here counts as none.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["available_memory", "give_back", "keep_freed", "private_bytes", "resident_bytes", "reusable_bytes"]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
# What Python's allocator says about itself, at the end of a report.
_FREE: Final = re.compile(rb"(?:bytes in available blocks|unused pools \* \d+ bytes)\s*= *([\d,]+)")
_V2: Final = "memory.max"
_V1: Final = "memory.limit_in_bytes"


def available_memory(root: Path = Path("/")) -> int:
    """
    Return how many bytes this process may use: the limit of its control group or of one around it, else all there are.

    Args:
        root: Where `proc` and `sys` are.
    """
    physical = os.sysconf("SC_PHYS_PAGES") * _PAGE
    return min([physical, *_group_limits(root)])


def resident_bytes(workers: Iterable[int] = (), root: Path = Path("/")) -> int:
    """
    Return the memory that this process has, and its workers have beside what they share with others; 0 if nobody tells.

    Args:
        workers: Their process ids.
        root: Where `proc` is.
    """
    total, _ = _resident(root / "proc/self/statm")
    return total + sum(private_bytes(pid, root) for pid in workers)


def private_bytes(pid: int, root: Path = Path("/")) -> int:
    """Return the memory that another process has and shares with nobody; 0 if nobody tells."""
    resident, shared = _resident(root / f"proc/{pid}/statm")
    return resident - shared


def give_back() -> None:
    """Have the C library return what it keeps for later to the system; without it, memory that is free stays ours."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed(size: int, *, apart: int, step: int, heaps: int | None = None) -> None:
    """
    Have the C library keep what is freed for what comes next, instead of asking the system for it again.

    Buffers of half a megabyte come and go by the thousand. By default glibc maps and unmaps each of them, or gives the
    end of its heap back, so that every one costs page faults.

    Args:
        size: Bytes that may be free at the end of the heap.
        apart: Bytes from which on a buffer is mapped apart, and unmapped once it is freed.
        step: Bytes by which the heap grows.
        heaps: How many heaps the threads have between them; None: as many as glibc thinks fit.
    """
    m_trim_threshold, m_top_pad, m_mmap_threshold, m_arena_max = -1, -2, -3, -8
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        if heaps is not None:
            libc.mallopt(m_arena_max, heaps)
        libc.mallopt(m_top_pad, step)
        libc.mallopt(m_mmap_threshold, apart)
        libc.mallopt(m_trim_threshold, size)


def reusable_bytes() -> int:
    """
    Return how much of the memory of this process Python has free for small objects; 0 if it does not tell.

    It returns memory to the system by the megabyte, and one small object that stays keeps all of one: closed traces
    leave many free megabytes so, which the next ones will use. Takes microseconds per megabyte.
    """
    with contextlib.suppress(OSError, AttributeError):
        system, text, size = ctypes.CDLL(None), ctypes.c_void_p(), ctypes.c_size_t()
        tell = ctypes.pythonapi["_PyObject_DebugMallocStats"]
        system.open_memstream.restype = ctypes.c_void_p
        file = ctypes.c_void_p(system.open_memstream(ctypes.byref(text), ctypes.byref(size)))
        if file.value is not None:
            tell(file)
            system.fclose(file)
            report = ctypes.string_at(text, size.value)
            system.free(text)
            return sum(int(found.replace(b",", b"")) for found in _FREE.findall(report))
    return 0


def _resident(statm: Path) -> tuple[int, int]:
    """Return bytes in memory, and those of them that others have too (proc(5): the second and the third number)."""
    try:
        # Several times a second: a file object would cost more than the rest.
        file = os.open(statm, os.O_RDONLY)
        try:
            fields = os.read(file, 256).split()
        finally:
            os.close(file)
        return int(fields[1]) * _PAGE, int(fields[2]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0, 0


def _group_limits(root: Path) -> Iterator[int]:
    """Yield the limits of the control groups (cgroups(7), version 2 and 1) that we are in, from the inside outwards."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            yield from _limits(root / "sys/fs/cgroup", path, _V2)
        elif "memory" in controllers.split(","):
            yield from _limits(root / "sys/fs/cgroup/memory", path, _V1)


def _limits(mount: Path, path: str, name: str) -> Iterator[int]:
    # In a container the path may be that of the host, and only the group of the container itself is mounted.
    group = mount / path.strip("/")
    for folder in (group, *group.parents):
        with contextlib.suppress(OSError, ValueError):  # there is none here, or it says "max"
            yield int((folder / name).read_text(encoding="ascii"))
        if folder == mount:
            return
