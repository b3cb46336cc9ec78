"""Offline: read recorded traces, run scorers on traces and on rows of data, sum up what they say."""

from __future__ import annotations

from otel_scorer.evaluation.recordings import Progress, RecordedTrace, Recording, load_traces, read_recording
from otel_scorer.evaluation.scoring import ScoredTrace, score_stream, score_traces

__all__ = [
    "Progress",
    "RecordedTrace",
    "Recording",
    "ScoredTrace",
    "load_traces",
    "read_recording",
    "score_stream",
    "score_traces",
]
