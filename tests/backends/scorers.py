"""Scorers for the tests: one that is late, one whose names and words are hard to take, and what a dashboard shows."""

import os
import socket

from otel_scorer import Feedback, Trace, scorer

LONG = 10_000_000
# Names that mean something to a query language, a database, a URL or a page, and one that no column holds.
NAMES = ['it\'s "quoted"', "a/b?c=d&e#f", "50% <b>bold</b>", "größer ≥ 質 🙂", "back\\slash", "line\nbreak", "n" * 1000]


@scorer(timeout=240)
def late(trace: Trace) -> bool:
    """Wait until the test lets it go."""
    host, _, port = os.environ["GATE"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=200) as connection:
        connection.sendall(trace.info.trace_id.encode())
        connection.recv(1)
    return True


@scorer
def helpfulness(trace: Trace) -> float:
    """Think little of an answer for which a tool failed."""
    return 0.5 if any(call.failed for call in trace.tool_calls) else 0.9


@scorer
def broken(trace: Trace) -> bool:
    """Fail."""
    raise LookupError(trace.info.trace_id)


@scorer
def odd(trace: Trace) -> list[Feedback]:
    """Judge one trace in many words."""
    del trace
    return [
        *(Feedback(name=name, value=name, rationale=f"\x00 and \ud800 of {name}") for name in NAMES),
        Feedback(name="long", value=True, rationale="x" * LONG, metadata={"key \x00 'quoted'": "m" * LONG}),
        Feedback(name="text", value="y" * LONG),
    ]
