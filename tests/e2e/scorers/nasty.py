"""Scorers that misbehave on traces whose root says so (attribute `do`), and well-behaved ones between them."""

import asyncio
import ctypes
import os
import signal
import sys
import threading

from otel_scorer import Feedback, scorer


def told(trace, what):
    return trace.root is not None and trace.root.get_attribute("do") == what


def for_ever():
    threading.Event().wait()


@scorer
def first(trace):
    return True


@scorer(timeout=0.5)
def hangs(trace):
    if told(trace, "hang"):
        for_ever()
    return True


@scorer
def exits(trace):
    if told(trace, "exit"):
        os._exit(3)
    return True


@scorer
def crashes(trace):
    if told(trace, "crash"):
        ctypes.string_at(0)
    return True


@scorer
def raises(trace):
    if told(trace, "raise"):
        raise ValueError("told to")
    return True


@scorer
def quits(trace):
    if told(trace, "quit"):
        sys.exit(1)
    if told(trace, "interrupt"):
        raise KeyboardInterrupt
    return True


@scorer
def prints(trace):
    if told(trace, "print"):
        print("ready to confuse everybody")
        os.write(1, b"ready in bytes\n")
    return True


@scorer
def surrogates(trace):
    if told(trace, "surrogates"):
        return Feedback(name="odd\ud800", value="\udfff", rationale="a lone \ud800", metadata={"\ud801": "\ud802"})
    return True


@scorer
def huge(trace):
    if told(trace, "huge"):
        return Feedback(value=10**5000, rationale="r" * 5_000_000, metadata={"m": "x" * 1_000_000})
    return True


@scorer(timeout=0.5)
async def waits(trace):
    if told(trace, "await"):
        await asyncio.Event().wait()
    return True


@scorer(timeout=0.5)
async def blocks(trace):
    if told(trace, "block"):
        for_ever()
    await asyncio.sleep(0)
    return True


@scorer
async def async_exits(trace):
    await asyncio.sleep(0)
    if told(trace, "async exit"):
        os._exit(4)
    return True


@scorer
async def async_raises(trace):
    await asyncio.sleep(0)
    if told(trace, "async raise"):
        raise ValueError("told to")
    if told(trace, "async interrupt"):
        raise KeyboardInterrupt
    if told(trace, "cancel"):
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)
    return True


@scorer
def last(trace):
    return True


@scorer(span_types=["TOOL"])
def per_tool(span):
    if span.get_attribute("do") == "exit":
        os._exit(5)
    return True


@scorer
def killed(trace):
    if told(trace, "kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    return True
