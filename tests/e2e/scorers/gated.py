"""Scorers that wait for the test, and one that does not."""

import os
import socket

from otel_scorer import scorer


def pass_gate(trace):
    host, _, port = os.environ["GATE"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(trace.info.trace_id.encode())
        connection.recv(1)


@scorer
def quick(trace):
    return True


@scorer
def gated(trace):
    pass_gate(trace)
    return "let through"
